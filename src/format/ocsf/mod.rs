//! Open Cybersecurity Schema Framework: Email Activity, Detection Finding, Device Inventory Info.

mod email_activity;
mod finding;
mod inventory;

use super::table::Fill::{Fixed, Ours, Rest};
use super::table::{Literal, Ours as Known, Row};
use crate::record::Shape;

/// The version of the schema that the tables keep to.
pub const VERSION: &str = "1.8.0";

/// The tables of a stream, in the order in which their targets are written; `None` for a product
/// that this schema does not know.
#[must_use]
pub fn tables(shape: &Shape) -> Option<Vec<&'static [Row]>> {
    let is_mail = matches!(shape.content_type, "exchange" | "gmail" | "exchangeserver");
    Some(match (shape.source, shape.content_type) {
        ("trendmicro_email_security", "policy_events") => {
            vec![finding::CLASS, OURS, finding::POLICY_EVENT, CONTROL, UNMAPPED]
        }
        ("trendmicro_email_security", "blocked_traffic") => {
            vec![
                email_activity::CLASS,
                OURS,
                email_activity::BLOCKED,
                email_activity::MAIL,
                CONTROL,
                UNMAPPED,
            ]
        }
        ("trendmicro_email_security", _) => {
            vec![
                email_activity::CLASS,
                OURS,
                email_activity::ACCEPTED,
                email_activity::MAIL,
                CONTROL,
                UNMAPPED,
            ]
        }
        ("trendmicro_cloud_app_security", _) if is_mail => {
            vec![finding::CLASS, OURS, finding::IN_MAIL, finding::DETECTION, CONTROL, UNMAPPED]
        }
        ("trendmicro_cloud_app_security", _) => {
            vec![finding::CLASS, OURS, finding::IN_FILE, finding::DETECTION, CONTROL, UNMAPPED]
        }
        ("trendmicro_apexcentral", "servers") => {
            vec![inventory::CLASS, OURS, inventory::SERVERS, inventory::HOSTS, UNMAPPED]
        }
        ("trendmicro_apexcentral", _) => {
            vec![inventory::CLASS, OURS, inventory::AGENTS, inventory::HOSTS, UNMAPPED]
        }
        ("trendmicro_cloudone", _) => {
            vec![inventory::CLASS, OURS, inventory::COMPUTERS, UNMAPPED]
        }
        _ => return None,
    })
}

/// What every event has.
const OURS: &[Row] = &[
    Row("time", Ours(Known::EventMillis)),
    Row("metadata.version", Fixed(Literal::Text(VERSION))),
    Row("metadata.uid", Ours(Known::EventId)),
    Row("metadata.product.vendor_name", Fixed(Literal::Text("Trend Micro"))),
    Row("metadata.tenant_uid", Ours(Known::Tenant)),
    Row("metadata.log_name", Ours(Known::MsgClass)),
    Row("metadata.reporter.name", Ours(Known::Connector)),
    Row("metadata.processed_time", Ours(Known::PollMillis)),
    Row("raw_data", Ours(Known::Original)),
];

/// The profile of what a control did.
const CONTROL: &[Row] = &[Row("metadata.profiles", Fixed(Literal::Texts(&["security_control"])))];

/// Where the rest goes.
const UNMAPPED: &[Row] = &[Row("unmapped.*", Rest)];
