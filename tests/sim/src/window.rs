//! What the two log APIs have in common: the rules of a window of time, the order of its rows, and
//! how late a record shows up.

use std::time::Duration;

use chrono::NaiveDateTime;

use crate::clock::millis;
use crate::rng::Rng;

/// When records become visible.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Lateness {
    /// As they are generated.
    #[default]
    None,
    /// Some of them up to so much later.
    Uniform {
        /// The longest delay.
        max: Duration,
        /// The share of records that are late, 0 to 1.
        share: f64,
    },
}

impl Lateness {
    /// How much later one record is, in milliseconds.
    pub(crate) fn draw(self, rng: &mut Rng) -> i64 {
        match self {
            Self::Uniform { max, share } if rng.chance(share) => {
                rng.below(millis(max) as u64 + 1) as i64
            }
            _ => 0,
        }
    }
}

/// The order of rows, by generation time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    #[default]
    Ascending,
    /// Newest first.
    Descending,
    /// None, over all pages of the result.
    Shuffled,
}

impl Order {
    /// Where the row of that rank lies among `count` rows that are stored oldest first.
    pub(crate) fn place(self, rank: u64, count: u64, seed: u64) -> u64 {
        match self {
            Self::Ascending => rank,
            Self::Descending => count - 1 - rank,
            // A step without a common divisor visits every row once, in no order of time.
            Self::Shuffled => {
                let golden = (count as f64 * 0.618) as u64;
                let step = (golden.max(1)..).find(|step| divisor(*step, count) == 1).unwrap_or(1);
                let at = u128::from(step) * u128::from(rank) + u128::from(seed % count);
                (at % u128::from(count)) as u64
            }
        }
    }
}

fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

/// What becomes of a window that begins before the horizon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OldStart {
    /// It begins at the horizon.
    #[default]
    Clamp,
    /// It is refused with a 400.
    BadRequest,
}

/// The window when one of its ends is not given, as the vendor documents it for both APIs.
const DEFAULT_WINDOW_MS: i64 = 5 * 60 * 1000;

/// The window that is meant by what was given of it; `None` when it is to be refused.
pub(crate) fn bounds(
    given: (Option<i64>, Option<i64>),
    horizon: Duration,
    old_start: OldStart,
    now_ms: i64,
) -> Option<(i64, i64)> {
    let (start_ms, end_ms) = match given {
        (None, None) => (now_ms - DEFAULT_WINDOW_MS, now_ms),
        (Some(start_ms), None) => (start_ms, start_ms + DEFAULT_WINDOW_MS),
        (None, Some(end_ms)) => (end_ms - DEFAULT_WINDOW_MS, end_ms),
        (Some(start_ms), Some(end_ms)) => (start_ms, end_ms),
    };
    let horizon_ms = now_ms - millis(horizon);
    let is_too_old = old_start == OldStart::BadRequest && start_ms < horizon_ms;
    (start_ms <= end_ms && !is_too_old).then_some((start_ms.max(horizon_ms), end_ms))
}

/// `yyyy-mm-ddThh:mm:ss[.mmm]Z` and nothing else.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    let pattern = match text.len() {
        20 => "%Y-%m-%dT%H:%M:%SZ",
        24 if text.as_bytes()[19] == b'.' => "%Y-%m-%dT%H:%M:%S%.3fZ",
        _ => return None,
    };
    let time = NaiveDateTime::parse_from_str(text, pattern).ok()?;
    Some(time.and_utc().timestamp_millis())
}
