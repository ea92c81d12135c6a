//! Apex Central: inventories of agents and servers, each listed whole, behind a signed token.
//!
//! What the vendor leaves open is a choice in [`ApexConfig`].

mod jwt;
mod record;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::fault::FaultKind;
use crate::http::{Request, Response};
use crate::inventory::{Inventory, Mutated, Mutation, Sweep};
use crate::json::{pieces, push_string};
use crate::ledger::{Counts, LedgerRecord};
use crate::locked;
use crate::server::{Answer, Api, RowId};
use jwt::Verifier;
use record::{Kind, Records};

/// What Apex Central holds and how it behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct ApexConfig {
    /// The Application ID, the token's `appid`.
    pub application_id: String,
    /// The key of the token's signature.
    pub api_key: String,
    /// Agents at the start, the samples among them.
    pub agents: usize,
    /// Servers at the start, the samples among them.
    pub servers: usize,
    /// Whether the reference's sample records are among them, word for word.
    pub seed_samples: bool,
    /// How old a token may be, by its `iat`: the application's communication time-out.
    pub timeout: Duration,
    /// How far in the future a token's `iat` may be.
    pub future_tolerance: Duration,
    /// Whether a token that was accepted once is refused from then on. Two tokens for one target
    /// with the same `iat` are the same token, so a client that asks twice in a second needs a
    /// fraction in it.
    pub refuse_replays: bool,
}

impl Default for ApexConfig {
    fn default() -> Self {
        Self {
            application_id: "11111111-2222-3333-4444-555555555555".to_string(),
            api_key: "0A1B2C3D-4E5F-6071-8293-A4B5C6D7E8F9".to_string(),
            agents: 200,
            servers: 20,
            seed_samples: true,
            timeout: Duration::from_secs(120),
            future_tolerance: Duration::from_secs(120),
            refuse_replays: true,
        }
    }
}

/// The API, with its inventories.
pub(crate) struct ApexCentral {
    verifier: Verifier,
    records: Arc<Records>,
    inventories: [Mutex<Inventory>; Kind::ALL.len()],
}

/// The parameters that select by an exact match, and the member that they are compared with. A
/// member with a list matches by any of its parts.
const FILTERS: [(&str, &str); 6] = [
    ("entity_id", "entity_id"),
    ("ip_address", "ip_address_list"),
    ("mac_address", "mac_address_list"),
    ("host_name", "host_name"),
    ("product", "product"),
    ("managing_server_id", "managing_server_id"),
];

impl Api for ApexCentral {
    fn owns(&self, path: &str) -> bool {
        path.starts_with("/WebApp/API/")
    }

    fn answer(&self, request: &Request, now_ms: i64, fault: Option<&FaultKind>) -> Answer {
        let is_read = fault.is_none_or(FaultKind::is_intact);
        if let Err(reason) = self.verifier.check(request, now_ms, is_read) {
            return failure(401, &format!("Authorization failed: {reason}")).into();
        }
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.path() == request.path) else {
            return failure(404, "Resource not found").into();
        };
        if request.method != "GET" {
            return failure(405, "Method not allowed").into();
        }
        let Ok(params) = request.params() else {
            return failure(400, "Invalid parameter").into();
        };
        self.list(kind, request, &params, now_ms, is_read)
    }

    /// A 200 is a failure too, by the result code in it.
    fn refusal(&self, status: u16) -> Response {
        match status {
            200 => failure(200, "Unknown error"),
            400 => failure(400, "Invalid parameter"),
            401 => failure(401, "Authorization failed"),
            500 => failure(500, "Unknown error"),
            _ => Response::empty(status),
        }
    }

    fn mark_shown(&self, rows: &[RowId]) {
        self.mark(rows, true);
    }

    fn unmark_shown(&self, rows: &[RowId]) {
        self.mark(rows, false);
    }

    fn count(&self, _now_ms: i64, counts: &mut Counts) {
        for kind in Kind::ALL {
            counts.add(kind.content_type(), self.inventory(kind).count());
        }
    }

    fn visit(&self, _now_ms: i64, visit: &mut dyn FnMut(&LedgerRecord)) {
        for kind in Kind::ALL {
            let rows = self.inventory(kind).rows();
            for row in rows {
                visit(&row.record(kind.content_type(), self.records.text(kind, &row.version)));
            }
        }
    }

    fn mutate(&self, now_ms: i64, content_type: &str, mutation: Mutation) -> Option<Mutated> {
        let kind = Kind::of(content_type)?;
        let name = |version: &_| self.records.entity_id(kind, version);
        Some(self.inventory(kind).mutate(mutation, now_ms, name))
    }

    fn sweeps(&self) -> Vec<Sweep> {
        let sweeps = |kind: Kind| self.inventory(kind).sweeps().collect::<Vec<_>>();
        Kind::ALL.into_iter().flat_map(sweeps).collect()
    }

    fn visit_sweep(&self, sweep: &Sweep, visit: &mut dyn FnMut(&LedgerRecord)) {
        let Some(kind) = Kind::of(&sweep.content_type) else { return };
        let rows = self.inventory(kind).sweep_rows(sweep);
        for row in rows {
            visit(&row.record(kind.content_type(), self.records.text(kind, &row.version)));
        }
    }
}

