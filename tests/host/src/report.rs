//! What the host tells about itself: a status at any time, a report at the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};

use crate::ffi::Definition;
use crate::shared::{Call, Violation};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one instance, written by its thread and the engine.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: AtomicU64,)* }

        /// A copy of the counters at one moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// Copies all counters.
            pub fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::SeqCst),)* }
            }
        }

        impl Counts {
            /// Name and value of each counter.
            pub fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// `fluentbit_input_records_total`.
    records_total,
    /// `fluentbit_input_bytes_total`.
    bytes_total,
    /// Records in buffers the host took, before processors.
    handed_over_records,
    /// Bytes of those buffers.
    handed_over_bytes,
    /// Number of those buffers.
    handed_over_appends,
    /// Appends the plugin was told -1 for.
    refused_appends,
    /// Buffers of plain hand-overs that found the ring full: lost, and the plugin does not know.
    ring_dropped_appends,
    /// Records in them.
    ring_dropped_records,
    /// Successful writes to the ring.
    ring_writes,
    /// Tries that found the ring full.
    ring_retries,
    /// Buffers given up after all tries.
    ring_retry_failures,
    /// Buffers still in the ring when the instance ended.
    ring_left_appends,
    /// Records in them.
    ring_left_records,
    /// Buffers that were malformed somewhere.
    malformed_records,
    /// Records that were counted but never came out of a poisoned chunk.
    poisoned_records,
    /// Records the outputs took.
    delivered_records,
    /// Records no output wanted.
    unrouted_records,
    /// Records in memory chunks when the host ended.
    dropped_at_exit_records,
    /// Bytes in chunks that wait for an output.
    pending_bytes,
    /// Calls of Init.
    init_calls,
    /// Calls of PreRun.
    pre_run_calls,
    /// Calls of the collect callback.
    collect_calls,
    /// Calls of the cleanup callback.
    cleanup_calls,
    /// Calls of Pause.
    pause_calls,
    /// Calls of Resume.
    resume_calls,
    /// Calls of PreExit.
    pre_exit_calls,
    /// Calls of Exit.
    exit_calls,
    /// The longest collect callback, hand-overs included, in milliseconds.
    collect_longest_ms,
    /// The longest one without the time the host needed to take hand-overs.
    collect_own_longest_ms,
    /// Time spent taking hand-overs, in microseconds.
    append_micros,
    /// The duration of Init in milliseconds.
    init_ms,
    /// The duration of Exit in milliseconds.
    exit_ms,
}

/// One input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputStatus {
    /// NAME.N.
    pub name: String,
    /// The alias, or the name: the label in the metrics.
    pub label: String,
    /// The default tag.
    pub tag: String,
    /// Whether the engine holds it paused (memory limit or by command).
    pub paused: bool,
    /// Whether its collector runs.
    pub collecting: bool,
    /// Buffers in the ring.
    pub ring_len: usize,
    /// Slots of the ring.
    pub ring_slots: usize,
    /// Metrics that the plugin made, in the Prometheus form.
    pub metrics: String,
    /// Its counters.
    pub counts: Counts,
}

impl InputStatus {
    fn to_json(&self) -> Value {
        let mut row = Map::new();
        row.insert("name".to_owned(), json!(self.name));
        row.insert("label".to_owned(), json!(self.label));
        row.insert("tag".to_owned(), json!(self.tag));
        row.insert("paused".to_owned(), json!(self.paused));
        row.insert("collecting".to_owned(), json!(self.collecting));
        row.insert("ring_len".to_owned(), json!(self.ring_len));
        row.insert("ring_slots".to_owned(), json!(self.ring_slots));
        row.insert("metrics".to_owned(), json!(self.metrics));
        for (name, value) in self.counts.rows() {
            row.insert(name.to_owned(), json!(value));
        }
        Value::Object(row)
    }
}

/// The host at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The inputs of the running configuration.
    pub inputs: Vec<InputStatus>,
    /// Broken rules.
    pub violations: BTreeMap<String, Violation>,
    /// Callbacks so far, collect and cleanup excepted.
    pub calls: Vec<Call>,
    /// The log.
    pub log: Vec<String>,
    /// Successful reloads.
    pub reloads: usize,
    /// Whether the outputs are stalled.
    pub output_stalled: bool,
}

impl Status {
    /// One JSON object, without the log and the calls.
    pub fn to_json(&self) -> Value {
        json!({
            "inputs": self.inputs.iter().map(InputStatus::to_json).collect::<Vec<_>>(),
            "violations": violations_json(&self.violations),
            "reloads": self.reloads,
            "output_stalled": self.output_stalled,
        })
    }
}

/// The host after its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The inputs of each configuration that ran, one list per start or reload.
    pub generations: Vec<Vec<InputStatus>>,
    /// Broken rules.
    pub violations: BTreeMap<String, Violation>,
    /// All callbacks, collect and cleanup excepted.
    pub calls: Vec<Call>,
    /// The log.
    pub log: Vec<String>,
    /// What the plugin registered.
    pub definition: Definition,
    /// Names of threads that live after the end and did not before the start. In a process with
    /// threads of its own some may not be the plugin's, so only the program counts them a violation.
    pub threads_left: Vec<String>,
}

impl Report {
    /// Counts a rule broken outside the host's own sight.
    pub(crate) fn violation(&mut self, name: &str, detail: String) {
        self.violations.insert(name.to_owned(), Violation { count: 1, first: detail });
    }

    /// One JSON object, without the log.
    pub fn to_json(&self) -> Value {
        let inputs =
            |list: &Vec<InputStatus>| Value::Array(list.iter().map(InputStatus::to_json).collect());
        let call = |call: &Call| json!([call.name, call.instance, call.thread]);
        json!({
            "inputs": self.generations.last().map_or(Value::Null, inputs),
            "generations": self.generations.iter().map(inputs).collect::<Vec<_>>(),
            "violations": violations_json(&self.violations),
            "definition": {
                "name": self.definition.name,
                "description": self.definition.description,
                "flags": self.definition.flags,
                "overrun": self.definition.overrun,
                "event_type": self.definition.event_type,
                "config_map": self.definition.config_map,
            },
            "threads_left": self.threads_left,
            "calls": self.calls.iter().map(call).collect::<Vec<_>>(),
        })
    }
}

fn violations_json(all: &BTreeMap<String, Violation>) -> Value {
    let row = |(name, found): (&String, &Violation)| {
        (name.clone(), json!({ "count": found.count, "first": found.first }))
    };
    Value::Object(all.iter().map(row).collect())
}
