//! A model of the host: what it takes, delays, refuses, loses and counts, as the real ones do.

use std::collections::VecDeque;
use std::time::Instant;

use fastrand::Rng;
use in_trendmicro::handover::Counters;
use in_trendmicro::instance::Host;
use in_trendmicro::log::Line;
use in_trendmicro::metrics::Sample;

/// Ms after which the real host empties its ring buffer.
const DRAIN_MS: u64 = 250;
/// A busy one may take longer, but less than the ticks after which we call a batch lost.
const BUSY_MS_MAX: u64 = 25_000;
/// Where time alone confirms, it must not.
const BUSY_MS_MAX_UNCOUNTED: u64 = 1_200;
/// A host that does not tell what it wrote to its ring buffer is believed to lose a batch so often.
const LOSSES_IN_A_ROW_MAX: u32 = 3;

/// What processors of the host do to records before they are counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Processor {
    None,
    /// Every so manieth record is dropped.
    Drop(u64),
    /// Every so manieth record is doubled.
    Add(u64),
}

/// Which host it is, and how it behaves.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// It exports what reads its counters.
    pub can_count: bool,
    /// From 4.1 on: it says what went into its ring buffer.
    pub tells_ring: bool,
    /// From 4.0.3 on: what it has counted when it stops, it also delivers.
    pub keeps_at_stop: bool,
    pub is_append: bool,
    pub processor: Processor,
    /// How often it refuses, loses, and is busy, as probabilities.
    pub refuses: f64,
    pub loses: f64,
    pub is_busy: f64,
    pub ring_slots: usize,
}

impl Kind {
    /// Draws a host.
    pub fn draw(rng: &mut Rng) -> Self {
        let line = rng.u8(..6);
        let can_count = line < 5;
        let processor = match rng.u8(..12) {
            0 => Processor::Drop(rng.u64(1..6)),
            1 => Processor::Add(rng.u64(1..6)),
            _ => Processor::None,
        };
        // What is lost without a trace can only be seen in a counter that can be believed.
        let may_lose = can_count && processor == Processor::None;
        let mut often = |is_allowed: bool| {
            let odds = [0.0, 0.0, 0.02, 0.2][rng.usize(..4)];
            if is_allowed { odds } else { 0.0 }
        };
        Self {
            can_count,
            tells_ring: line < 3,
            keeps_at_stop: line != 4,
            processor,
            refuses: often(true),
            loses: often(may_lose),
            is_busy: often(true),
            is_append: rng.u8(..5) > 0,
            ring_slots: if rng.u8(..4) == 0 { rng.usize(1..4) } else { 1_024 },
        }
    }

    /// Whether it counts what it was handed, and not something else.
    pub fn is_exact(&self) -> bool {
        self.processor == Processor::None
    }

    /// Whether its counter confirms.
    pub fn is_counted(&self) -> bool {
        self.can_count && self.is_exact()
    }
}

struct Entry {
    bytes: Vec<u8>,
    records: u64,
    due_ms: u64,
}

/// A running host.
pub struct Model {
    kind: Kind,
    rng: Rng,
    pub now_ms: u64,
    pub instant: Instant,
    pub is_paused: bool,
    /// Nothing goes wrong any more.
    pub is_calm: bool,
    counters: Counters,
    ring: VecDeque<Entry>,
    losses_in_a_row: u32,
    processed: u64,
    /// Buffers that reached a chunk since they were last looked at.
    pub arrived: Vec<Vec<u8>>,
    /// Buffers that were taken since this was last looked at, if somebody looks.
    pub handed: Option<Vec<Vec<u8>>>,
    /// How many buffers were lost, and how many refused.
    pub losses: u64,
    pub refusals: u64,
    pub lines: Vec<String>,
}

