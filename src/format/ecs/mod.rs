//! Elastic Common Schema.

mod apex_central;
mod cloud_app_security;
mod email_security;
mod workload_security;

use super::table::Fill::{ByChange, Fixed, Ours};
use super::table::{Changes, Literal, Ours as Known, Row};
use crate::config::EcsMapping;
use crate::record::Shape;

/// The version of the schema that the tables keep to.
pub const VERSION: &str = "9.4.0";

/// The tables of a stream, in the order in which their targets are written; `None` for a product
/// that this schema does not know.
#[must_use]
pub fn tables(mapping: EcsMapping, shape: &Shape) -> Option<Vec<&'static [Row]>> {
    let Shape { source, content_type, variant, .. } = *shape;
    Some(match source {
        "trendmicro_email_security" => email(mapping, content_type),
        "trendmicro_cloud_app_security" => detection(content_type, variant),
        "trendmicro_apexcentral" => {
            let own = match content_type {
                "servers" => apex_central::SERVERS,
                _ => apex_central::AGENTS,
            };
            vec![OURS, INVENTORY, own, apex_central::HOSTS]
        }
        "trendmicro_cloudone" => vec![OURS, INVENTORY, workload_security::COMPUTERS],
        _ => return None,
    })
}

fn email(mapping: EcsMapping, content_type: &str) -> Vec<&'static [Row]> {
    use email_security::{ACCEPTED, BLOCKED, MAIL, POLICY, REST, SEKOIA, SEKOIA_2023, TRACKING};
    match (mapping, content_type) {
        (EcsMapping::Sekoia, _) => vec![SEKOIA],
        (EcsMapping::Sekoia2023, _) => vec![SEKOIA_2023],
        (EcsMapping::Full, "policy_events") => vec![OURS, POLICY, MAIL, REST],
        (EcsMapping::Full, "blocked_traffic") => vec![OURS, TRACKING, BLOCKED, MAIL, REST],
        (EcsMapping::Full, _) => vec![OURS, TRACKING, ACCEPTED, MAIL, REST],
    }
}

fn detection(service: &str, event_type: &str) -> Vec<&'static [Row]> {
    use cloud_app_security::{
        DETECTION, FILE, IN_FILE, IN_MAIL, MAIL, MALWARE_IN_FILE, MALWARE_IN_MAIL,
    };
    let is_mail = matches!(service, "exchange" | "gmail" | "exchangeserver");
    match (is_mail, event_type) {
        (true, "dlp") => vec![OURS, IN_MAIL, MAIL, DETECTION],
        (true, _) => vec![OURS, MALWARE_IN_MAIL, MAIL, DETECTION],
        (false, "dlp") => vec![OURS, IN_FILE, FILE, DETECTION],
        (false, _) => vec![OURS, MALWARE_IN_FILE, FILE, DETECTION],
    }
}

/// What every event has.
const OURS: &[Row] = &[
    Row("message", Ours(Known::Original)),
    Row("ecs.version", Fixed(Literal::Text(VERSION))),
    Row("event.id", Ours(Known::EventId)),
    Row("event.module", Ours(Known::Source)),
    Row("event.dataset", Ours(Known::Dataset)),
    Row("event.ingested", Ours(Known::PollTime)),
    Row("observer.vendor", Fixed(Literal::Text("Trend Micro"))),
    Row("organization.name", Ours(Known::Tenant)),
    Row("labels.connector", Ours(Known::Connector)),
];

/// What every entity of an inventory has.
const INVENTORY: &[Row] = &[
    Row("@timestamp", Ours(Known::EventTime)),
    Row("event.kind", Fixed(Literal::Text("asset"))),
    Row("event.category", Fixed(Literal::Texts(&["host"]))),
    Row(
        "event.type",
        ByChange(Changes {
            none: Literal::Texts(&["info"]),
            added: Literal::Texts(&["info"]),
            changed: Literal::Texts(&["change"]),
            removed: Literal::Texts(&["end"]),
        }),
    ),
    Row("event.action", Ours(Known::Change)),
];
