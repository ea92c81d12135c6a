//! Reading a request's parameters, and the refusals of the vendor's table.

use super::EmailConfig;
use super::mail::Kind;
use super::vocabulary::EVENTS;
use crate::http::{Request, Response};
use crate::json::push_string;
use crate::rng::mix;
use crate::window;

/// What is asked for, with defaults filled in.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) kind: Kind,
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) limit: usize,
    pub(crate) token: Option<String>,
    pub(crate) domain: Option<String>,
    pub(crate) is_inbound: Option<bool>,
    pub(crate) event: Option<String>,
    /// The window as it was given: the defaults move with time, so tokens are bound to this.
    given: (Option<i64>, Option<i64>),
}

/// A request that is refused, in the words of the vendor's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    Method(String),
    Format,
    Illegal(String),
    Credentials,
    Forbidden,
    Resource,
    Internal,
}

const DEFAULT_LIMIT: usize = 500;

impl Query {
    pub(crate) fn read(
        request: &Request,
        config: &EmailConfig,
        now_ms: i64,
    ) -> Result<Self, Refusal> {
        let is_tracking = match request.path.as_str() {
            "/api/v1/log/mailtrackinglog" => true,
            "/api/v1/log/policyeventlog" => false,
            _ => return Err(Refusal::Resource),
        };
        if request.method != "GET" {
            return Err(Refusal::Method(request.method.clone()));
        }
        let params = Params(request.params().map_err(Refusal::Illegal)?);
        let kind = if is_tracking { params.kind()? } else { Kind::Policy };
        let given = (params.time("start")?, params.time("end")?);
        let span = window::bounds(given, config.horizon, config.old_start, now_ms);
        let (start_ms, end_ms) = span.ok_or(Refusal::Format)?;
        Ok(Self {
            kind,
            start_ms,
            end_ms,
            limit: params.limit()?.min(config.page_limit_max.max(1)),
            token: params.get("token").map(str::to_string),
            domain: params.word("domain", ".-")?.map(str::to_ascii_lowercase),
            is_inbound: params.choice("direction", &["out", "in"])?.map(|at| at == 1),
            // Mail tracking has no such parameter, and unknown parameters are ignored.
            event: match is_tracking {
                true => None,
                false => params.choice("event", &EVENTS)?.map(|at| EVENTS[at].to_string()),
            },
            given,
        })
    }

    /// A number that tells whether a token goes with this query.
    pub(crate) fn fingerprint(&self) -> u64 {
        let number = |time: Option<i64>| time.map_or(u64::MAX, |time| time as u64);
        let text = |text: &Option<String>| {
            text.iter()
                .flat_map(|text| text.bytes())
                .fold(1, |sum, byte| mix(sum ^ u64::from(byte)))
        };
        let parts = [
            self.kind as u64,
            number(self.given.0),
            number(self.given.1),
            self.limit as u64,
            text(&self.domain),
            text(&self.event),
            self.is_inbound.map_or(2, u64::from),
        ];
        parts.iter().fold(0x0071_7565_7279, |sum, part| mix(sum ^ part))
    }
}

/// Decoded parameters. An unknown one is ignored, of a repeated one the first counts.
struct Params(Vec<(String, String)>);

impl Params {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A value of letters, digits, underscores and the `others`.
    fn word(&self, name: &str, others: &str) -> Result<Option<&str>, Refusal> {
        let is_legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || others.contains(c);
        match self.get(name) {
            Some(value) if !value.chars().all(is_legal) => Err(Refusal::Illegal(name.to_string())),
            Some("") => Err(Refusal::Format),
            value => Ok(value),
        }
    }

    fn choice(&self, name: &str, choices: &[&str]) -> Result<Option<usize>, Refusal> {
        let Some(word) = self.word(name, "")? else { return Ok(None) };
        let at = choices.iter().position(|choice| *choice == word);
        at.map(Some).ok_or(Refusal::Format)
    }

    fn kind(&self) -> Result<Kind, Refusal> {
        let choices = [Kind::Accepted.content_type(), Kind::Blocked.content_type()];
        let at = self.choice("type", &choices)?.ok_or(Refusal::Format)?;
        Ok([Kind::Accepted, Kind::Blocked][at])
    }

    fn limit(&self) -> Result<usize, Refusal> {
        let Some(word) = self.word("limit", "-")? else { return Ok(DEFAULT_LIMIT) };
        word.parse().ok().filter(|limit| *limit > 0).ok_or(Refusal::Format)
    }

    /// `yyyy-mm-ddThh:mm:ss[.mmm]Z` and nothing else.
    fn time(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.word(name, ":.-")? else { return Ok(None) };
        window::parse_time(text).map(Some).ok_or(Refusal::Format)
    }
}

impl Refusal {
    /// The refusal that the table has for a status, if it has one.
    pub(crate) fn of_status(status: u16) -> Option<Self> {
        match status {
            400 => Some(Self::Format),
            401 => Some(Self::Credentials),
            403 => Some(Self::Forbidden),
            404 => Some(Self::Resource),
            500 => Some(Self::Internal),
            _ => None,
        }
    }

    pub(crate) fn response(&self, account: &str) -> Response {
        let (status, code, message) = match self {
            // A wrong method is a 400 here, not a 405.
            Self::Method(method) => {
                (400, "InvalidMethod", format!("The URL does not support the {method} method."))
            }
            Self::Format => (400, "InvalidFormat", "Invalid request format.".to_string()),
            Self::Illegal(param) => {
                (400, "IllegalCharacter", format!("Illegal characters found in {param}."))
            }
            Self::Credentials => (
                401,
                "AuthenticationMissingOrInvalid",
                "The credential is missing or invalid.".to_string(),
            ),
            Self::Forbidden => (
                403,
                "AuthorizationRequestDenied",
                format!("The {account} account is not authorized to perform this operation."),
            ),
            Self::Resource => (
                404,
                "ResourceNotAvailable",
                format!("The resource requested by the {account} account is not available."),
            ),
            Self::Internal => (500, "InternalServerError", "Internal server error.".to_string()),
        };
        let mut body = format!("{{\"code\":\"{code}\",\"message\":");
        push_string(&mut body, &message, false);
        body.push('}');
        Response::json(status, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_the_vendors_table() {
        let fixture = include_str!("../../fixtures/tmes-errors.json");
        let fixture: serde_json::Value = serde_json::from_str(fixture).unwrap();
        let method = Refusal::Method("${method}".into());
        let all = [
            method,
            Refusal::Format,
            Refusal::Illegal("${param}".into()),
            Refusal::Credentials,
            Refusal::Forbidden,
            Refusal::Resource,
            Refusal::Internal,
        ];
        let rows = fixture["table"].as_array().unwrap();
        assert_eq!(rows.len(), all.len());
        for (refusal, row) in all.iter().zip(rows) {
            let response = refusal.response("${account}");
            let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            assert_eq!(serde_json::json!([response.status, body["code"], body["message"]]), *row);
        }
    }
}
