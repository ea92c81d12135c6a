//! What stands beside the road: `cargo bench --bench state`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use in_trendmicro::batch::Batch;
use in_trendmicro::checkpoint::{Change, Sqlite, Store};
use in_trendmicro::clock::{Stop, Time};
use in_trendmicro::cursor::Progress;
use in_trendmicro::http::limiter::{Allowance, Priority};
use in_trendmicro::ledger::Ledger;
use in_trendmicro::queue::Queue;
use in_trendmicro::record::Id;
use in_trendmicro::window::Window;

/// Records of a page.
const PAGE: usize = 500;
/// Ids that an hour of a busy tenant leaves in the ledger.
const KNOWN: u128 = 1_000_000;

/// Ids are hashes, so these are spread like them.
fn ids(from: u128, count: usize) -> Vec<Id> {
    (from..)
        .take(count)
        .map(|n| Id(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)))
        .collect()
}

fn at(secs: i64) -> Time {
    Time::from_timestamp(secs, 0).expect("a time")
}

fn known() -> Ledger {
    let mut ledger = Ledger::default();
    // As an hour of minutes leaves them, each in its bucket.
    for (minute, ids) in ids(0, KNOWN as usize).chunks(KNOWN as usize / 60).enumerate() {
        ledger.deliver(ids, at(60 * minute as i64));
    }
    ledger
}

fn ledger(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ledger");
    group.throughput(Throughput::Elements(PAGE as u64));
    let (mut ledger, seen, new) = (known(), ids(0, PAGE), ids(KNOWN, PAGE));
    group.bench_function("a page of duplicates", |bencher| {
        bencher.iter(|| seen.iter().filter(|&&id| ledger.admit(id)).count());
    });
    group.bench_function("a new page, admitted and withdrawn", |bencher| {
        bencher.iter(|| {
            let admitted = new.iter().filter(|&&id| ledger.admit(id)).count();
            ledger.withdraw(&new);
            admitted
        });
    });
}

fn store(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(PAGE as u64)).measurement_time(Duration::from_secs(3));
    for sync in ["NORMAL", "FULL"] {
        let path = dir.path().join(sync);
        let mut store = Sqlite::open(&path, sync).expect("a state file");
        let mut secs = 0;
        group.bench_function(format!("a page committed, sync {sync}"), |bencher| {
            bencher.iter_batched(
                || {
                    secs += 60;
                    Change {
                        stream: "mail/accepted_traffic".to_owned(),
                        delivered: vec![(
                            Window { start: at(secs), end: at(secs) },
                            ids(secs as u128, PAGE),
                        )],
                        cursor: Some(at(secs)),
                        forget_before: Some(at(secs - 3600)),
                        ..Change::default()
                    }
                },
                |change| store.commit(&[change]).expect("a commit"),
                BatchSize::SmallInput,
            );
        });
    }
}

fn limiter(criterion: &mut Criterion) {
    let stop = Stop::default();
    let unlimited = Allowance::new([1; 32], None, None);
    criterion.bench_function("limiter, without a limit", |bencher| {
        bencher.iter(|| unlimited.acquire(Priority::Live, &stop).expect("no stop"));
    });
    let limited = Allowance::new([2; 32], Some(u32::MAX), None);
    criterion.bench_function("limiter, within a limit", |bencher| {
        bencher.iter(|| limited.acquire(Priority::Backfill, &stop).expect("no stop"));
    });
}

fn queue(criterion: &mut Criterion) {
    let (queue, stop) = (Queue::new(100_000_000), Stop::default());
    let window = Progress::new(None).open(at(0));
    let batch = || Batch {
        stream: 0,
        window,
        span: Window { start: at(0), end: at(0) },
        tag: None,
        bytes: vec![0; 1000],
        ids: ids(0, PAGE),
    };
    criterion.bench_function("queue, a batch in and out", |bencher| {
        bencher.iter_batched(
            batch,
            |batch| {
                assert!(queue.push(batch, &stop).is_ok());
                let taken = queue.take(1_000_000, 1);
                queue.release(taken.iter().map(|batch| batch.bytes.len()).sum());
                black_box(taken)
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, ledger, store, limiter, queue);
criterion_main!(benches);
