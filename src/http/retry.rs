//! What an answer's status means, and how long to wait after a failure.

use std::time::Duration;

use super::Response;
use crate::error::{Error, ErrorKind, Result};

/// The first wait is at most this long …
const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// … and doubles up to this.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A vendor that asks for more is asked again after this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// How much of a refusal's text is shown.
const EXCERPT_CHARS_MAX: usize = 300;

/// Passes a successful answer on.
///
/// # Errors
/// `Retry` for what may pass by itself, `Refused` for what a person must look at, with the advice
/// for its status.
pub fn check(response: &Response) -> Result<()> {
    if response.is_success() {
        return Ok(());
    }
    let floor = response.retry_after.map(|wait| wait.min(RETRY_AFTER_MAX));
    let kind = match response.status {
        408 | 425 | 429 | 500..=599 => ErrorKind::Retry { floor },
        _ => ErrorKind::Refused,
    };
    let said: String =
        String::from_utf8_lossy(&response.refusal).chars().take(EXCERPT_CHARS_MAX).collect();
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = if said.is_empty() { "nothing".to_owned() } else { said };
    let text =
        format!("HTTP {}: {}; the vendor says: {said}", response.status, advice(response.status));
    Err(Error::new(kind, text))
}

/// What to check for a status, after the table of the connectors that this one replaces.
#[must_use]
pub fn advice(status: u16) -> &'static str {
    match status {
        300..=399 => {
            "the address redirects, which is not followed: check base_url or region, it must be the \
             API's own host"
        }
        400 => "the vendor does not understand the request: check the connector's configuration",
        401 => {
            "the credential was refused: check api_key, and username or application_id where the \
             connector has one, whether the key has expired, and whether it is licensed for this API"
        }
        403 => "the credential is valid but not allowed: check its role and permissions",
        404 => {
            "nothing is there: check base_url or region, and whether log retrieval is switched on in \
             the vendor's console"
        }
        407 => "the proxy wants a credential: check proxy",
        429 => {
            "too many requests for this credential: they go on by themselves; if this happens often, \
             set rate_limit or use another key elsewhere"
        }
        500..=599 => "the vendor has a fault: the request is repeated",
        _ => "unexpected: check base_url",
    }
}

/// Waits that grow with each failure in a row and are spread at random, so that many connectors
/// that failed together do not come back together.
#[derive(Default)]
pub struct Backoff {
    attempt: u32,
}

impl Backoff {
    /// How long to wait now; at least `floor`, and `random` in `0.0..1.0` spreads the rest.
    pub fn next(&mut self, floor: Option<Duration>, random: f64) -> Duration {
        let ceiling = BACKOFF_BASE.saturating_mul(1 << self.attempt.min(16)).min(BACKOFF_MAX);
        self.attempt = self.attempt.saturating_add(1);
        floor.unwrap_or_default().saturating_add(ceiling.mul_f64(random))
    }

    /// Failures in a row.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// A success; the next failure waits shortly again.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_say_what_next() {
        let kind = |status| {
            let retry_after = Some(Duration::from_secs(7));
            check(&Response { status, retry_after, ..Response::default() }).map_err(|e| e.kind())
        };
        assert_eq!(kind(200), Ok(()));
        assert_eq!(kind(204), Ok(()));
        for status in [408, 425, 429, 500, 502, 503, 504] {
            let floor = Some(Duration::from_secs(7));
            assert_eq!(kind(status), Err(ErrorKind::Retry { floor }), "{status}");
        }
        let retry_after = Some(Duration::MAX);
        let for_ever = Response { status: 429, retry_after, ..Response::default() };
        let floor = Some(RETRY_AFTER_MAX);
        assert_eq!(check(&for_ever).unwrap_err().kind(), ErrorKind::Retry { floor });
        for status in [301, 302, 400, 401, 403, 404, 405, 407, 410] {
            assert_eq!(kind(status), Err(ErrorKind::Refused), "{status}");
        }
    }

    #[test]
    fn backoff_grows_is_bounded_and_respects_the_floor() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..9).map(|_| backoff.next(None, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff.next(None, 0.0), Duration::ZERO);
        backoff.reset();
        let floor = Some(Duration::from_secs(30));
        assert_eq!(backoff.next(floor, 0.5), Duration::from_millis(30_500));
    }
}
