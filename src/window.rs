//! Which spans of vendor time to ask for. Pure arithmetic over times that are given.
//!
//! A round covers `[cursor - overlap, now - settle]`. Both ends are whole seconds, since vendors
//! filter by the second, and neighbours share their boundary second, since nobody documents whether
//! `end` is inclusive. The ledger takes out what two windows both show.

use std::time::Duration;

use crate::clock::{Time, delta};

/// The vendors keep what was generated in the last 72 hours.
pub const HORIZON: Duration = Duration::from_secs(72 * 3600);
/// Asking for the very edge of the horizon may be refused; we stay this much inside.
pub const HORIZON_MARGIN: Duration = Duration::from_secs(5 * 60);
/// Rows of the last seconds may still be half written.
pub const SETTLE: Duration = Duration::from_secs(5);
/// The ledger remembers the ids of the last windows whole, so memory follows the records of a window.
pub const WINDOW_RECORDS_MAX: usize = 50_000;
/// Vendors filter by the second; nothing is gained by halving further.
const SPAN_MIN: Duration = Duration::from_secs(1);
/// How often what was read is read again, to find what the vendor showed later than `overlap`.
pub const PASSES: usize = 3;
/// The age at which the first pass reads a span again is a few times the overlap, and at least this.
const FIRST_PASS_AGE_MIN: Duration = Duration::from_secs(60);
/// The age for the second pass: what a vendor's busy afternoon delays.
const SECOND_PASS_AGE: Duration = Duration::from_secs(6 * 3600);
/// The age for the last pass: as late as can be, with room for its own windows and retries.
const LAST_PASS_AGE: Duration = Duration::from_secs(70 * 3600);

/// A span of vendor time, `start` to `end`, both asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first second.
    pub start: Time,
    /// Its last second.
    pub end: Time,
}

impl Window {
    /// The two halves, or `None` if the window is too short to halve.
    #[must_use]
    pub fn split(&self) -> Option<(Self, Self)> {
        let half_secs = (self.end - self.start).num_seconds() / 2;
        if half_secs < SPAN_MIN.as_secs() as i64 {
            return None;
        }
        let middle = self.start + chrono::TimeDelta::seconds(half_secs);
        Some((Self { end: middle, ..*self }, Self { start: middle, ..*self }))
    }
}

/// What a round asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where the round starts.
    pub start: Time,
    /// The windows, oldest first, each at most as long as the policy says.
    pub windows: Vec<Window>,
    /// What the vendor no longer has although it was never read.
    pub lost: Option<Window>,
}

/// The user's choices for one stream.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Where a first round starts, before now.
    pub lookback: Duration,
    /// How far each round reaches back behind the cursor.
    pub overlap: Duration,
    /// The longest window.
    pub span_max: Duration,
    /// A window that will probably have more records is halved.
    pub records_max: usize,
    /// Whether what was read is read again later.
    pub verify: bool,
}

impl Policy {
    /// Plans a round at `now` for a stream that has been read up to `cursor`.
    #[must_use]
    pub fn plan(&self, cursor: Option<Time>, now: Time) -> Plan {
        let end = whole_second(now - delta(SETTLE));
        let oldest = oldest(now);
        let wanted = match cursor {
            Some(cursor) => before(cursor, self.overlap),
            None => now - delta(self.lookback),
        };
        let start = whole_second(wanted).max(oldest);
        let lost = cursor
            .filter(|&cursor| cursor < oldest)
            .map(|cursor| Window { start: cursor, end: oldest });
        Plan { start, windows: cut(start, end, self.span_max), lost }
    }

    /// How old a span is when the verification pass of that number reads it again; `None` if there is
    /// no such pass.
    #[must_use]
    pub fn pass_age(&self, pass: usize) -> Option<Duration> {
        let first = self.overlap.saturating_mul(4).max(FIRST_PASS_AGE_MIN);
        let age = match pass {
            0 => Some(first).filter(|&age| age < LAST_PASS_AGE),
            1 => Some(SECOND_PASS_AGE).filter(|&age| age > first),
            _ => Some(LAST_PASS_AGE),
        };
        age.filter(|_| self.verify && pass < PASSES)
    }

    /// The span that a verification pass reads next, if it is old enough: the pass has read up to
    /// `verified`, and the live rounds have delivered up to `cursor`.
    ///
    /// It ends before anything that a live round can still show, so the two never meet.
    #[must_use]
    pub fn plan_pass(
        &self,
        pass: usize,
        verified: Time,
        cursor: Time,
        now: Time,
    ) -> Option<Window> {
        let age = self.pass_age(pass)?;
        let start = whole_second(verified).max(oldest(now));
        let end = start + delta(age.min(self.span_max).max(SPAN_MIN));
        let latest = (now - delta(age)).min(before(self.reach(cursor), SPAN_MIN));
        (end <= latest).then_some(Window { start, end })
    }

    /// The oldest time of a delivered record that anything can still ask for once the cursor is at
    /// `cursor`.
    #[must_use]
    pub fn memory(&self, cursor: Time) -> Time {
        if self.verify { before(cursor, HORIZON) } else { self.reach(cursor) }
    }

    /// The oldest time that a later round can still ask for once the cursor is at `cursor`.
    #[must_use]
    pub fn reach(&self, cursor: Time) -> Time {
        whole_second(before(cursor, self.overlap))
    }
}

/// Cuts a span into windows; an empty or negative span has none.
fn cut(start: Time, end: Time, span_max: Duration) -> Vec<Window> {
    let mut windows = Vec::new();
    let mut at = start;
    while at < end {
        let next = (at + delta(span_max.max(SPAN_MIN))).min(end);
        windows.push(Window { start: at, end: next });
        at = next;
    }
    windows
}

