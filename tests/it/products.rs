//! The vendor's products beside Email Security, from their APIs to the host's output: what the
//! simulator showed is there, in the envelope and under the tag that are promised.

mod account;
mod apex;
mod changes;
mod cloud_app;
mod inventories;
mod together;
mod workload;

use trendmicro_sim::{ApexConfig, FaultKind, Sim};

use crate::support::{Config, KEY, Place, Section, config};

/// What every stanza here gives as `tag_format`; each event is held against it.
const TAG_FORMAT: &str = "tm.{connector}.{content_type}";

/// A stanza that collects from one product of `sim`, with its state in `place`.
fn stanza(sim: &Sim, place: &Place, connector: &str) -> Section {
    let section = common(sim, place).set("connector", connector);
    match connector {
        "cloud_app_security" => section
            .set("services", "all")
            .set("rate_limit", "none")
            .set("interval", "5s")
            .set("lookback", "1h"),
        "apex_central" => section.set("application_id", &ApexConfig::default().application_id),
        _ => section,
    }
}

/// What all stanzas have.
fn common(sim: &Sim, place: &Place) -> Section {
    Section::default()
        .set("name", "trendmicro")
        .set("tag", "tm")
        .set("tag_format", TAG_FORMAT)
        .set("base_url", sim.url())
        .set("api_key", KEY)
        .set("interval", "1h")
        .set("db", &place.text("state.db"))
}

/// A whole configuration around one stanza.
fn around(sim: &Sim, place: &Place, stanza: Section) -> Config {
    Config { inputs: vec![stanza], ..config(sim, place) }
}

fn status(code: u16, retry_after: Option<&str>) -> FaultKind {
    FaultKind::Status { code, retry_after: retry_after.map(str::to_owned), body: None }
}