impl ApexCentral {
    pub(crate) fn new(config: ApexConfig, seed: u64, now_ms: i64) -> Self {
        let inventories = Kind::ALL.map(|kind| {
            let size = if kind == Kind::Agents { config.agents } else { config.servers };
            let seed = seed ^ kind as u64;
            Mutex::new(Inventory::new(kind.content_type(), size, seed, now_ms))
        });
        let records = Arc::new(Records::new(seed, config.seed_samples, config.servers));
        Self { verifier: Verifier::new(&config), records, inventories }
    }

    fn inventory(&self, kind: Kind) -> MutexGuard<'_, Inventory> {
        locked(&self.inventories[kind as usize])
    }

    fn mark(&self, rows: &[RowId], is_shown: bool) {
        for kind in Kind::ALL {
            let mut inventory = self.inventory(kind);
            let own = rows.iter().filter(|row| row.stream == kind as usize);
            own.for_each(|row| inventory.mark(0, row.at, is_shown));
        }
    }

    /// Lists the inventory as it is now; the text is made while it is sent.
    fn list(
        &self,
        kind: Kind,
        request: &Request,
        params: &[(String, String)],
        now_ms: i64,
        is_read: bool,
    ) -> Answer {
        let mut inventory = self.inventory(kind);
        let mut places = inventory.current();
        if params.iter().any(|(name, _)| FILTERS.iter().any(|(known, _)| known == name)) {
            let is_wanted = |at: &u32| {
                let text = self.records.text(kind, &inventory.version(*at));
                matches(&text, params)
            };
            places = Arc::new(places.iter().copied().filter(is_wanted).collect());
        }
        if is_read {
            inventory.note_sweep(0, Arc::clone(&places), &request.query, now_ms);
        }
        let versions: Vec<_> = places.iter().map(|at| inventory.version(*at)).collect();
        let records = Arc::clone(&self.records);
        let before =
            r#"{"result_code":1,"result_description":"Operation successful","result_content":["#;
        let body = pieces(before, "]}", versions.len(), move |nth, out| {
            records.write(out, kind, &versions[nth]);
        });
        let row = |at: &u32| RowId { stream: kind as usize, at: *at as usize };
        let rows = places.iter().map(row).collect();
        Answer { response: Response::stream(body), token: None, rows }
    }
}

fn matches(text: &str, params: &[(String, String)]) -> bool {
    let record: serde_json::Value = serde_json::from_str(text).expect("records are JSON");
    params.iter().all(|(name, wanted)| {
        let Some((_, member)) = FILTERS.iter().find(|(known, _)| known == name) else {
            return true;
        };
        let value = record[member].as_str().unwrap_or_default();
        match member.ends_with("_list") {
            true => value.split(',').any(|part| part == wanted),
            false => value == wanted,
        }
    })
}

/// Every failure has the envelope, with a text where the list would be.
fn failure(status: u16, description: &str) -> Response {
    let mut body = String::from("{\"result_code\":-1,\"result_description\":");
    push_string(&mut body, description, false);
    body.push_str(",\"result_content\":\"\"}");
    Response::json(status, body)
}