impl Model {
    pub fn new(kind: Kind, seed: u64, instant: Instant) -> Self {
        let zero = kind.tells_ring.then_some(0);
        Self {
            kind,
            rng: Rng::with_seed(seed),
            now_ms: 0,
            instant,
            is_paused: false,
            is_calm: false,
            counters: Counters { records: 0, ring_writes: zero, ring_failures: zero },
            ring: VecDeque::new(),
            losses_in_a_row: 0,
            processed: 0,
            arrived: Vec::new(),
            handed: None,
            losses: 0,
            refusals: 0,
            lines: Vec::new(),
        }
    }

    /// When the ring buffer has something for a chunk.
    pub fn drain_due(&self) -> Option<u64> {
        self.ring.front().filter(|_| !self.is_paused).map(|entry| entry.due_ms)
    }

    /// Moves what is due from the ring buffer to chunks.
    pub fn drain(&mut self) {
        while let Some(entry) = self.ring.front()
            && entry.due_ms <= self.now_ms
            && let Some(entry) = self.ring.pop_front()
        {
            self.counters.records += entry.records;
            self.arrived.push(entry.bytes);
        }
    }

    /// What is in the ring buffer at a stop is counted; whether it is also kept depends.
    pub fn end(&mut self) {
        for entry in std::mem::take(&mut self.ring) {
            self.counters.records += entry.records;
            if self.kind.keeps_at_stop {
                self.arrived.push(entry.bytes);
            }
        }
    }

    /// Takes a buffer that was returned to it; one that does not fit is lost.
    pub fn take(&mut self, bytes: Vec<u8>) {
        if !self.enqueue(bytes) {
            self.losses += 1;
        }
    }

    fn enqueue(&mut self, bytes: Vec<u8>) -> bool {
        if let Some(handed) = &mut self.handed {
            handed.push(bytes.clone());
        }
        let records = self.process(super::count(&bytes));
        if records == 0 {
            // Processors that leave nothing of it are a success to whoever appends.
            self.arrived.push(bytes);
            return true;
        }
        if self.ring.len() >= self.kind.ring_slots {
            self.counters.ring_failures = self.counters.ring_failures.map(|failures| failures + 1);
            return false;
        }
        self.counters.ring_writes = self.counters.ring_writes.map(|writes| writes + 1);
        let may_lose = self.kind.tells_ring || self.losses_in_a_row < LOSSES_IN_A_ROW_MAX;
        if !self.is_calm && may_lose && self.rng.f64() < self.kind.loses {
            self.losses_in_a_row += 1;
            self.losses += 1;
            return true;
        }
        self.losses_in_a_row = 0;
        let is_counted = self.kind.is_counted();
        let busy_max = if is_counted { BUSY_MS_MAX } else { BUSY_MS_MAX_UNCOUNTED };
        let is_busy = !self.is_calm && self.rng.f64() < self.kind.is_busy;
        let delay = if is_busy { self.rng.u64(DRAIN_MS..busy_max) } else { DRAIN_MS };
        self.ring.push_back(Entry { bytes, records, due_ms: self.now_ms + delay });
        true
    }

    /// How many of so many records are left.
    fn process(&mut self, records: u64) -> u64 {
        let before = self.processed;
        self.processed += records;
        let hits = |every: u64| self.processed / every - before / every;
        match self.kind.processor {
            Processor::None => records,
            Processor::Drop(every) => records - hits(every),
            Processor::Add(every) => records + hits(every),
        }
    }
}

impl Host for Model {
    fn measure(&mut self, _: &[Sample], _: u64) {}

    fn counters(&mut self) -> Option<Counters> {
        self.kind.can_count.then_some(self.counters)
    }

    fn append(&mut self, _: Option<&str>, bytes: &[u8]) -> bool {
        if self.is_paused || (!self.is_calm && self.rng.f64() < self.kind.refuses) {
            self.refusals += 1;
            return false;
        }
        self.enqueue(bytes.to_vec())
    }

    fn print(&mut self, line: &Line) {
        self.lines.push(line.text.clone());
    }

    fn is_paused(&self) -> bool {
        self.is_paused
    }

    fn now(&self) -> Instant {
        self.instant
    }
}
