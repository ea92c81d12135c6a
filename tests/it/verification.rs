//! The passes behind the live rounds: what the vendor shows later than `overlap` is found, once.

use std::time::Duration;

use in_trendmicro::window::Policy;

use crate::rig::{Asked, Fault, HOUR, Rig, TYPES, policy};

const MINUTE: i64 = 60;

fn verifying(lookback: u64, overlap: u64) -> Policy {
    Policy { verify: true, ..policy(lookback, overlap) }
}

fn hours(hours: i64) -> i64 {
    hours * 3_600
}

fn count(rig: &Rig, number: u64) -> u32 {
    rig.delivered.get(&number).copied().unwrap_or(0)
}

/// How late the records of the tests below are shown, in seconds.
const LATENESS: [i64; 5] = [7 * MINUTE, 50 * MINUTE, 5 * 3_600, 30 * 3_600, 68 * 3_600];

#[test]
fn whatever_is_late_within_the_horizon_is_found_once() {
    let mut rig = Rig::new(&TYPES[..2], verifying(HOUR, 300));
    rig.mails(-1_000..hours(4), 600);
    for stream in 0..2 {
        for late in LATENESS {
            rig.mail(stream, hours(2), late);
        }
    }
    rig.run_until(hours(80) as f64);
    rig.assert_complete(-1_000..hours(4));
    for stream in 0..2 {
        let position = rig.streams[stream].position();
        assert_eq!(position.counts.late, LATENESS.len() as u64);
        let lateness = position.lateness_max.as_secs() as i64;
        assert!((hours(70)..hours(72)).contains(&lateness), "{lateness} s");
    }
    let warning = rig.lines.iter().find(|line| line.contains("later than the overlap")).unwrap();
    assert!(warning.contains("showed 1 records") && warning.contains("of 300 s"), "{warning}");
    assert!(warning.contains("write: overlap: "), "{warning}");
}

#[test]
fn without_passes_what_is_later_than_the_overlap_is_missed() {
    let mut rig = Rig::new(&TYPES[..1], policy(HOUR, 300));
    let numbers = LATENESS.map(|late| rig.mail(0, hours(2), late));
    rig.run_until(hours(80) as f64);
    assert_eq!(numbers.map(|number| count(&rig, number)), [0; 5]);
}

#[test]
fn a_late_record_is_found_within_four_times_its_lateness() {
    let mut rig = Rig::new(&TYPES[..1], verifying(HOUR, 60));
    let number = rig.mail(0, hours(1), 4 * MINUTE);
    rig.run_until((hours(1) + 4 * MINUTE) as f64);
    assert_eq!(count(&rig, number), 0);
    rig.run_until((hours(1) + 12 * MINUTE) as f64);
    assert_eq!(count(&rig, number), 1);
}

/// A backlog is read when it is old already, so only the passes for a greater age read it again.
#[test]
fn a_backlog_is_not_read_again_at_once() {
    let mut rig = Rig::new(&TYPES[..1], verifying(24 * HOUR, 300));
    rig.mails(-hours(24)..0, 900);
    rig.run_until(600.0);
    let old = |asked: &&Asked| asked.end <= -hours(1);
    assert_eq!(rig.asked.iter().filter(old).count(), 23, "{:?}", rig.asked);
    rig.run_until(hours(65) as f64);
    rig.assert_complete(-hours(24)..0);
    let span = -hours(20)..-hours(8);
    let again = rig.asked.iter().filter(|asked| span.contains(&asked.start)).count();
    assert_eq!(again, 2 * 12, "once live and not by the passes for 20 min and 6 h, once at last");
}

#[test]
fn a_restart_repeats_nothing_and_forgets_no_pass() {
    let mut rig = Rig::new(&TYPES[..1], verifying(HOUR, 300));
    rig.mails(0..hours(3), 60);
    let late: Vec<u64> = (0..20).map(|i| rig.mail(0, i * 500, 2_000)).collect();
    while rig.elapsed < hours(10) as f64 {
        rig.run_until(rig.elapsed + 777.0);
        rig.restart();
    }
    rig.assert_complete(0..hours(3));
    assert!(late.iter().all(|&number| count(&rig, number) == 1));
}

/// A state file from before there were passes, or from a time without them, cannot tell what was
/// delivered long ago.
#[test]
fn what_the_store_has_forgotten_is_not_read_again() {
    let mut rig = Rig::new(&TYPES[..1], policy(HOUR, 300));
    rig.mails(0..hours(3), 60);
    rig.run_until(hours(2) as f64);
    rig.policy = verifying(HOUR, 300);
    rig.restart();
    rig.run_until(hours(12) as f64);
    rig.assert_complete(0..hours(3));
    rig.policy = policy(HOUR, 300);
    rig.restart();
    rig.mails(hours(12)..hours(13), 60);
    rig.run_until(hours(13) as f64);
    rig.policy = verifying(HOUR, 300);
    rig.restart();
    rig.run_until(hours(24) as f64);
    rig.assert_complete(0..hours(13));
}

