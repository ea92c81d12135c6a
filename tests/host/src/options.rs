//! How the host behaves: which Fluent Bit it imitates, and how fast its clocks run.

use std::path::PathBuf;
use std::time::Duration;

/// The line of hosts to imitate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// 2.2 to 4.0.2: no per-instance context, and what is still in the ring when the stop comes
    /// reaches a chunk but no output.
    Before41,
    /// 4.1: context callbacks, ring buffer counters, a stop that waits for pending chunks.
    From41,
    /// 5.1.1: a definition with a configuration map; counts decoded records, not msgpack objects.
    From511,
}

impl Abi {
    /// The size of the definition this line allocates.
    pub fn def_size(self) -> usize {
        if self == Self::From511 { 48 } else { 32 }
    }

    /// The name the command line uses.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "before-4.1" => Some(Self::Before41),
            "from-4.1" => Some(Self::From41),
            "from-5.1.1" => Some(Self::From511),
            _ => None,
        }
    }
}

/// Which of its functions the host offers to `dlsym(RTLD_DEFAULT, …)`. One choice per process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exports {
    /// The append function and the metrics encoder.
    All,
    /// Neither.
    None,
    /// `flb_input_log_append` only.
    AppendOnly,
    /// The encoder of metrics only.
    MetricsOnly,
}

impl Exports {
    pub(crate) fn library_name(self) -> &'static str {
        match self {
            Self::All => "libflbhost.so",
            Self::None => "libflbhost_bare.so",
            Self::AppendOnly => "libflbhost_append.so",
            Self::MetricsOnly => "libflbhost_metrics.so",
        }
    }

    /// The name the command line uses.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "all" => Some(Self::All),
            "none" => Some(Self::None),
            "append" => Some(Self::AppendOnly),
            "metrics" => Some(Self::MetricsOnly),
            _ => None,
        }
    }
}

/// A model of processors: they run on the input's thread, before the ring and the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processor {
    /// Drop every n-th record.
    pub drop_every: Option<u64>,
    /// Add a copy of every n-th record.
    pub add_every: Option<u64>,
    /// Drop every record.
    pub drop_all: bool,
}

impl Processor {
    pub(crate) fn is_active(self) -> bool {
        self.drop_all || self.drop_every.is_some() || self.add_every.is_some()
    }
}

/// Everything the caller may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// The plugin's shared object.
    pub plugin: PathBuf,
    /// The line of hosts to imitate.
    pub abi: Abi,
    /// The functions the host offers.
    pub exports: Exports,
    /// Period of the collect callback; ticks fall on its whole multiples of CLOCK_MONOTONIC.
    pub tick: Duration,
    /// Period of draining the rings.
    pub drain: Duration,
    /// Period of handing chunks to the outputs, unless the configuration has `flush`.
    pub flush: Duration,
    /// Period of the checks during a stop; a real host waits one second.
    pub shutdown_tick: Duration,
    /// Slots of each ring, unless the stanza has `thread.ring_buffer.capacity`.
    pub ring_slots: usize,
    /// Size of the definition, where it should not be the line's usual one.
    pub def_size: Option<usize>,
    /// Whether a stop waits until pending chunks are delivered; by default the line decides.
    pub drain_at_stop: Option<bool>,
    /// A handed-over buffer above this size may hold one record only.
    pub buffer_max: usize,
    /// Processors between the plugin and the ring.
    pub processor: Processor,
    /// Where log lines go instead of stderr.
    pub log_file: Option<PathBuf>,
    /// Whether log lines are written at all; they are always kept for [`crate::Status`].
    pub log_echo: bool,
    /// Whether a `stdout` output writes; a daemon has no standard output.
    pub stdout_output: bool,
}

impl Options {
    /// The behaviour of a current host, for `plugin`.
    pub fn new(plugin: impl Into<PathBuf>) -> Self {
        Self {
            plugin: plugin.into(),
            abi: Abi::From511,
            exports: Exports::All,
            tick: Duration::from_secs(1),
            drain: Duration::from_millis(250),
            flush: Duration::from_secs(1),
            shutdown_tick: Duration::from_secs(1),
            ring_slots: 1024,
            def_size: None,
            drain_at_stop: None,
            buffer_max: 1 << 20,
            processor: Processor::default(),
            log_file: None,
            log_echo: true,
            stdout_output: true,
        }
    }

    pub(crate) fn waits_for_chunks(&self) -> bool {
        self.drain_at_stop.unwrap_or(self.abi != Abi::Before41)
    }
}
