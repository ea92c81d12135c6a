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
/// Vendors filter by the second; nothing is gained by halving further.
const SPAN_MIN: Duration = Duration::from_secs(1);

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
}

impl Policy {
    /// Plans a round at `now` for a stream that has been read up to `cursor`.
    #[must_use]
    pub fn plan(&self, cursor: Option<Time>, now: Time) -> Plan {
        let end = whole_second(now - delta(SETTLE));
        let oldest = whole_second(now - delta(HORIZON) + delta(HORIZON_MARGIN));
        let wanted = match cursor {
            Some(cursor) => before(cursor, self.overlap),
            None => now - delta(self.lookback),
        };
        let start = whole_second(wanted).max(oldest);
        let lost = cursor
            .filter(|&cursor| cursor < oldest)
            .map(|cursor| Window { start: cursor, end: oldest });
        Plan { windows: cut(start, end, self.span_max), lost }
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
