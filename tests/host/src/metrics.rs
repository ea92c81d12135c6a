//! An input's own metrics, as the host's encoder writes them.

use std::fmt::Write as _;
use std::sync::PoisonError;
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
    out + &measured(instance)
}

/// A metric that the plugin made.
#[derive(Debug)]
pub struct Family {
    /// Its whole name.
    pub name: String,
    /// What it says.
    pub help: String,
    /// Whether it must not fall.
    pub is_counter: bool,
    /// The names of its labels.
    pub keys: Vec<String>,
    /// Values of the labels, and the value.
    pub series: Vec<(Vec<String>, f64)>,
}

impl Family {
    /// Stores a value; false if it may not be.
    pub fn set(&mut self, labels: &[String], value: f64) -> bool {
        let Some(series) = self.series.iter_mut().find(|(own, _)| own == labels) else {
            self.series.push((labels.to_vec(), value));
            return true;
        };
        let may = !self.is_counter || value >= series.1;
        series.1 = if may { value } else { series.1 };
        may
    }
}

/// The plugin's own metrics in the Prometheus form.
pub fn measured(instance: &Instance) -> String {
    let mut out = String::new();
    for family in instance.families.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let Family { name, help, is_counter, keys, series } = family;
        let kind = if *is_counter { "counter" } else { "gauge" };
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (values, value) in series {
            let labels = keys.iter().zip(values).map(|(key, value)| format!("{key}=\"{value}\""));
            let labels = labels.collect::<Vec<_>>().join(",");
            let _ = writeln!(out, "{name}{{{labels}}} {value}");
        }
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
