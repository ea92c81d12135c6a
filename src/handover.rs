//! When the host may be believed: which batches were handed over, and which of them have arrived.
//!
//! The host acknowledges nothing, but it counts the records that reached its chunks. So batches are
//! handed over in *generations*, one at a time: a generation is confirmed when the host's counter
//! covers it, and the next is handed over only then. With two in flight, a loss of the first could
//! hide behind the arrival of the second.
//!
//! Where no counter can be read, or the host's own input processors change what it counts, a weaker
//! rule holds: a generation is confirmed at a later tick, when the host was neither paused nor
//! failing since. This room is pure: counters and times are given to it.

use std::time::{Duration, Instant};

use crate::batch::Batch;

/// Ticks without a pause after which a generation that the counter does not cover counts as lost.
/// The host takes a batch within a quarter of a second; this leaves room for one that is very busy.
const LOST_TICKS: u32 = 30;
/// Hosts before 4.1 do not say what went into their ring buffer. After so many losses of a batch in a
/// row, an input processor that drops it is likelier than a host that never takes it.
const BLIND_REPEATS_MAX: u64 = 4;
/// After something was handed over twice, the counter must rest this long before it is trusted.
const QUIET_TICKS: u32 = 3;
/// The weaker rule waits this long, several times what the host needs to empty its ring buffer.
const ELAPSED_MIN: Duration = Duration::from_secs(2);

/// What the host's metrics say about our input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records that reached a chunk.
    pub records: u64,
    /// Buffers written to the ring buffer; hosts before 4.1 do not say.
    pub ring_writes: Option<u64>,
    /// Buffers dropped because the ring buffer was full; hosts before 4.1 do not say.
    pub ring_failures: Option<u64>,
}

/// Which rule confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The host's own record counter.
    Counter,
    /// Time passed without a pause or a failure.
    Elapsed,
}

/// What one look at the host says about the generation in flight.
pub enum Verdict {
    /// Nothing is in flight.
    Idle,
    /// Not known yet.
    Waiting,
    /// The generation has arrived.
    Confirmed(Vec<Batch>),
    /// The generation did not arrive, or not whole; it must be handed over again.
    Lost(Vec<Batch>),
}

/// The generation in flight and what the host's counters were before it.
pub struct Handover {
    rule: Rule,
    /// A counter that has once moved by exactly what was handed over can be read as it stands.
    calibrated: bool,
    flight: Vec<Batch>,
    before: Counters,
    handed_at: Option<Instant>,
    ticks: u32,
    /// How often the generation was handed over before.
    repeats: u64,
    last_seen: u64,
    quiet_ticks: u32,
    notice: Option<&'static str>,
}

impl Handover {
    /// Nothing in flight yet; `rule` is what the host's exports allow.
    #[must_use]
    pub fn new(rule: Rule) -> Self {
        Self {
            rule,
            calibrated: rule == Rule::Elapsed,
            flight: Vec::new(),
            before: Counters::default(),
            handed_at: None,
            ticks: 0,
            repeats: 0,
            last_seen: 0,
            quiet_ticks: 0,
            notice: None,
        }
    }

