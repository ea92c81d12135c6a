//! The simulator's own time: records appear by it and the `Date` header tells it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};

/// A clock that runs with the system or stands still, and can be moved forward.
///
/// Clones share their time, so a test can keep one and move the simulator's.
#[derive(Debug, Clone)]
pub struct Clock {
    /// Where a standing clock stands; `None` runs with the system.
    stands_at_ms: Option<i64>,
    ahead_ms: Arc<AtomicI64>,
}

impl Clock {
    /// A clock that runs with the system's.
    pub fn system() -> Self {
        Self { stands_at_ms: None, ahead_ms: Arc::default() }
    }

    /// A clock that stands still until it is advanced, for runs that must be repeatable.
    pub fn fixed(at: DateTime<Utc>) -> Self {
        Self { stands_at_ms: Some(at.timestamp_millis()), ahead_ms: Arc::default() }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(millis(by), Ordering::SeqCst);
    }

    /// The time now.
    pub fn now(&self) -> DateTime<Utc> {
        from_millis(self.now_ms())
    }

    pub(crate) fn now_ms(&self) -> i64 {
        let base = self.stands_at_ms.unwrap_or_else(|| Utc::now().timestamp_millis());
        base + self.ahead_ms.load(Ordering::SeqCst)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn from_millis(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Appends `yyyy-mm-ddThh:mm:ss[.mmm]Z`; the fraction only when there is one.
///
/// Written by hand because every record carries up to three times and the general formatter
/// would take most of the time of a page.
pub(crate) fn push_time(out: &mut String, ms: i64) {
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let secs = of_day / 1000;
    push_digits(out, year, 4);
    for (mark, value) in [('-', month), ('-', day), ('T', secs / 3600), (':', secs / 60 % 60)] {
        out.push(mark);
        push_digits(out, value, 2);
    }
    out.push(':');
    push_digits(out, secs % 60, 2);
    if of_day % 1000 != 0 {
        out.push('.');
        push_digits(out, of_day % 1000, 3);
    }
    out.push('Z');
}

/// The same with a fraction in any case.
pub(crate) fn push_time_millis(out: &mut String, ms: i64) {
    push_time(out, ms);
    if ms % 1000 == 0 {
        out.truncate(out.len() - 1);
        out.push_str(".000Z");
    }
}

fn push_digits(out: &mut String, value: i64, width: u32) {
    for place in (0..width).rev() {
        out.push(char::from(b'0' + (value / 10i64.pow(place) % 10) as u8));
    }
}

/// Days since 1970 to a calendar date, counting in eras of 400 years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_chrono_writes_them() {
        for ms in (-100_000_000_000..4_000_000_000_000i64).step_by(86_400_000 * 13 + 61_001) {
            let (mut text, full) = (String::new(), from_millis(ms));
            push_time(&mut text, ms);
            let pattern =
                if ms % 1000 == 0 { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%.3fZ" };
            assert_eq!(text, full.format(pattern).to_string());
        }
    }
}
