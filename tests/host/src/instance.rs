//! One `[INPUT]`: its ring, its counters and the ways records take into it.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::InputSettings;
use crate::ffi::{Context, Proxy};
use crate::mailbox::Mailbox;
use crate::metrics::{self, Family};
use crate::options::Abi;
use crate::pipeline::Command;
use crate::record::{self, Decoded};
use crate::report::{Counters, InputStatus};
use crate::shared::Shared;
use crate::store::Store;

/// A writer that finds the ring full tries this often, with this pause, and then gives up.
const RING_TRIES: u32 = 10;
const RING_PAUSE: Duration = Duration::from_millis(100);
/// The engine is woken when this share of the ring is in use.
const RING_WINDOW_PERCENT: usize = 5;

/// One configuration's run of the plugin: what its instances share in the real host.
pub struct Generation {
    /// The loaded plugin.
    pub proxy: Arc<Proxy>,
    /// Overwritten at every Init. A pause or resume of *any* instance acts on this one's collector.
    pub last_initialised: Mutex<Weak<Instance>>,
    /// Cleared when a stop begins; a collector cannot be resumed any more.
    pub ingestion_active: AtomicBool,
    /// Set by a reload, even by one that is halted.
    pub stopped_by_reload: AtomicBool,
    /// Checks a stop makes at most; a reload makes them endless.
    pub grace: AtomicI64,
    /// What PreRun is told.
    pub hot_reload: bool,
}

/// A buffer in the ring.
pub struct RingEntry {
    /// The tag, if the plugin gave one.
    pub tag: Option<String>,
    /// The records.
    pub data: Vec<u8>,
    /// What they count.
    pub records: u64,
}

/// One input instance.
pub struct Instance {
    /// Its position among the inputs.
    pub index: usize,
    /// Its stanza.
    pub settings: InputSettings,
    /// The host.
    pub shared: Arc<Shared>,
    /// The configuration's run it belongs to.
    pub generation: Arc<Generation>,
    /// Its part of the proxy ABI.
    pub context: Context,
    /// Its event loop.
    pub mailbox: Mailbox,
    /// Its counters.
    pub counters: Counters,
    /// The host's `mem_buf_status`: the ring is not drained, appends are refused.
    pub limit_paused: AtomicBool,
    /// A pause by command is not lifted when the memory is free again.
    pub pause_forced: AtomicBool,
    /// The gauge in the metrics, set by the callbacks.
    pub gauge_paused: AtomicBool,
    /// Metrics that the plugin made.
    pub families: Mutex<Vec<Family>>,
    /// Set after Init: from here on the host reads the metrics, and their set must not change.
    pub is_initialised: AtomicBool,
    store: Arc<Store>,
    engine: Sender<Command>,
    ring: Mutex<VecDeque<RingEntry>>,
    ring_slots: AtomicUsize,
    processed: AtomicU64,
    /// Memory whose address the plugin holds. Nothing is ever stored in it.
    address: Box<[u64; 2]>,
}

impl Instance {
    /// An instance that is not initialised yet.
    pub fn new(
        index: usize,
        settings: InputSettings,
        shared: &Arc<Shared>,
        generation: &Arc<Generation>,
        store: &Arc<Store>,
        engine: Sender<Command>,
    ) -> Arc<Self> {
        let slots = settings.ring_slots.unwrap_or(shared.options.ring_slots);
        Arc::new(Self {
            index,
            settings,
            context: generation.proxy.new_context(),
            mailbox: Mailbox::new(shared.options.tick),
            shared: Arc::clone(shared),
            generation: Arc::clone(generation),
            store: Arc::clone(store),
            engine,
            counters: Counters::default(),
            limit_paused: AtomicBool::new(false),
            pause_forced: AtomicBool::new(false),
            gauge_paused: AtomicBool::new(false),
            families: Mutex::default(),
            is_initialised: AtomicBool::new(false),
            ring: Mutex::default(),
            ring_slots: AtomicUsize::new(slots),
            processed: AtomicU64::new(0),
            address: Box::new([0; 2]),
        })
    }

    /// The address that is `i_ins` to the plugin.
    pub fn handle(&self) -> usize {
        self.address.as_ptr().expose_provenance()
    }

    /// The address that is the metrics context to the plugin.
    pub fn metrics_handle(&self) -> usize {
        self.handle() + size_of::<u64>()
    }

    /// Alias or name: what the host calls it in logs and metrics.
    pub fn label(&self) -> &str {
        self.settings.alias.as_deref().unwrap_or(&self.settings.name)
    }

    /// The first value of a property; None as well when that value is empty.
    pub fn property(&self, key: &str) -> Option<&CStr> {
        let found =
            self.settings.properties.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
        found.and_then(|(_, value)| value.as_deref())
    }

