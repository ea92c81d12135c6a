//! Faults that tests ask for: which requests they strike, and what goes wrong.
//!
//! Faults of the wire are carried out in `server`, faults of paging by the API itself.
//! Every fault but [`FaultKind::Slow`] and [`FaultKind::DateSkew`] excludes the others: of
//! several that strike the same request, the one added first wins.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

use crate::locked;
use crate::rng::Rng;

/// A rule: what goes wrong, where and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// A prefix of the path, or of `path?query`; empty strikes every API request.
    pub route: String,
    /// Which of the requests on the route it strikes.
    pub when: When,
    /// What goes wrong.
    pub kind: FaultKind,
}

/// Which of the matching requests a fault strikes; they are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// Each.
    Always,
    /// Only this one.
    Nth(u64),
    /// Each that this number divides.
    Every(u64),
    /// The first so many.
    Times(u64),
    /// Each with this probability, drawn from the simulator's seed.
    Probability(f64),
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum FaultKind {
    /// Another status than the API would give.
    Status {
        /// The status.
        code: u16,
        /// The `Retry-After` header as it is to be sent.
        retry_after: Option<String>,
        /// The body; without one, the vendor's text for that status where there is one.
        body: Option<String>,
    },
    /// The connection is reset before any answer.
    Reset,
    /// The whole body is promised, half of it sent, and the connection closed.
    CloseMidBody,
    /// A valid answer whose JSON ends in the middle.
    TruncatedJson,
    /// 200 with the text "OK".
    NotJson,
    /// An HTML page, as proxies and portals send.
    HtmlError {
        /// The status: 200 and 502 are the ones seen in the wild.
        code: u16,
    },
    /// The answer comes late.
    Slow {
        /// How late.
        delay: Duration,
    },
    /// The answer comes in small pieces.
    Drip {
        /// Bytes in a piece.
        chunk: usize,
        /// The wait before each piece.
        delay: Duration,
    },
    /// No answer until the client goes away, the server stops or ten minutes have passed.
    Hang,
    /// The page before is sent again, with the token that was just used as the next.
    RepeatPage,
    /// Some rows of the page before are sent again in front of the page's own.
    RepeatRecords,
    /// The next token is always the one that was just used.
    EndlessToken,
    /// A byte that is no UTF-8 inside a string.
    GarbageUtf8,
    /// The `Date` header is off; everything else is as it should be.
    DateSkew {
        /// By how much; negative is the past.
        secs: i64,
    },
    /// `Content-Length` says less than is sent, and the connection closes after the rest.
    WrongLength,
    /// A body that says it is gzip and cannot be unpacked.
    GzipBroken,
}

impl FaultKind {
    /// True when a client that reads the answer gets the records of it.
    pub(crate) fn is_intact(&self) -> bool {
        matches!(
            self,
            Self::Slow { .. }
                | Self::Drip { .. }
                | Self::DateSkew { .. }
                | Self::RepeatPage
                | Self::RepeatRecords
                | Self::EndlessToken
        )
    }
}

/// The faults in force, changed while the simulator runs.
#[derive(Debug)]
pub struct Faults(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    rules: Vec<Rule>,
    next_id: u64,
    rng: Rng,
}

#[derive(Debug)]
struct Rule {
    id: u64,
    fault: Fault,
    seen: u64,
    fired: u64,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        let rng = Rng::keyed(seed, &[0xfa]);
        Self(Mutex::new(Inner { rules: Vec::new(), next_id: 1, rng }))
    }

    /// Adds a rule and returns its number.
    pub fn add(&self, fault: Fault) -> u64 {
        let mut inner = locked(&self.0);
        let id = inner.next_id;
        inner.next_id += 1;
        inner.rules.push(Rule { id, fault, seen: 0, fired: 0 });
        id
    }

    /// Removes a rule; false when there is none of that number.
    pub fn remove(&self, id: u64) -> bool {
        let mut inner = locked(&self.0);
        let before = inner.rules.len();
        inner.rules.retain(|rule| rule.id != id);
        inner.rules.len() < before
    }

    /// Removes every rule.
    pub fn clear(&self) {
        locked(&self.0).rules.clear();
    }

    /// How often a rule has struck; 0 when it is gone.
    pub fn fired(&self, id: u64) -> u64 {
        locked(&self.0).rules.iter().find(|rule| rule.id == id).map_or(0, |rule| rule.fired)
    }

    /// Counts a request and returns what strikes it, in the order the rules were added.
    pub(crate) fn strike(&self, target: &str) -> Vec<FaultKind> {
        let inner = &mut *locked(&self.0);
        let mut kinds = Vec::new();
        for rule in inner.rules.iter_mut().filter(|rule| target.starts_with(&rule.fault.route)) {
            rule.seen += 1;
            let strikes = match rule.fault.when {
                When::Always => true,
                When::Nth(n) => rule.seen == n,
                When::Every(n) => n > 0 && rule.seen % n == 0,
                When::Times(n) => rule.seen <= n,
                When::Probability(p) => inner.rng.chance(p),
            };
            if strikes {
                rule.fired += 1;
                kinds.push(rule.fault.kind.clone());
            }
        }
        kinds
    }
}

impl Fault {
    /// A rule.
    pub fn new(route: impl Into<String>, when: When, kind: FaultKind) -> Self {
        Self { route: route.into(), when, kind }
    }

