//! Workload Security: the inventory of computers, searched in pages by identifier or listed whole.
//!
//! What the vendor leaves open is a choice in [`WorkloadConfig`].

mod record;
mod search;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fault::FaultKind;
use crate::http::{Request, Response};
use crate::inventory::{Inventory, Mutated, Mutation, Sweep, Version};
use crate::json::{pieces, push_string};
use crate::ledger::{Counts, LedgerRecord};
use crate::locked;
use crate::rate::{Limiter, Rate, RateRule, retry_after};
use crate::rng::mix;
use crate::server::{Answer, Api, RowId};
use record::{Parts, Records};
use search::Search;

/// What Workload Security holds and how it behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadConfig {
    /// The key.
    pub api_key: String,
    /// How the key may be sent.
    pub key_style: KeyStyle,
    /// What stands before `/computers`; an on-premises manager may have another path.
    pub base_path: String,
    /// Computers at the start, the samples among them.
    pub computers: usize,
    /// Whether the reference's sample records are among them, word for word.
    pub seed_samples: bool,
    /// About how large a record is with every part in it.
    pub computer_bytes: usize,
    /// The most computers in an answer to a search; a larger `maxItems` is lowered to it.
    pub max_items_max: usize,
    /// Requests let through in a window of the rate limit; `None` for no limit. Refused requests
    /// do not count.
    pub rate_limit: Option<usize>,
    /// The length of that window.
    pub rate_window: Duration,
    /// Whether a 429 says when to come again.
    pub retry_after: bool,
}

/// How a key may be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyStyle {
    /// `api-secret-key: KEY`
    Secret,
    /// `Authorization: ApiKey KEY`
    ApiKey,
    /// Either way.
    #[default]
    Both,
}

impl Default for WorkloadConfig {
    fn default() -> Self {
        Self {
            api_key: "1:sim-workload-key=".to_string(),
            key_style: KeyStyle::Both,
            base_path: "/api".to_string(),
            computers: 100,
            seed_samples: true,
            computer_bytes: 8 * 1024,
            max_items_max: 5000,
            rate_limit: None,
            rate_window: Duration::from_secs(60),
            retry_after: false,
        }
    }
}

/// The API, with its inventory.
pub(crate) struct WorkloadSecurity {
    config: WorkloadConfig,
    seed: u64,
    records: Arc<Records>,
    computers: Mutex<Computers>,
    limiter: Limiter,
}

/// The inventory, and the sets of parts that were asked for so far: each is a form of the records.
struct Computers {
    inventory: Inventory,
    forms: Vec<Parts>,
}

const CONTENT_TYPE: &str = "computers";

/// A request that is refused: its status and the message.
type Refusal = (u16, String);

impl Api for WorkloadSecurity {
    fn owns(&self, path: &str) -> bool {
        path.strip_prefix(&self.config.base_path).is_some_and(|rest| rest.starts_with('/'))
    }

    fn answer(&self, request: &Request, now_ms: i64, fault: Option<&FaultKind>) -> Answer {
        if let Err(response) = self.admit(request, now_ms) {
            return response.into();
        }
        let is_read = fault.is_none_or(FaultKind::is_intact);
        let answer = self.search(request).and_then(|search| {
            let parts = Parts::read(&request.params().map_err(|name| bad(&name))?)
                .map_err(|value| bad(&format!("expand {value}")))?;
            Ok(self.list(request, &search, parts, now_ms, is_read))
        });
        answer.unwrap_or_else(|(status, message)| failure(status, &message).into())
    }

    fn refusal(&self, status: u16) -> Response {
        match status {
            400 => failure(400, "Invalid SearchFilter"),
            401 => failure(401, "Authentication required"),
            403 => failure(403, "User unauthenticated."),
            404 => failure(404, "Not found"),
            429 => failure(429, "Too many API requests"),
            500 => failure(500, "Internal server error"),
            503 => failure(503, "Service unavailable"),
            _ => Response::empty(status),
        }
    }

    fn mark_shown(&self, rows: &[RowId]) {
        let mut computers = locked(&self.computers);
        rows.iter().for_each(|row| computers.inventory.mark(row.stream, row.at, true));
    }

    fn unmark_shown(&self, rows: &[RowId]) {
        let mut computers = locked(&self.computers);
        rows.iter().for_each(|row| computers.inventory.mark(row.stream, row.at, false));
    }

    fn count(&self, _now_ms: i64, counts: &mut Counts) {
        counts.add(CONTENT_TYPE, locked(&self.computers).inventory.count());
    }

    fn visit(&self, _now_ms: i64, visit: &mut dyn FnMut(&LedgerRecord)) {
        let rows = locked(&self.computers).inventory.rows();
        self.visit_rows(rows, visit);
    }

    fn mutate(&self, now_ms: i64, content_type: &str, mutation: Mutation) -> Option<Mutated> {
        let name = |version: &Version| self.records.id(version.entity).to_string();
        let inventory = &mut locked(&self.computers).inventory;
        (content_type == CONTENT_TYPE).then(|| inventory.mutate(mutation, now_ms, name))
    }

    fn sweeps(&self) -> Vec<Sweep> {
        locked(&self.computers).inventory.sweeps().collect()
    }

    fn visit_sweep(&self, sweep: &Sweep, visit: &mut dyn FnMut(&LedgerRecord)) {
        if sweep.content_type == CONTENT_TYPE {
            let rows = locked(&self.computers).inventory.sweep_rows(sweep);
            self.visit_rows(rows, visit);
        }
    }

