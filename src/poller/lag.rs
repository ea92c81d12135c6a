//! How far behind the live lane is, measured against the vendor's horizon.

use std::time::{Duration, Instant};

use super::Now;
use crate::clock::{Time, delta};
use crate::window::{HORIZON, Window};

/// From here on the horizon is near enough to warn of.
const NOTABLE: Duration = Duration::from_secs(48 * 3600);
/// Between two warnings, and between two lines about ever more that is lost.
const WARN_INTERVAL: Duration = Duration::from_secs(600);
/// A rate over less than this says nothing.
const RATE_SPAN_MIN: Duration = Duration::from_secs(60);

/// Watches one stream.
#[derive(Default)]
pub(super) struct Lag {
    /// When it was first seen to be far behind, and where its cursor was.
    since: Option<(Instant, Time)>,
    warned_at: Option<Instant>,
    /// Up to where it was said that records are lost.
    lost_until: Option<Time>,
}

impl Lag {
    /// Looks at the cursor; returns a warning when one is due.
    pub(super) fn watch(&mut self, cursor: Time, now: Now) -> Option<String> {
        let lag = (now.time - cursor).to_std().unwrap_or_default();
        if lag < NOTABLE {
            self.since = None;
            self.warned_at = None;
            return None;
        }
        let (since, cursor_then) = *self.since.get_or_insert((now.instant, cursor));
        let elapsed = |at: Instant| now.instant.saturating_duration_since(at);
        if self.warned_at.is_some_and(|at| elapsed(at) < WARN_INTERVAL) {
            return None;
        }
        self.warned_at = Some(now.instant);
        let gained = (cursor - cursor_then).to_std().unwrap_or_default();
        let waited = elapsed(since);
        let rate = (waited >= RATE_SPAN_MIN).then(|| gained.as_secs_f64() / waited.as_secs_f64());
        Some(format!(
            "the position is {:.1} h behind, and the vendor keeps {:.0} h: {}",
            hours(lag),
            hours(HORIZON),
            forecast(lag, rate)
        ))
    }

    /// Whether it is yet to be said that this is lost.
    pub(super) fn is_news(&mut self, lost: Window) -> bool {
        let is_news = self.lost_until.is_none_or(|until| lost.end > until + delta(WARN_INTERVAL));
        if is_news {
            self.lost_until = Some(lost.end);
        }
        is_news
    }
}

/// What will happen; `rate` is vendor time read per time passed.
fn forecast(lag: Duration, rate: Option<f64>) -> String {
    let left = HORIZON.saturating_sub(lag);
    match rate {
        Some(rate) if rate > 1.0 => format!(
            "{rate:.1} h of it are read per hour, so it will have caught up in {:.1} h",
            hours(lag) / (rate - 1.0)
        ),
        Some(rate) => format!(
            "only {rate:.1} h of it are read per hour, so records will be lost in {:.1} h",
            hours(left) / (1.0 - rate).max(1e-3)
        ),
        None => format!("unless it catches up, records will be lost in {:.1} h", hours(left)),
    }
}

fn hours(duration: Duration) -> f64 {
    duration.as_secs_f64() / 3600.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    fn at(secs: i64) -> Time {
        Time::from_timestamp(1_700_000_000 + secs, 0).unwrap()
    }

    #[test]
    fn the_warning_tells_rate_and_time_left() {
        let zero = Instant::now();
        let now = |secs: i64| Now {
            time: at(secs),
            instant: zero + Duration::from_secs(secs.unsigned_abs()),
        };
        let mut lag = Lag::default();
        assert_eq!(lag.watch(at(-47 * HOUR), now(0)), None);
        let first = lag.watch(at(-50 * HOUR), now(0)).unwrap();
        assert!(first.contains("50.0 h behind") && first.contains("lost in 22.0 h"), "{first}");
        assert_eq!(lag.watch(at(-50 * HOUR), now(60)), None, "not every time");
        let slow = lag.watch(at(-50 * HOUR + HOUR / 2), now(HOUR)).unwrap();
        assert!(slow.contains("only 0.5 h") && slow.contains("lost in 43.0 h"), "{slow}");
        let fast = lag.watch(at(-50 * HOUR + 3 * HOUR), now(2 * HOUR)).unwrap();
        assert!(fast.contains("1.5 h of it") && fast.contains("caught up in 98.0 h"), "{fast}");
        assert_eq!(lag.watch(at(-40 * HOUR), now(3 * HOUR)), None);
    }

    #[test]
    fn a_loss_is_told_once_unless_it_grows() {
        let mut lag = Lag::default();
        let lost = |end| Window { start: at(0), end: at(end) };
        assert!(lag.is_news(lost(100)));
        assert!(!lag.is_news(lost(160)));
        assert!(lag.is_news(lost(701)));
    }
}
