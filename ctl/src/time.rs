//! Times as people write them.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta};
use in_trendmicro::config::value;

pub use in_trendmicro::clock::{Time, delta, now};

/// How far back a person may ask: more than the vendor keeps is a mistake worth its own message later.
const AGO_MAX: Duration = Duration::from_secs(400 * 24 * 3600);

/// Reads a time: `2026-11-22T08:00:00Z`, `2026-11-22 08:00` in UTC, `2026-11-22`, `now`, or how long
/// ago, such as `90m`, `6h` or `2d`.
///
/// # Errors
/// What is legal.
pub fn parse(text: &str) -> Result<Time, String> {
    let text = text.trim();
    if text == "now" {
        return Ok(now());
    }
    if let Ok(ago) = value::duration(text, Duration::ZERO, AGO_MAX) {
        return Ok(now() - delta(ago));
    }
    let naive = |format| NaiveDateTime::parse_from_str(text, format).ok().map(|t| t.and_utc());
    DateTime::parse_from_rfc3339(text)
        .ok()
        .map(|time| time.to_utc())
        .or_else(|| {
            ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"].into_iter().find_map(naive)
        })
        .or_else(|| {
            Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0)?.and_utc())
        })
        .ok_or_else(|| {
            "legal: 2026-11-22T08:00:00Z, 2026-11-22 08:00 (UTC), now, or how long ago: 90m, 6h, 2d"
                .to_owned()
        })
}

/// A time for people and programs.
#[must_use]
pub fn text(time: Time) -> String {
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A span for people: its two largest units.
#[must_use]
pub fn span(span: TimeDelta) -> String {
    let secs = span.num_seconds();
    let sign = if secs < 0 { "-" } else { "" };
    let secs = secs.unsigned_abs();
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    let text = match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs}s"),
        (0, 0, _) => format!("{minutes}m {}s", secs % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let expected = "2026-11-22T08:00:00Z";
        for written in ["2026-11-22T08:00:00Z", "2026-11-22T09:00:00+01:00", "2026-11-22 08:00"] {
            assert_eq!(text(parse(written).unwrap()), expected, "{written}");
        }
        assert_eq!(text(parse("2026-11-22").unwrap()), "2026-11-22T00:00:00Z");
        let ago = now() - parse("6h").unwrap();
        assert!((ago - TimeDelta::hours(6)).num_seconds().abs() <= 1);
        for wrong in ["", "yesterday", "6 h", "2026-13-01", "-5m"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn spans_are_short() {
        let text = |secs| span(TimeDelta::seconds(secs));
        assert_eq!(
            [text(5), text(65), text(3660), text(90_000)],
            ["5s", "1m 5s", "1h 1m", "1d 1h"]
        );
        assert_eq!(text(-65), "-1m 5s");
    }
}