    /// The rule in force.
    #[must_use]
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Why the rule changed, once.
    pub fn notice(&mut self) -> Option<&'static str> {
        self.notice.take()
    }

    /// How many batches the next generation may hold: none while one is in flight, one until the
    /// counter is understood and after a loss, so that a difference can be read, else many.
    #[must_use]
    pub fn batches_max(&self) -> usize {
        if !self.flight.is_empty() {
            0
        } else if self.calibrated && self.repeats == 0 {
            usize::MAX
        } else {
            1
        }
    }

    /// Records in flight.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.flight.iter().map(|batch| batch.records() as u64).sum()
    }

    /// A generation was handed over; `before` are the counters from just before.
    pub fn handed(&mut self, batches: Vec<Batch>, before: Option<Counters>, now: Instant) {
        self.flight = batches;
        self.before = before.unwrap_or(self.before);
        self.last_seen = self.before.records;
        self.handed_at = Some(now);
        self.ticks = 0;
        self.quiet_ticks = 0;
    }

    /// Looks at the host once a tick, and once more when it stops.
    pub fn judge(&mut self, seen: Option<Counters>, paused: bool, now: Instant) -> Verdict {
        if self.flight.is_empty() {
            return Verdict::Idle;
        }
        if paused {
            // What lies in the ring buffer during a pause stays there; its time starts anew.
            self.ticks = 0;
            self.handed_at = Some(now);
        } else {
            self.ticks += 1;
        }
        match (self.rule, seen) {
            (Rule::Counter, Some(seen)) => self.judge_by_counter(seen, paused),
            (Rule::Counter, None) if self.ticks < LOST_TICKS => Verdict::Waiting,
            (Rule::Counter, None) => self.weaken("the host's counters can no longer be read"),
            (Rule::Elapsed, seen) => self.judge_by_time(seen, paused, now),
        }
    }

    fn judge_by_counter(&mut self, seen: Counters, paused: bool) -> Verdict {
        let moved = seen.records.saturating_sub(self.before.records);
        self.quiet_ticks = if seen.records == self.last_seen { self.quiet_ticks + 1 } else { 0 };
        self.last_seen = seen.records;
        let expected = self.records();
        if moved >= expected {
            return self.covered(moved, expected);
        }
        let dropped_by_ring = moved == 0 && self.ring_failed(seen);
        if paused || (self.ticks < LOST_TICKS && !dropped_by_ring) {
            return Verdict::Waiting;
        }
        let one_batch = self.flight.len() == 1;
        let never_written = match seen.ring_writes {
            Some(writes) => Some(writes) == self.before.ring_writes,
            None => one_batch && self.repeats >= BLIND_REPEATS_MAX,
        };
        if (one_batch && moved > 0) || (moved == 0 && never_written && !dropped_by_ring) {
            return self
                .weaken("an input processor of the host drops records before it counts them");
        }
        self.repeats += 1;
        Verdict::Lost(std::mem::take(&mut self.flight))
    }

    /// The counter moved by at least what was handed over.
    fn covered(&mut self, moved: u64, expected: u64) -> Verdict {
        if self.repeats > 0 {
            // Both copies may arrive; the counter means nothing again until it rests.
            return if self.quiet_ticks < QUIET_TICKS { Verdict::Waiting } else { self.confirm() };
        }
        if moved > expected {
            return self
                .weaken("an input processor of the host adds records before it counts them");
        }
        self.calibrated = true;
        self.confirm()
    }

    fn judge_by_time(&mut self, seen: Option<Counters>, paused: bool, now: Instant) -> Verdict {
        if seen.is_some_and(|seen| self.ring_failed(seen)) {
            self.repeats += 1;
            return Verdict::Lost(std::mem::take(&mut self.flight));
        }
        let waited = self.handed_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if paused || self.ticks == 0 || waited < ELAPSED_MIN {
            return Verdict::Waiting;
        }
        self.confirm()
    }

    fn ring_failed(&self, seen: Counters) -> bool {
        seen.ring_failures.unwrap_or(0) > self.before.ring_failures.unwrap_or(0)
    }

    fn weaken(&mut self, why: &'static str) -> Verdict {
        self.rule = Rule::Elapsed;
        self.calibrated = true;
        self.notice = Some(why);
        self.confirm()
    }

    fn confirm(&mut self) -> Verdict {
        self.repeats = 0;
        Verdict::Confirmed(std::mem::take(&mut self.flight))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Time;
    use crate::cursor::Progress;
    use crate::record::Id;
    use crate::window::Window;

    fn batch(first: u128, records: usize) -> Batch {
        let end = Time::from_timestamp(0, 0).unwrap();
        let window = Progress::new(None).open(end);
        let ids = (0..records as u128).map(|i| Id(first + i)).collect();
        Batch {
            stream: 0,
            window,
            span: Window { start: end, end },
            tag: None,
            bytes: vec![0],
            ids,
        }
    }

    fn seen(records: u64) -> Option<Counters> {
        Some(Counters { records, ring_writes: Some(0), ring_failures: Some(0) })
    }

    fn written(records: u64) -> Option<Counters> {
        Some(Counters { ring_writes: Some(9), ..seen(records).unwrap() })
    }

    fn is_confirmed(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Confirmed(_))
    }

    #[test]
    fn only_full_coverage_confirms() {
        let (mut handover, now) = (Handover::new(Rule::Counter), Instant::now());
        assert_eq!(handover.batches_max(), 1, "the first generation calibrates");
        handover.handed(vec![batch(0, 5)], seen(100), now);
        assert_eq!(handover.batches_max(), 0);
        assert!(matches!(handover.judge(written(104), false, now), Verdict::Waiting));
        assert!(is_confirmed(&handover.judge(written(105), true, now)), "also during a pause");
        assert_eq!(handover.batches_max(), usize::MAX);
        assert!(matches!(handover.judge(written(105), false, now), Verdict::Idle));
    }

    #[test]
    fn what_never_arrives_is_handed_over_again_and_a_pause_is_no_loss() {
        let (mut handover, now) = (Handover::new(Rule::Counter), Instant::now());
        handover.handed(vec![batch(0, 5)], seen(0), now);
        for _ in 0..10 * LOST_TICKS {
            assert!(matches!(handover.judge(written(0), true, now), Verdict::Waiting));
        }
        for _ in 1..LOST_TICKS {
            assert!(matches!(handover.judge(written(0), false, now), Verdict::Waiting));
        }
        let Verdict::Lost(again) = handover.judge(written(0), false, now) else { panic!() };
        handover.handed(again, written(0), now);
        assert!(
            matches!(handover.judge(written(5), false, now), Verdict::Waiting),
            "not quiet yet"
        );
        for _ in 1..QUIET_TICKS {
            assert!(matches!(handover.judge(written(5), false, now), Verdict::Waiting));
        }
        assert!(is_confirmed(&handover.judge(written(5), false, now)));
        assert_eq!(handover.rule(), Rule::Counter);
    }

    #[test]
    fn a_full_ring_is_seen_at_once() {
        let (mut handover, now) = (Handover::new(Rule::Counter), Instant::now());
        handover.handed(vec![batch(0, 5)], seen(0), now);
        let failed = Counters { ring_failures: Some(1), ..seen(0).unwrap() };
        assert!(matches!(handover.judge(Some(failed), false, now), Verdict::Lost(_)));
    }

    #[test]
    fn processors_that_change_the_count_are_found_out() {
        let cases = [
            (written(7), "adds records"),
            (written(3), "drops records"),
            (seen(0), "drops records"),
        ];
        for (counters, expected) in cases {
            let (mut handover, now) = (Handover::new(Rule::Counter), Instant::now());
            handover.handed(vec![batch(0, 5)], seen(0), now);
            let verdicts = (0..LOST_TICKS).map(|_| handover.judge(counters, false, now));
            assert!(is_confirmed(&verdicts.last().unwrap()) || counters == written(7));
            assert!(handover.notice().unwrap().contains(expected));
            assert_eq!(handover.rule(), Rule::Elapsed);
        }
    }

    #[test]
    fn a_host_that_says_nothing_of_its_ring_does_not_stop_the_stream_for_ever() {
        let (mut handover, now) = (Handover::new(Rule::Counter), Instant::now());
        let silent = Some(Counters::default());
        let mut batches = vec![batch(0, 5)];
        for _ in 0..BLIND_REPEATS_MAX {
            handover.handed(batches, silent, now);
            let last = (0..LOST_TICKS).map(|_| handover.judge(silent, false, now)).last();
            let Some(Verdict::Lost(again)) = last else { panic!("given up too early") };
            batches = again;
        }
        handover.handed(batches, silent, now);
        let last = (0..LOST_TICKS).map(|_| handover.judge(silent, false, now)).last();
        assert!(is_confirmed(&last.unwrap()));
        assert_eq!(handover.rule(), Rule::Elapsed);
    }

    #[test]
    fn without_counters_time_without_a_pause_confirms() {
        let (mut handover, start) = (Handover::new(Rule::Elapsed), Instant::now());
        let after = |secs| start + Duration::from_secs(secs);
        handover.handed(vec![batch(0, 5), batch(5, 5)], None, start);
        assert!(matches!(handover.judge(None, false, after(1)), Verdict::Waiting));
        assert!(matches!(handover.judge(None, true, after(9)), Verdict::Waiting));
        assert!(matches!(handover.judge(None, false, after(10)), Verdict::Waiting));
        assert!(is_confirmed(&handover.judge(None, false, after(11))));
    }

    /// A host that takes, delays, drops and refuses as the real one can.
    #[derive(Default)]
    struct Model {
        ring: Vec<(u32, Batch)>,
        counters: Counters,
        arrived: std::collections::HashSet<Id>,
    }

    impl Model {
        fn take(&mut self, batch: &Batch, delay: u32, dropped: bool) {
            self.counters.ring_writes = self.counters.ring_writes.map(|writes| writes + 1);
            if !dropped {
                let copy = Batch { ids: batch.ids.clone(), bytes: Vec::new(), tag: None, ..*batch };
                self.ring.push((delay, copy));
            }
        }

        fn drain(&mut self) {
            let (ready, waiting): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.ring).into_iter().partition(|(delay, _)| *delay == 0);
            self.ring = waiting.into_iter().map(|(delay, batch)| (delay - 1, batch)).collect();
            for (_, batch) in ready {
                self.counters.records += batch.ids.len() as u64;
                self.arrived.extend(batch.ids);
            }
        }
    }

    proptest! {
        /// Whatever a host without processors drops or delays, within the time after which we call
        /// it lost: a record that we believe in has arrived, and every record does in the end.
        #[test]
        fn what_is_confirmed_has_arrived(
            sizes in prop::collection::vec(1_usize..9, 1..12),
            moods in prop::collection::vec((0_u8..10, 0_u32..LOST_TICKS - 1, any::<bool>()), 1..40),
            old_host: bool,
        ) {
            let mut host = Model::default();
            if !old_host {
                host.counters.ring_writes = Some(0);
                host.counters.ring_failures = Some(0);
            }
            let (mut handover, now) = (Handover::new(Rule::Counter), Instant::now());
            let mut queue: std::collections::VecDeque<Batch> = sizes
                .iter()
                .enumerate()
                .map(|(i, &records)| batch(i as u128 * 100, records))
                .collect();
            let total: usize = sizes.iter().sum();
            let (mut confirmed, mut dropped_in_a_row) = (Vec::new(), 0);
            for tick in 0..20_000_usize {
                // The host misbehaves for a while and is healthy in the end.
                let (mood, delay, paused) =
                    if tick < 3_000 { moods[tick % moods.len()] } else { (9, 0, false) };
                if !paused { host.drain(); }
                match handover.judge(Some(host.counters), paused, now) {
                    Verdict::Confirmed(batches) => {
                        confirmed.extend(batches.into_iter().flat_map(|batch| batch.ids));
                    }
                    Verdict::Lost(batches) => {
                        batches.into_iter().rev().for_each(|batch| queue.push_front(batch));
                    }
                    Verdict::Idle | Verdict::Waiting => {}
                }
                for id in &confirmed {
                    prop_assert!(host.arrived.contains(id), "{:?} was believed too early", id);
                }
                let room = handover.batches_max().min(queue.len());
                if room > 0 && !paused {
                    let before = host.counters;
                    let batches: Vec<Batch> = queue.drain(..room).collect();
                    // A host that says nothing of its ring buffer is believed to lose a batch a few
                    // times in a row, and no more.
                    let drops = mood < 3 && (!old_host || dropped_in_a_row < BLIND_REPEATS_MAX - 1);
                    dropped_in_a_row = if drops { dropped_in_a_row + 1 } else { 0 };
                    for batch in &batches { host.take(batch, delay, drops); }
                    handover.handed(batches, Some(before), now);
                }
                if confirmed.len() == total { break; }
            }
            prop_assert_eq!(confirmed.len(), total);
            prop_assert_eq!(handover.rule(), Rule::Counter);
        }
    }
}
