//! The simulator's own endpoints, for tests that run it as another process: numbers, records,
//! requests and faults. They need no credentials and no fault strikes them.

use std::io;
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::fault::Fault;
use crate::http::{LAST_CHUNK, Request, Response, chunk};
use crate::inventory::{Mutated, Mutation, Sweep};
use crate::json::{PIECE_BYTES, push_string};
use crate::ledger::{Count, Counts, LedgerRecord, RequestLog};
use crate::rate::Rate;
use crate::server::{Shared, write_all};

pub(crate) const PREFIX: &str = "/_sim/";

/// Answers one request; the connection ends with it.
pub(crate) fn answer(shared: &Shared, request: &Request, stream: &mut TcpStream) -> io::Result<()> {
    let resource = request.path.strip_prefix(PREFIX).unwrap_or_default();
    let response = match (request.method.as_str(), resource) {
        ("GET", "ledger") => return send_ledger(shared, stream),
        ("GET", "counts") => ok(&counts_json(&counts(shared))),
        ("GET", "requests") => {
            let requests = shared.requests.all();
            ok(&Value::Array(requests.iter().map(request_json).collect()))
        }
        ("GET", "rates") => {
            let rates = shared.apis.iter().filter_map(|api| api.rate());
            ok(&Value::Array(rates.map(|rate| rate_json(&rate)).collect()))
        }
        ("GET", "sweeps") => {
            let sweeps = shared.apis.iter().flat_map(|api| api.sweeps());
            ok(&Value::Array(sweeps.map(|sweep| sweep_json(&sweep)).collect()))
        }
        ("POST", "mutate") => mutate_inventory(shared, &request.body),
        ("POST", "faults") => add_fault(shared, &request.body),
        ("DELETE", "faults") => {
            shared.faults.clear();
            Response::empty(204)
        }
        ("POST", "stop_live") => {
            stop_live(shared);
            Response::empty(204)
        }
        _ => Response::new(404, "text/plain", "no such control"),
    };
    let mut bytes = response.head(response.body.len(), shared.clock.now(), false);
    bytes.extend(&response.body);
    write_all(stream, &bytes, &shared.stop)
}

/// The numbers of every API.
pub(crate) fn counts(shared: &Shared) -> Counts {
    let mut counts = Counts::default();
    let now_ms = shared.clock.now_ms();
    shared.apis.iter().for_each(|api| api.count(now_ms, &mut counts));
    counts
}

/// Shows every visible record of every API.
pub(crate) fn visit(shared: &Shared, visit: &mut dyn FnMut(&LedgerRecord)) {
    let now_ms = shared.clock.now_ms();
    shared.apis.iter().for_each(|api| api.visit(now_ms, visit));
}

/// Ends the generation of live records everywhere.
pub(crate) fn stop_live(shared: &Shared) {
    let now_ms = shared.clock.now_ms();
    shared.apis.iter().for_each(|api| api.stop_live(now_ms));
}

fn ok(json: &Value) -> Response {
    Response::json(200, json.to_string())
}

fn add_fault(shared: &Shared, body: &[u8]) -> Response {
    let parsed = serde_json::from_slice::<Value>(body).map_err(|error| error.to_string());
    match parsed.and_then(|json| Fault::from_json(&json)) {
        Ok(fault) => ok(&json!({ "id": shared.faults.add(fault) })),
        Err(reason) => Response::json(400, json!({ "error": reason }).to_string()),
    }
}

/// Lets entities of an inventory come, go and change.
pub(crate) fn mutate(shared: &Shared, content_type: &str, mutation: Mutation) -> Option<Mutated> {
    let now_ms = shared.clock.now_ms();
    shared.apis.iter().find_map(|api| api.mutate(now_ms, content_type, mutation))
}

fn mutate_inventory(shared: &Shared, body: &[u8]) -> Response {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let count = |name: &str| json[name].as_u64().unwrap_or(0) as usize;
    let mutation = Mutation { add: count("add"), remove: count("remove"), change: count("change") };
    match mutate(shared, json["content_type"].as_str().unwrap_or_default(), mutation) {
        Some(Mutated { added, removed, changed }) => {
            ok(&json!({ "added": added, "removed": removed, "changed": changed }))
        }
        None => Response::json(400, json!({ "error": "no such inventory" }).to_string()),
    }
}

fn rate_json(rate: &Rate) -> Value {
    json!({
        "product": rate.product,
        "requests": rate.requests,
        "violations": rate.violations,
        "max_in_window": rate.max_in_window,
    })
}

fn sweep_json(sweep: &Sweep) -> Value {
    json!({
        "content_type": sweep.content_type,
        "at": sweep.at.to_rfc3339(),
        "query": sweep.query,
        "entities": sweep.entities,
    })
}

fn counts_json(counts: &Counts) -> Value {
    let numbers = |count: &Count| {
        json!({
            "visible": count.visible,
            "pending": count.pending,
            "shown_distinct": count.shown_distinct,
            "shown_total": count.shown_total,
        })
    };
    let total = Count {
        visible: counts.visible,
        pending: counts.pending,
        shown_distinct: counts.shown_distinct,
        shown_total: counts.shown_total,
    };
    let mut json = numbers(&total);
    let by_type = counts.by_type.iter().map(|(name, count)| (name.clone(), numbers(count)));
    json["by_type"] = Value::Object(by_type.collect());
    json
}

fn request_json(request: &RequestLog) -> Value {
    json!({
        "at": request.at.to_rfc3339(),
        "route": request.route,
        "query": request.query,
        "status": request.status,
        "records": request.records,
        "token": request.token,
        "accept_gzip": request.accept_gzip,
    })
}

fn send_ledger(shared: &Shared, stream: &mut TcpStream) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\
                Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    write_all(stream, head.as_bytes(), &shared.stop)?;
    let (mut piece, mut result) = (String::new(), Ok(()));
    visit(shared, &mut |record| {
        push_ledger_line(&mut piece, record);
        if piece.len() >= PIECE_BYTES && result.is_ok() {
            result = write_all(stream, &chunk(piece.as_bytes()), &shared.stop);
            piece.clear();
        }
    });
    result?;
    if !piece.is_empty() {
        write_all(stream, &chunk(piece.as_bytes()), &shared.stop)?;
    }
    write_all(stream, LAST_CHUNK, &shared.stop)
}

/// The record goes in as the text that was sent, so numbers keep their digits.
fn push_ledger_line(out: &mut String, record: &LedgerRecord) {
    out.push_str("{\"content_type\":");
    push_string(out, &record.content_type, false);
    let (gen_time, visible_at) = (record.gen_time.to_rfc3339(), record.visible_at.to_rfc3339());
    out.push_str(&format!(
        ",\"gen_time\":\"{gen_time}\",\"visible_at\":\"{visible_at}\",\"shown\":{},\"record\":{}}}\n",
        record.shown, record.json
    ));
}
