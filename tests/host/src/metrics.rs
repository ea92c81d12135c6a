//! An input's own metrics, as the host's encoder writes them.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::instance::Instance;
use crate::options::Abi;
use crate::shared::date_and_time;

/// The Prometheus form, or the host's plain text. Values are doubles to the host (`%.17g`); whole
/// numbers below 1e17 look the same, and no counter here grows beyond.
pub fn text(instance: &Instance, plain: bool, add_timestamp: bool) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let label = format!("{{name=\"{}\"}}", instance.label());
    let (date, time) = date_and_time(now);
    let prefix = format!("{date}T{time}.{:09}Z", now.subsec_nanos());
    let suffix = if add_timestamp { format!(" {}", now.as_millis()) } else { String::new() };
    let mut out = String::new();
    for (short, kind, help, value) in rows(instance) {
        let name = format!("fluentbit_input_{short}");
        let _ = if plain {
            writeln!(out, "{prefix} {name}{label} = {value}")
        } else {
            writeln!(
                out,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{label} {value}{suffix}"
            )
        };
    }
    out
}

type Row = (&'static str, &'static str, &'static str, u64);

fn rows(instance: &Instance) -> Vec<Row> {
    let counts = instance.counters.read();
    let paused = u64::from(instance.gauge_paused.load(Ordering::SeqCst));
    let counter = |name, help, value| -> Row { (name, "counter", help, value) };
    let mut rows = vec![
        counter("bytes_total", "Number of input bytes.", counts.bytes_total),
        counter("records_total", "Number of input records.", counts.records_total),
    ];
    if instance.shared.options.abi != Abi::Before41 {
        let (writes, retries) = (counts.ring_writes, counts.ring_retries);
        let failures = counts.ring_retry_failures;
        rows.extend([
            counter("ring_buffer_writes_total", "Number of ring buffer writes.", writes),
            counter("ring_buffer_retries_total", "Number of ring buffer retries.", retries),
            counter(
                "ring_buffer_retry_failures_total",
                "Number of ring buffer retry failures.",
                failures,
            ),
        ]);
    }
    rows.push(("ingestion_paused", "gauge", "Is the input paused or not?", paused));
    rows
}