#[test]
fn a_pass_survives_faults_and_halved_windows() {
    let mut rig = Rig::new(&TYPES[..1], verifying(HOUR, 300));
    rig.vendor.page_size = 7;
    rig.mails(0..hours(2), 60);
    for i in 0..60 {
        rig.mail(0, i * 100, 1_000 + i * 50);
    }
    let mut turn = 0;
    rig.script = Box::new(move |asked, _| {
        turn += 1;
        let faults =
            [Fault::Timeout, Fault::Reset, Fault::Garbage, Fault::Status(500), Fault::Circle];
        (asked.is_pass && turn % 3 == 0).then(|| faults[turn / 3 % faults.len()])
    });
    rig.run_until(hours(12) as f64);
    rig.assert_complete(0..hours(2));
    let position = rig.streams[0].position();
    assert!(position.counts.late > 50, "{:?}", position.counts);
}

/// The simulation tries this with confirmations at any moment.
#[test]
fn a_pass_halves_a_dense_window_and_finds_everything_once() {
    let policy = Policy { records_max: 10, ..verifying(HOUR, 300) };
    let mut rig = Rig::new(&TYPES[..1], policy);
    (rig.vendor.page_size, rig.vendor.is_sorted) = (10, true);
    for second in 0..40 {
        rig.mail(0, hours(1) + second, 25 * MINUTE);
    }
    rig.run_until(hours(3) as f64);
    rig.assert_complete(0..hours(2));
    assert_eq!(rig.streams[0].position().counts.late, 40);
    let narrow = |asked: &&Asked| asked.is_pass && asked.end - asked.start < MINUTE;
    assert!(rig.asked.iter().filter(narrow).count() > 2, "{:?}", rig.asked);
}

#[test]
fn the_live_rounds_come_first() {
    let mut rig = Rig::new(&TYPES[..1], verifying(HOUR, 300));
    rig.mails(0..hours(8), 60);
    rig.run_until(hours(8) as f64);
    let rounds: Vec<f64> =
        rig.asked.iter().filter(|asked| asked.is_live).map(|asked| asked.at).collect();
    let longest = rounds.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    assert!(longest < 61.0, "a pass delayed a round to {longest} s");
    let passes = rig.asked.len() - rounds.len();
    assert!((20..40).contains(&passes), "three an hour for the first pass: {passes}");
}

#[test]
fn far_behind_is_warned_of_with_rate_and_time_left() {
    let mut rig = Rig::one(1);
    rig.mails(-1_000..0, 60);
    rig.run_until(100.0);
    let is_up = 50.0 * 3_600.0;
    rig.script = Box::new(move |asked, _| (asked.at < is_up).then_some(Fault::Reset));
    rig.run_until(47.0 * 3_600.0);
    let behind = |rig: &Rig| rig.lines.iter().filter(|line| line.contains("h behind")).count();
    assert_eq!(behind(&rig), 0);
    rig.run_until(49.0 * 3_600.0);
    assert!((4..8).contains(&behind(&rig)), "once in ten minutes: {}", behind(&rig));
    let line = rig.lines.iter().rfind(|line| line.contains("h behind")).unwrap();
    assert!(line.contains("keeps 72 h") && line.contains("lost in 23."), "{line}");
    rig.run_until(60.0 * 3_600.0);
    let count = behind(&rig);
    rig.run_until(62.0 * 3_600.0);
    assert_eq!(behind(&rig), count, "it has caught up");
}

/// Nothing of the two overlaps: what a pass reads is older than what a live round may still show.
#[test]
fn a_pass_never_meets_the_live_rounds() {
    for overlap in [0, 60, 300, 7_200] {
        let mut rig = Rig::new(&TYPES[..1], verifying(HOUR, overlap));
        rig.confirms_after = 30.0;
        rig.mails(0..hours(20), 300);
        rig.run_until(hours(30) as f64);
        rig.assert_complete(0..hours(20));
        let reach = Duration::from_secs(overlap).as_secs() as i64;
        let mut newest_live = i64::MIN;
        for asked in &rig.asked {
            if asked.is_pass {
                assert!(asked.end < newest_live - reach, "{asked:?}");
            } else {
                newest_live = newest_live.max(asked.end);
            }
        }
    }
}