    /// `flb_input_log_append`: false is the host's -1.
    pub fn append(&self, tag: Option<&str>, data: &[u8]) -> bool {
        let begun = Instant::now();
        let abi = self.shared.options.abi;
        let decoded = record::decode(data, abi);
        self.judge(data, &decoded);
        let handed = decoded.records.len() as u64;
        let taken = self.append_processed(tag, data, &decoded, abi);
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        add(&self.counters.append_micros, micros);
        if taken {
            add(&self.counters.handed_over_records, handed);
            add(&self.counters.handed_over_bytes, data.len() as u64);
            add(&self.counters.handed_over_appends, 1);
        } else {
            add(&self.counters.refused_appends, 1);
        }
        taken
    }

    /// The hand-over after a collect: the host ignores the result, so a refusal is a loss.
    pub fn append_collected(&self, data: &[u8]) {
        if !self.append(None, data) {
            let decoded = record::decode(data, self.shared.options.abi);
            add(&self.counters.ring_dropped_appends, 1);
            add(&self.counters.ring_dropped_records, decoded.records.len() as u64);
        }
    }

    fn judge(&self, data: &[u8], decoded: &Decoded) {
        for (name, detail) in &decoded.violations {
            self.shared.violation(name, &format!("{}: {detail}", self.settings.name));
        }
        if decoded.malformed.is_some() {
            add(&self.counters.malformed_records, 1);
        }
        if data.len() > self.shared.options.buffer_max && decoded.objects > 1 {
            let detail = format!("{} bytes, {} records", data.len(), decoded.objects);
            self.shared.violation("buffer_too_large", &detail);
        }
    }

    fn append_processed(
        &self,
        tag: Option<&str>,
        data: &[u8],
        decoded: &Decoded,
        abi: Abi,
    ) -> bool {
        let processor = self.shared.options.processor;
        if !processor.is_active() {
            return self.enqueue(tag, data.to_vec(), decoded.count(abi));
        }
        let mut seen = self.processed.load(Ordering::SeqCst);
        let out = record::process(data, decoded, processor, &mut seen);
        self.processed.store(seen, Ordering::SeqCst);
        // What the processors leave nothing of is a success to the plugin, and counts nowhere.
        let Some(out) = out else { return true };
        let records = record::decode(&out, abi).records.len() as u64;
        self.enqueue(tag, out, records)
    }

    fn enqueue(&self, tag: Option<&str>, data: Vec<u8>, records: u64) -> bool {
        if !self.settings.threaded {
            return self.store.append(self, tag, &data, records);
        }
        let entry = RingEntry { tag: tag.map(str::to_owned), data, records };
        self.ring_write(entry)
    }

    fn ring_write(&self, entry: RingEntry) -> bool {
        for _ in 0..RING_TRIES {
            let slots = self.ring_slots.load(Ordering::SeqCst);
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            if ring.len() < slots {
                ring.push_back(entry);
                let wake = ring.len() * 100 >= slots * RING_WINDOW_PERCENT;
                drop(ring);
                add(&self.counters.ring_writes, 1);
                if wake {
                    let _ = self.engine.send(Command::Drain);
                }
                return true;
            }
            drop(ring);
            add(&self.counters.ring_retries, 1);
            thread::sleep(RING_PAUSE);
        }
        self.shared.log.error(&format!(
            "[input:{}:{}] could not enqueue records into the ring buffer",
            self.generation.proxy.definition.name,
            self.label()
        ));
        add(&self.counters.ring_retry_failures, 1);
        false
    }

    /// The oldest buffer of the ring.
    pub fn ring_read(&self) -> Option<RingEntry> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Throws away what is in the ring, as the end of an instance does.
    pub fn ring_clear(&self) {
        while let Some(entry) = self.ring_read() {
            add(&self.counters.ring_left_appends, 1);
            add(&self.counters.ring_left_records, entry.records);
        }
    }

    /// Changes the size of the ring while it runs; a real host cannot.
    pub fn set_ring_slots(&self, slots: usize) {
        self.ring_slots.store(slots.max(1), Ordering::SeqCst);
    }

    /// Whether the engine leaves the ring alone and refuses appends.
    pub fn is_limit_paused(&self) -> bool {
        self.limit_paused.load(Ordering::SeqCst)
    }

    /// The instance at this moment.
    pub fn status(&self) -> InputStatus {
        InputStatus {
            name: self.settings.name.clone(),
            label: self.label().to_owned(),
            tag: self.settings.tag.clone(),
            paused: self.is_limit_paused(),
            collecting: self.mailbox.is_collecting(),
            ring_len: self.ring.lock().unwrap_or_else(PoisonError::into_inner).len(),
            ring_slots: self.ring_slots.load(Ordering::SeqCst),
            metrics: metrics::measured(self),
            counts: self.counters.read(),
        }
    }
}

/// Adds to a counter.
pub fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::SeqCst);
}

/// Raises a counter that keeps a maximum.
pub fn raise(counter: &AtomicU64, value: u64) {
    counter.fetch_max(value, Ordering::SeqCst);
}
