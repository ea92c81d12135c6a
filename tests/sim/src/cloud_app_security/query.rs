//! Reading a request's parameters, and refusals in the shape of the vendor's.

use super::CloudAppConfig;
use super::vocabulary::stream;
use crate::http::{Request, Response};
use crate::json::push_string;
use crate::rng::mix;
use crate::window;

/// What is asked for, with defaults filled in.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) stream: usize,
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) limit: usize,
    pub(crate) page_id: Option<String>,
    /// The window as it was given: the defaults move with time, so links are bound to this.
    given: (Option<i64>, Option<i64>),
}

/// A request that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    Parameter(String),
    Credentials,
    Forbidden,
    Resource,
    Method,
    /// With the header that says when to come again, if it is to be sent.
    TooMany(Option<(&'static str, String)>),
    Internal,
    Unavailable,
}

const PATHS: [&str; 2] = ["/v1/siem/security_events", "/siem/v1/security_events"];
const NAMES: [&str; 7] = ["service", "event", "start", "end", "limit", "format", "page_id"];
const DEFAULT_LIMIT: usize = 500;

impl Query {
    pub(crate) fn read(
        request: &Request,
        config: &CloudAppConfig,
        now_ms: i64,
    ) -> Result<Self, Refusal> {
        if !PATHS.contains(&request.path.as_str()) {
            return Err(Refusal::Resource);
        }
        if request.method != "GET" {
            return Err(Refusal::Method);
        }
        let params = Params(request.params().map_err(Refusal::Parameter)?);
        params.check_repeats()?;
        let service = params.required("service")?;
        let event = params.required("event")?;
        let stream = stream(service, event).ok_or_else(|| bad("service or event"))?;
        let given = (params.time("start")?, params.time("end")?);
        let span = window::bounds(given, config.horizon, config.old_start, now_ms);
        let (start_ms, end_ms) = span.ok_or_else(|| bad("start or end"))?;
        // Records as CEF text are another format with its own rules, and not simulated.
        if params.get("format").is_some() {
            return Err(bad("format"));
        }
        let limit = params.limit()?.min(config.page_limit_max.max(1));
        let page_id = params.get("page_id").map(str::to_string);
        Ok(Self { stream, start_ms, end_ms, limit, page_id, given })
    }

    /// A number that tells whether a link goes with this query.
    pub(crate) fn fingerprint(&self) -> u64 {
        let number = |time: Option<i64>| time.map_or(u64::MAX, |time| time as u64);
        let parts =
            [self.stream as u64, number(self.given.0), number(self.given.1), self.limit as u64];
        parts.iter().fold(0x0063_6173, |sum, part| mix(sum ^ part))
    }
}

fn bad(name: &str) -> Refusal {
    Refusal::Parameter(name.to_string())
}

/// Decoded parameters; an unknown one is ignored. Names may have a space before them, since some of
/// the vendor's own links do.
struct Params(Vec<(String, String)>);

impl Params {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.as_str())
    }

    /// Whoever follows a link and adds the parameters again repeats them.
    fn check_repeats(&self) -> Result<(), Refusal> {
        let count = |name: &str| self.0.iter().filter(|(key, _)| key.trim() == name).count();
        match NAMES.iter().find(|name| count(name) > 1) {
            Some(name) => Err(bad(name)),
            None => Ok(()),
        }
    }

    fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| bad(name))
    }

    fn limit(&self) -> Result<usize, Refusal> {
        let Some(text) = self.get("limit") else { return Ok(DEFAULT_LIMIT) };
        text.parse().ok().filter(|limit| *limit > 0).ok_or_else(|| bad("limit"))
    }

    fn time(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        window::parse_time(text).map(Some).ok_or_else(|| bad(name))
    }
}

impl Refusal {
    /// The refusal for a status, if there is one.
    pub(crate) fn of_status(status: u16) -> Option<Self> {
        match status {
            400 => Some(bad("request")),
            401 => Some(Self::Credentials),
            403 => Some(Self::Forbidden),
            404 => Some(Self::Resource),
            405 => Some(Self::Method),
            429 => Some(Self::TooMany(None)),
            500 => Some(Self::Internal),
            503 => Some(Self::Unavailable),
            _ => None,
        }
    }

    /// Of the codes, only the one of 429 is known; the others follow its pattern.
    pub(crate) fn response(&self, trace: &str) -> Response {
        let (status, message) = match self {
            Self::Parameter(name) => (400, format!("Invalid parameter: {name}.")),
            Self::Credentials => (401, "Authentication token not found.".to_string()),
            Self::Forbidden => (403, "Access denied.".to_string()),
            Self::Resource => (404, "Resource not found.".to_string()),
            Self::Method => (405, "Method not allowed.".to_string()),
            Self::TooMany(_) => (429, "Maximum allowed requests exceeded.".to_string()),
            Self::Internal => (500, "Internal server error.".to_string()),
            Self::Unavailable => (503, "Service unavailable.".to_string()),
        };
        let mut body = format!("{{\"code\":-{status}0001,\"traceId\":");
        push_string(&mut body, trace, false);
        body.push_str(",\"msg\":");
        push_string(&mut body, &message, false);
        body.push('}');
        let mut response = Response::json(status, body);
        if let Self::TooMany(header) = self {
            response.headers.extend(header.clone());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_those_of_the_reference() {
        let fixture = include_str!("../../fixtures/cas-errors.json");
        let fixture: serde_json::Value = serde_json::from_str(fixture).unwrap();
        for (status, expected) in fixture.as_object().unwrap() {
            let status = status.parse().unwrap();
            let trace = expected["traceId"].as_str().unwrap();
            let response = Refusal::of_status(status).unwrap().response(trace);
            let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            assert_eq!((response.status, &body), (status, expected));
        }
    }
}
