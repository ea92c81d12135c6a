//! When which record appears: the backlog, made at the start, and the live records, made as time
//! passes.

use super::record::Records;
use super::vocabulary::{EVENTS, Event, STREAMS, content_type, event_of, is_of};
use super::{CloudAppConfig, FilterTime};
use crate::clock::millis;
use crate::rng::Rng;
use crate::window::Lateness;

/// One record, by its times and its number within the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// The time that windows select by.
    pub(crate) filter_ms: i64,
    pub(crate) generated_ms: i64,
    pub(crate) visible_ms: i64,
    pub(crate) number: u64,
}

/// The rows of one stream, ordered by the time of the filter; they only ever grow at the end.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) rows: Vec<Row>,
    pub(crate) shown: Vec<u32>,
}

/// All rows so far, and what it takes to make more.
pub(crate) struct Schedule {
    pub(crate) streams: Vec<Stream>,
    seed: u64,
    lateness: Lateness,
    filter: FilterTime,
    overlaps: bool,
    live_streams: Vec<usize>,
    start_ms: i64,
    per_second: f64,
    next: u64,
    stop_ms: Option<i64>,
}

/// Numbers tell where a record comes from, so no two of a stream share one.
const LIVE: u64 = 1 << 41;
/// The records that are fixtures.
pub(crate) const SAMPLES: u64 = 1 << 42;
/// From a detection to the generation of its log item, as in the one real sample that tells both.
pub(crate) const GENERATION_LAG_MS: i64 = 10_000;

impl Schedule {
    /// Makes the backlog, all of it generated before `now_ms`.
    pub(crate) fn new(config: &CloudAppConfig, records: &Records, seed: u64, now_ms: i64) -> Self {
        let mut schedule = Self {
            streams: std::iter::repeat_with(Stream::default).take(STREAMS).collect(),
            seed,
            lateness: config.lateness,
            filter: config.filter,
            overlaps: config.overlapping_ids,
            live_streams: (0..STREAMS).filter(|at| is_of(*at, &config.services)).collect(),
            start_ms: now_ms,
            per_second: config.live_per_second,
            next: 0,
            stop_ms: None,
        };
        let span_ms = millis(config.backlog_span).max(1);
        for stream in schedule.live_streams.clone() {
            let own = config.backlog_of.iter().find(|(name, _)| *name == content_type(stream));
            let wanted = own.map_or(config.backlog, |(_, count)| *count);
            let samples = records.sample_count(stream).min(wanted);
            for at in 0..samples {
                let exact_ms = now_ms - span_ms * (samples - at) as i64 / (samples + 1) as i64;
                schedule.push(stream, exact_ms.min(now_ms - 1000), SAMPLES + at as u64);
            }
            schedule.add_backlog(stream, wanted - samples, now_ms, span_ms);
            let rows = &mut schedule.streams[stream].rows;
            rows.sort_by_key(|row| row.filter_ms);
            schedule.streams[stream].shown = vec![0; wanted];
        }
        schedule
    }

    fn add_backlog(&mut self, stream: usize, count: usize, now_ms: i64, span_ms: i64) {
        for number in 0..count as u64 {
            let begun_ms = (span_ms as f64 * number as f64 / count as f64) as i64;
            // A detection that two events tell has one time in both.
            let keys = [0x6b, (stream / EVENTS.len()) as u64, number];
            let jitter = (span_ms as u64 / count as u64).max(1);
            let jitter_ms = Rng::keyed(self.seed, &keys).below(jitter) as i64;
            // Nothing of the backlog lies in the current second, which belongs to the live records.
            let exact_ms = (now_ms - span_ms + begun_ms + jitter_ms).min(now_ms - 1000);
            self.push(stream, exact_ms, number);
        }
    }

    /// Makes the live records up to now.
    pub(crate) fn advance(&mut self, now_ms: i64) {
        let until_ms = self.stop_ms.map_or(now_ms, |stop_ms| stop_ms.min(now_ms));
        while let Some(at_ms) = self.next_ms().filter(|at_ms| *at_ms <= until_ms) {
            let number = LIVE + self.next;
            self.next += 1;
            let stream = Rng::keyed(self.seed, &[0x12, number]).pick(&self.live_streams);
            self.push_live(stream, at_ms, number);
            if self.overlaps && event_of(stream) == Event::Ransomware {
                let risk = stream - Event::Ransomware as usize + Event::SecurityRisk as usize;
                self.push_live(risk, at_ms, number);
            }
        }
    }

    /// Makes no live record after now.
    pub(crate) fn stop_live(&mut self, now_ms: i64) {
        self.advance(now_ms);
        self.stop_ms.get_or_insert(now_ms);
    }

    fn next_ms(&self) -> Option<i64> {
        let offset_ms = (self.next + 1) as f64 * 1000.0 / self.per_second;
        let has_live = self.per_second > 0.0 && !self.live_streams.is_empty();
        has_live.then(|| self.start_ms + offset_ms as i64)
    }

    fn push_live(&mut self, stream: usize, exact_ms: i64, number: u64) {
        self.push(stream, exact_ms, number);
        self.streams[stream].shown.push(0);
    }

    /// `exact_ms` is when the record comes into being; its times are told in seconds.
    fn push(&mut self, stream: usize, exact_ms: i64, number: u64) {
        let keys = [0x1b, stream as u64, number];
        let late_ms = self.lateness.draw(&mut Rng::keyed(self.seed, &keys));
        let generated_ms = exact_ms - exact_ms.rem_euclid(1000);
        let filter_ms = match self.filter {
            FilterTime::Generation => generated_ms,
            FilterTime::Detection => generated_ms - GENERATION_LAG_MS,
        };
        let row = Row { filter_ms, generated_ms, visible_ms: exact_ms + late_ms, number };
        self.streams[stream].rows.push(row);
    }
}