/// The oldest second that may still be asked for.
fn oldest(now: Time) -> Time {
    whole_second(now - delta(HORIZON) + delta(HORIZON_MARGIN))
}

/// So long before `time`; a cursor comes from a file, and may be as early as a time can be.
fn before(time: Time, duration: Duration) -> Time {
    time.checked_sub_signed(delta(duration)).unwrap_or(Time::MIN_UTC)
}

fn whole_second(time: Time) -> Time {
    Time::from_timestamp(time.timestamp(), 0).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(secs: i64) -> Time {
        Time::from_timestamp(secs, 0).unwrap()
    }

    const NOW: i64 = 1_700_000_000;
    const POLICY: Policy = Policy {
        lookback: Duration::from_secs(86_400),
        overlap: Duration::from_secs(300),
        span_max: Duration::from_secs(3600),
        records_max: WINDOW_RECORDS_MAX,
        verify: true,
    };

    #[test]
    fn a_first_round_reaches_back_by_lookback() {
        let plan = POLICY.plan(None, at(NOW));
        assert_eq!(plan.windows.len(), 24);
        assert_eq!(plan.windows[0].start, at(NOW - 86_400));
        assert_eq!(plan.windows[23].end, at(NOW - 5));
        assert_eq!(plan.lost, None);
    }

    #[test]
    fn a_later_round_reaches_back_by_overlap() {
        let plan = POLICY.plan(Some(at(NOW - 65)), at(NOW));
        assert_eq!(plan.windows, [Window { start: at(NOW - 365), end: at(NOW - 5) }]);
    }

    #[test]
    fn a_cursor_beyond_the_horizon_says_what_is_lost() {
        let plan = POLICY.plan(Some(at(NOW - 100 * 3600)), at(NOW));
        let oldest = at(NOW - 72 * 3600 + 300);
        assert_eq!(plan.lost, Some(Window { start: at(NOW - 100 * 3600), end: oldest }));
        assert_eq!(plan.windows[0].start, oldest);
    }

    #[test]
    fn a_clock_that_went_back_plans_nothing() {
        assert!(POLICY.plan(Some(at(NOW + 4000)), at(NOW)).windows.is_empty());
    }

    #[test]
    fn passes_are_ever_later_and_later_than_the_overlap() {
        for (overlap, ages) in [
            (0, [Some(60), Some(6 * 3600), Some(70 * 3600)]),
            (300, [Some(1200), Some(6 * 3600), Some(70 * 3600)]),
            (2 * 3600, [Some(8 * 3600), None, Some(70 * 3600)]),
            (24 * 3600, [None, None, Some(70 * 3600)]),
        ] {
            let policy = Policy { overlap: Duration::from_secs(overlap), ..POLICY };
            let seen: Vec<_> = (0..PASSES).map(|pass| policy.pass_age(pass)).collect();
            assert_eq!(seen, ages.map(|age| age.map(Duration::from_secs)), "{overlap}");
        }
        let without = Policy { verify: false, ..POLICY };
        assert!((0..=PASSES).all(|pass| without.pass_age(pass).is_none()));
        assert_eq!(without.memory(at(NOW)), without.reach(at(NOW)));
    }

    #[test]
    fn a_pass_reads_whole_spans_that_are_old_enough_and_fully_delivered() {
        let plan = |verified, cursor, now| POLICY.plan_pass(0, at(verified), at(cursor), at(now));
        let first = Window { start: at(NOW), end: at(NOW + 1200) };
        assert_eq!(plan(NOW, NOW + 9_000, NOW + 2_399), None, "not old enough");
        assert_eq!(plan(NOW, NOW + 9_000, NOW + 2_400), Some(first));
        assert_eq!(plan(NOW, NOW + 1_500, NOW + 2_400), None, "a live round may still show it");
        assert_eq!(plan(NOW, NOW + 1_501, NOW + 2_400), Some(first));
        let late = POLICY.plan_pass(2, at(0), at(NOW), at(NOW)).unwrap();
        assert_eq!(late.start, at(NOW - 72 * 3600 + 300), "what is gone is not asked for");
        assert!(late.end <= at(NOW - 70 * 3600));
    }

    proptest! {
        #[test]
        fn windows_cover_the_round_without_a_hole(
            behind in 0_i64..300_000, overlap in 0_u64..4000, nanos in 0_u32..1_000_000_000,
        ) {
            let policy = Policy { overlap: Duration::from_secs(overlap), ..POLICY };
            let now = Time::from_timestamp(NOW, nanos).unwrap();
            let cursor = at(NOW - behind);
            let plan = policy.plan(Some(cursor), now);
            let covered = |time: Time| plan.windows.iter().any(|w| w.start <= time && time <= w.end);
            if let (Some(first), Some(last)) = (plan.windows.first(), plan.windows.last()) {
                prop_assert!(first.start <= cursor - delta(policy.overlap) || plan.lost.is_some()
                    || first.start == whole_second(now - delta(HORIZON) + delta(HORIZON_MARGIN)));
                prop_assert_eq!(last.end, at(NOW - 5));
                prop_assert!(covered(first.start) && covered(last.end));
                for pair in plan.windows.windows(2) {
                    prop_assert_eq!(pair[0].end, pair[1].start);
                }
            }
            for window in &plan.windows {
                prop_assert!(window.start < window.end);
                prop_assert!(window.end - window.start <= delta(policy.span_max));
                if let Some((one, two)) = window.split() {
                    prop_assert_eq!((one.start, one.end, two.end), (window.start, two.start, window.end));
                }
            }
        }
    }
}