    /// Reads a rule such as `{"route":"/api","when":{"times":2},"kind":{"status":{"code":429}}}`.
    ///
    /// Names are those of the variants in snake case, durations are `delay_ms`; `route` may be
    /// left out, and `when` too (always).
    pub fn from_json(json: &Value) -> Result<Self, String> {
        let route = json.get("route").and_then(Value::as_str).unwrap_or_default();
        let when = json.get("when").map_or(Ok(When::Always), When::from_json)?;
        let kind = json.get("kind").ok_or("a fault needs a kind")?;
        Ok(Self::new(route, when, FaultKind::from_json(kind)?))
    }
}

impl When {
    fn from_json(json: &Value) -> Result<Self, String> {
        let (name, value) = variant(json)?;
        let count = || value.as_u64().ok_or_else(|| format!("{name} needs a whole number"));
        match name {
            "always" => Ok(Self::Always),
            "nth" => Ok(Self::Nth(count()?)),
            "every" => Ok(Self::Every(count()?)),
            "times" => Ok(Self::Times(count()?)),
            "probability" => {
                value.as_f64().map(Self::Probability).ok_or("probability needs a number".into())
            }
            _ => Err(format!("unknown when: {name}")),
        }
    }
}

impl FaultKind {
    fn from_json(json: &Value) -> Result<Self, String> {
        let (name, value) = variant(json)?;
        let number = |key: &str| {
            value.get(key).and_then(Value::as_i64).ok_or_else(|| format!("{name} needs {key}"))
        };
        let unsigned = |key: &str| {
            let value = value.get(key).and_then(Value::as_u64);
            value.ok_or_else(|| format!("{name} needs {key}"))
        };
        let code = |key| {
            let code = u16::try_from(unsigned(key)?).ok().filter(|code| (100..600).contains(code));
            code.ok_or_else(|| format!("{name} needs an HTTP status as {key}"))
        };
        let delay = || unsigned("delay_ms").map(Duration::from_millis);
        let text = |key: &str| value.get(key).filter(|value| !value.is_null()).map(plain);
        Ok(match name {
            "status" => Self::Status {
                code: code("code")?,
                retry_after: text("retry_after"),
                body: text("body"),
            },
            "reset" => Self::Reset,
            "close_mid_body" => Self::CloseMidBody,
            "truncated_json" => Self::TruncatedJson,
            "not_json" => Self::NotJson,
            "html_error" => Self::HtmlError { code: code("code")? },
            "slow" => Self::Slow { delay: delay()? },
            "drip" => Self::Drip { chunk: unsigned("chunk")?.max(1) as usize, delay: delay()? },
            "hang" => Self::Hang,
            "repeat_page" => Self::RepeatPage,
            "repeat_records" => Self::RepeatRecords,
            "endless_token" => Self::EndlessToken,
            "garbage_utf8" => Self::GarbageUtf8,
            "date_skew" => Self::DateSkew { secs: number("secs")? },
            "wrong_length" => Self::WrongLength,
            "gzip_broken" => Self::GzipBroken,
            _ => return Err(format!("unknown kind: {name}")),
        })
    }
}

/// A variant is its name, or an object of its name and its content.
fn variant(json: &Value) -> Result<(&str, &Value), String> {
    match json {
        Value::String(name) => Ok((name, &Value::Null)),
        Value::Object(map) if map.len() == 1 => {
            let pair = map.iter().next().map(|(name, value)| (name.as_str(), value));
            pair.ok_or_else(|| "an empty object".to_string())
        }
        _ => Err(format!("expected a name or an object of one name, got {json}")),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strikes(when: When, requests: usize) -> Vec<bool> {
        let faults = Faults::new(1);
        faults.add(Fault::new("/a", when, FaultKind::Reset));
        (0..requests).map(|_| !faults.strike("/a/b?c").is_empty()).collect()
    }

    #[test]
    fn rules_count_the_requests_on_their_route() {
        assert_eq!(strikes(When::Always, 3), [true; 3]);
        assert_eq!(strikes(When::Nth(2), 3), [false, true, false]);
        assert_eq!(strikes(When::Every(2), 4), [false, true, false, true]);
        assert_eq!(strikes(When::Times(2), 3), [true, true, false]);
        let half = strikes(When::Probability(0.5), 1000).iter().filter(|hit| **hit).count();
        assert!((400..600).contains(&half));

        let faults = Faults::new(1);
        let id = faults.add(Fault::new("/a?type=x", When::Always, FaultKind::Hang));
        assert!(faults.strike("/a?type=y").is_empty());
        assert_eq!(faults.strike("/a?type=x&limit=1"), [FaultKind::Hang]);
        assert_eq!(faults.fired(id), 1);
        assert!(faults.remove(id) && !faults.remove(id));
    }

    #[test]
    fn rules_read_from_json() {
        let read = |text: &str| Fault::from_json(&serde_json::from_str(text).unwrap());
        let status = FaultKind::Status { code: 429, retry_after: Some("2".into()), body: None };
        assert_eq!(
            read(
                r#"{"route":"/api","when":{"times":2},
                    "kind":{"status":{"code":429,"retry_after":2}}}"#
            ),
            Ok(Fault::new("/api", When::Times(2), status))
        );
        let drip = FaultKind::Drip { chunk: 7, delay: Duration::from_millis(5) };
        assert_eq!(
            read(r#"{"kind":{"drip":{"chunk":7,"delay_ms":5}}}"#),
            Ok(Fault::new("", When::Always, drip))
        );
        assert!(read(r#"{"kind":"nonsense"}"#).is_err());
        assert!(read(r#"{"when":"always"}"#).is_err());
        assert!(read(r#"{"kind":{"status":{"code":42}}}"#).is_err());
    }
}