    fn rate(&self) -> Option<Rate> {
        Some(self.limiter.rate("workload_security"))
    }
}

impl WorkloadSecurity {
    pub(crate) fn new(mut config: WorkloadConfig, seed: u64, now_ms: i64) -> Self {
        config.base_path = config.base_path.trim_end_matches('/').to_string();
        let records = Arc::new(Records::new(seed, &config));
        let inventory = Inventory::new(CONTENT_TYPE, config.computers, seed, now_ms);
        // Until a request says otherwise, the ledger tells records as a bare request gets them.
        let computers = Mutex::new(Computers { inventory, forms: vec![Parts::ALL] });
        let limiter = Limiter::new(config.rate_limit, config.rate_window, RateRule::Sliding);
        Self { config, seed, records, computers, limiter }
    }

    /// Credentials come first, then the rate limit, then the version of the API.
    fn admit(&self, request: &Request, now_ms: i64) -> Result<(), Response> {
        let style = self.config.key_style;
        let secret = request.header("api-secret-key").filter(|_| style != KeyStyle::ApiKey);
        let bearer = request.header("authorization").filter(|_| style != KeyStyle::Secret);
        let bearer = bearer.and_then(|value| value.split_once(' '));
        let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("apikey"));
        match secret.or(bearer.map(|(_, key)| key.trim())) {
            None => return Err(self.refusal(401)),
            Some(key) if key != self.config.api_key => return Err(self.refusal(403)),
            Some(_) => {}
        }
        self.limiter.take(now_ms).map_err(|wait_ms| {
            let mut response = self.refusal(429);
            response.headers.extend(self.config.retry_after.then(|| retry_after(wait_ms)));
            response
        })?;
        match request.header("api-version") {
            Some("v1") => Ok(()),
            _ => Err(failure(400, "The api-version header is missing or invalid")),
        }
    }

    /// Which computers are asked for, by path and method.
    fn search(&self, request: &Request) -> Result<Search, Refusal> {
        let path = request.path.strip_prefix(&self.config.base_path).unwrap_or_default();
        match (request.method.as_str(), path) {
            ("GET", "/computers") => Ok(Search::all()),
            ("POST", "/computers/search") => {
                let search = Search::read(&request.body, self.config.max_items_max);
                search.ok_or_else(|| (400, "Invalid SearchFilter".to_string()))
            }
            (_, "/computers" | "/computers/search") => Err((405, "Method not allowed".to_string())),
            _ => Err((404, "Not found".to_string())),
        }
    }

    /// Answers with the computers; their text is made while it is sent.
    fn list(
        &self,
        request: &Request,
        search: &Search,
        parts: Parts,
        now_ms: i64,
        is_read: bool,
    ) -> Answer {
        let computers = &mut *locked(&self.computers);
        let inventory = &mut computers.inventory;
        let id = |at: &u32| self.records.id(inventory.version(*at).entity);
        let mut places: Vec<u32> = inventory.current().iter().copied().collect();
        places.retain(|at| search.matches(id(at)));
        match search.is_sorted {
            true => places.sort_by_key(id),
            // Any order but that of the identifiers, and always the same.
            false => places.sort_by_key(|at| mix(self.seed ^ id(at))),
        }
        places.truncate(search.max_items);
        let known = computers.forms.iter().position(|form| *form == parts);
        let form = known.unwrap_or_else(|| {
            computers.forms.push(parts);
            computers.forms.len() - 1
        });
        let places = Arc::new(places);
        if is_read {
            let query = match request.body.is_empty() {
                true => request.query.clone(),
                false => String::from_utf8_lossy(&request.body).into_owned(),
            };
            inventory.note_sweep(form, Arc::clone(&places), &query, now_ms);
        }
        let versions: Vec<_> = places.iter().map(|at| inventory.version(*at)).collect();
        let records = Arc::clone(&self.records);
        let body = pieces("{\"computers\":[", "]}", versions.len(), move |nth, out| {
            records.write(out, &versions[nth], parts);
        });
        let row = |at: &u32| RowId { stream: form, at: *at as usize };
        let rows = places.iter().map(row).collect();
        Answer { response: Response::stream(body), token: search.resume.clone(), rows }
    }

    fn visit_rows(&self, rows: Vec<crate::inventory::Row>, visit: &mut dyn FnMut(&LedgerRecord)) {
        let forms = locked(&self.computers).forms.clone();
        for row in rows {
            let mut text = String::new();
            self.records.write(&mut text, &row.version, forms[row.form]);
            visit(&row.record(CONTENT_TYPE, text));
        }
    }
}

fn bad(what: &str) -> Refusal {
    (400, format!("Invalid parameter: {what}"))
}

fn failure(status: u16, message: &str) -> Response {
    let mut body = String::from("{\"message\":");
    push_string(&mut body, message, false);
    body.push('}');
    Response::json(status, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_those_of_the_reference() {
        let api = WorkloadSecurity::new(WorkloadConfig::default(), 1, 0);
        let fixture = include_str!("../fixtures/cloudone-errors.json");
        let fixture: serde_json::Value = serde_json::from_str(fixture).unwrap();
        for (status, expected) in fixture.as_object().unwrap() {
            let response = api.refusal(status.parse().unwrap());
            let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            assert_eq!(&body, expected);
        }
    }
}
