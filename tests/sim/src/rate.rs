//! Rate limits, and how well the clients kept to them.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use crate::clock::millis;
use crate::locked;

/// Which requests a limit counts together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RateRule {
    /// A window begins with a request and ends when its time is up; the next request begins the
    /// next one.
    #[default]
    FromFirstRequest,
    /// All requests that were let through within one window's time before the request.
    Sliding,
}

/// How the clients of an API kept to its rate limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// The API: `cloud_app_security` or `workload_security`.
    pub product: String,
    /// Requests with valid credentials, refused ones included.
    pub requests: u64,
    /// Requests refused because there were too many.
    pub violations: u64,
    /// The most requests within one window's time, wherever it begins, refused ones included.
    pub max_in_window: usize,
}

/// Counts the requests of one key.
pub(crate) struct Limiter {
    limit: usize,
    window_ms: i64,
    rule: RateRule,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Requests let through in the window that is open.
    granted: VecDeque<i64>,
    /// All requests of one window's time.
    recent: VecDeque<i64>,
    requests: u64,
    violations: u64,
    max_in_window: usize,
}

impl Limiter {
    /// No limit is one that nobody reaches.
    pub(crate) fn new(limit: Option<usize>, window: Duration, rule: RateRule) -> Self {
        let limit = limit.unwrap_or(usize::MAX);
        Self { limit, window_ms: millis(window).max(1), rule, seen: Mutex::default() }
    }

    /// Counts a request. `Err` refuses it and tells how many milliseconds the limit lasts.
    pub(crate) fn take(&self, now_ms: i64) -> Result<(), i64> {
        let seen = &mut *locked(&self.seen);
        let oldest_ms = now_ms - self.window_ms;
        seen.requests += 1;
        seen.recent.push_back(now_ms);
        while seen.recent.front().is_some_and(|at_ms| *at_ms <= oldest_ms) {
            seen.recent.pop_front();
        }
        seen.max_in_window = seen.max_in_window.max(seen.recent.len());
        let first_is_over = |granted: &VecDeque<i64>| {
            granted.front().is_some_and(|first_ms| *first_ms <= oldest_ms)
        };
        match self.rule {
            RateRule::FromFirstRequest if first_is_over(&seen.granted) => seen.granted.clear(),
            RateRule::FromFirstRequest => {}
            RateRule::Sliding => {
                while first_is_over(&seen.granted) {
                    seen.granted.pop_front();
                }
            }
        }
        if seen.granted.len() >= self.limit {
            seen.violations += 1;
            let first_ms = seen.granted.front().copied().unwrap_or(now_ms);
            return Err(first_ms + self.window_ms - now_ms);
        }
        seen.granted.push_back(now_ms);
        Ok(())
    }

    pub(crate) fn rate(&self, product: &str) -> Rate {
        let seen = locked(&self.seen);
        Rate {
            product: product.to_string(),
            requests: seen.requests,
            violations: seen.violations,
            max_in_window: seen.max_in_window,
        }
    }
}

/// `Retry-After` in whole seconds, late rather than early.
pub(crate) fn retry_after(wait_ms: i64) -> (&'static str, String) {
    ("Retry-After", ((wait_ms + 999) / 1000).max(1).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(rule: RateRule) -> Limiter {
        Limiter::new(Some(2), Duration::from_secs(60), rule)
    }

    #[test]
    fn a_window_lasts_from_its_first_request() {
        let limiter = limiter(RateRule::FromFirstRequest);
        let at = |ms| limiter.take(ms);
        assert_eq!([at(0), at(50_000), at(59_999)], [Ok(()), Ok(()), Err(1)]);
        assert_eq!([at(60_000), at(61_000), at(62_000)], [Ok(()), Ok(()), Err(58_000)]);
        let rate = limiter.rate("x");
        assert_eq!((rate.requests, rate.violations, rate.max_in_window), (6, 2, 5));
    }

    #[test]
    fn a_sliding_window_forgets_one_request_after_the_other() {
        let limiter = limiter(RateRule::Sliding);
        let at = |ms| limiter.take(ms);
        assert_eq!([at(0), at(50_000), at(59_999)], [Ok(()), Ok(()), Err(1)]);
        assert_eq!([at(60_000), at(61_000), at(110_000)], [Ok(()), Err(49_000), Ok(())]);
    }
}
