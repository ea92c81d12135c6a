//! When which record appears: the backlog, made at the start, and the live records, made as time
//! passes. Rows are small; a record's text is made from the seed whenever it is asked for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::EmailConfig;
use super::mail::{Kind, Mail, Variant};
use crate::clock::millis;
use crate::rng::Rng;
use crate::window::Lateness;

/// One record, by its times and by what its text is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) gen_ms: i64,
    pub(crate) visible_ms: i64,
    pub(crate) mail: u64,
    pub(crate) variant: Variant,
}

/// The rows of one content type, ordered by generation time; they only ever grow at the end.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) rows: Vec<Row>,
    pub(crate) shown: Vec<u32>,
}

/// All rows so far, and what it takes to make more.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) streams: [Stream; Kind::ALL.len()],
    seed: u64,
    lateness: Lateness,
    has_millis: bool,
    live: Live,
}

#[derive(Debug)]
struct Live {
    start_ms: i64,
    per_second: f64,
    next: u64,
    stop_ms: Option<i64>,
    /// Later states of mails that are out already.
    pending: BinaryHeap<Reverse<(i64, usize, u64, Variant)>>,
}

/// Mail numbers tell where a mail comes from, so no two share one.
const BURST: u64 = 1 << 40;
const LIVE: u64 = 1 << 41;
/// The mails that are fixtures.
pub(crate) const SAMPLES: u64 = 1 << 42;

impl Schedule {
    /// Makes the backlog, all of it generated before `now_ms`; `samples` is how many fixture
    /// mails there are.
    pub(crate) fn new(config: &EmailConfig, samples: usize, seed: u64, now_ms: i64) -> Self {
        let mut schedule = Self {
            streams: Default::default(),
            seed,
            lateness: config.lateness,
            has_millis: config.gen_time_millis,
            live: Live {
                start_ms: now_ms,
                per_second: config.live_per_second,
                next: 0,
                stop_ms: None,
                pending: BinaryHeap::new(),
            },
        };
        let span_ms = millis(config.backlog_span).max(1);
        for kind in Kind::ALL {
            let wanted = config.backlog(kind);
            let fixed = if kind == Kind::Accepted { samples.min(wanted) } else { 0 };
            schedule.add_samples(kind, fixed, now_ms, span_ms);
            schedule.add_backlog(kind, wanted - fixed, now_ms, span_ms);
        }
        schedule.add_burst(config.same_second_burst, now_ms - span_ms / 2);
        for stream in &mut schedule.streams {
            stream.rows.sort_by_key(|row| row.gen_ms);
            stream.shown = vec![0; stream.rows.len()];
        }
        schedule
    }

    /// The samples lie at even distances within the span.
    fn add_samples(&mut self, kind: Kind, count: usize, now_ms: i64, span_ms: i64) {
        for at in 0..count {
            let exact_ms = now_ms - span_ms * (count - at) as i64 / (count + 1) as i64;
            self.push(kind, exact_ms.min(now_ms - 1000), SAMPLES + at as u64, Variant::default());
        }
    }

    fn add_backlog(&mut self, kind: Kind, count: usize, now_ms: i64, span_ms: i64) {
        // Nothing of the backlog lies in the current second, which belongs to the live records.
        let newest_ms = now_ms - 1000;
        let stream = kind as usize;
        let (before, mut number) = (self.streams[stream].rows.len(), 0);
        loop {
            let made = self.streams[stream].rows.len() - before;
            if made >= count {
                break;
            }
            let mail = Mail::draw(self.seed, kind, number);
            let share = made as f64 / count as f64;
            let mut jitter = Rng::keyed(self.seed, &[0x6a, kind as u64, number]);
            let jitter_ms = jitter.below((span_ms as u64 / count as u64).max(1)) as i64;
            let exact_ms = now_ms - span_ms + (share * span_ms as f64) as i64 + jitter_ms;
            let exact_ms = exact_ms.min(newest_ms);
            let fitting = mail.variants(exact_ms).filter(|(_, at_ms)| *at_ms <= newest_ms);
            for (variant, at_ms) in fitting.take(count - made) {
                self.push(kind, at_ms, number, variant);
            }
            number += 1;
        }
    }

    fn add_burst(&mut self, count: usize, at_ms: i64) {
        for number in 0..count as u64 {
            self.push(Kind::Accepted, at_ms, BURST + number, Variant::default());
        }
    }

    /// Makes the live records up to now.
    pub(crate) fn advance(&mut self, now_ms: i64) {
        let until_ms = self.live.stop_ms.map_or(now_ms, |stop_ms| stop_ms.min(now_ms));
        while let Some(at_ms) = self.live.next_ms().filter(|at_ms| *at_ms <= until_ms) {
            self.flush_pending(at_ms);
            let number = LIVE + self.live.next;
            self.live.next += 1;
            let kind = Rng::keyed(self.seed, &[0x11, number]).pick(&Kind::LIVE_MIX);
            for (variant, exact_ms) in Mail::draw(self.seed, kind, number).variants(at_ms) {
                self.live.pending.push(Reverse((exact_ms, kind as usize, number, variant)));
            }
            self.flush_pending(at_ms);
        }
        self.flush_pending(until_ms);
    }

    /// Makes no live record after now.
    pub(crate) fn stop_live(&mut self, now_ms: i64) {
        self.advance(now_ms);
        self.live.stop_ms.get_or_insert(now_ms);
    }

    fn flush_pending(&mut self, until_ms: i64) {
        while let Some((exact_ms, stream, mail, variant)) = self.live.pop_due(until_ms) {
            self.push(Kind::ALL[stream], exact_ms, mail, variant);
            self.streams[stream].shown.push(0);
        }
    }

    /// `exact_ms` is when the record comes into being; the API tells it in seconds.
    fn push(&mut self, kind: Kind, exact_ms: i64, mail: u64, variant: Variant) {
        let keys = [0x1a, kind as u64, mail, u64::from(variant.code())];
        let late_ms = self.lateness.draw(&mut Rng::keyed(self.seed, &keys));
        let gen_ms = if self.has_millis { exact_ms } else { exact_ms - exact_ms.rem_euclid(1000) };
        let row = Row { gen_ms, visible_ms: exact_ms + late_ms, mail, variant };
        self.streams[kind as usize].rows.push(row);
    }
}

impl Live {
    fn pop_due(&mut self, until_ms: i64) -> Option<(i64, usize, u64, Variant)> {
        let due = self.pending.peek_mut().filter(|due| due.0.0 <= until_ms)?;
        Some(PeekMut::pop(due).0)
    }

    fn next_ms(&self) -> Option<i64> {
        let offset_ms = (self.next + 1) as f64 * 1000.0 / self.per_second;
        (self.per_second > 0.0).then(|| self.start_ms + offset_ms as i64)
    }
}
