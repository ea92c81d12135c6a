//! Apex Central's inventories in ECS.

use crate::format::table::Fill::{Fixed, From, List, Related, Rest};
use crate::format::table::{Convert, Literal, Pick, Row, Texts};

/// What is said of agents.
pub const AGENTS: &[Row] = &[
    Row("agent.id", From(&["entity_id"], Convert::Text)),
    Row("agent.type", From(&["product"], Convert::Text)),
];

/// What is said of servers.
pub const SERVERS: &[Row] = &[
    Row("service.id", From(&["entity_id"], Convert::Text)),
    Row("service.type", From(&["product"], Convert::Text)),
];

/// What is said of the hosts on which either runs.
pub const HOSTS: &[Row] = &[
    Row("host.id", From(&["entity_id"], Convert::Text)),
    Row("host.name", From(&["host_name"], Convert::Text)),
    Row("host.hostname", From(&["host_name"], Convert::Text)),
    Row("host.domain", From(&["ad_domain"], Convert::Text)),
    Row("host.ip", List(&[Texts("ip_address_list", "", Pick::Ip)])),
    Row("host.mac", List(&[Texts("mac_address_list", "", Pick::Mac)])),
    Row("related.hosts", Related(&[Texts("host_name", "", Pick::Text)])),
    Row("related.ip", Related(&[Texts("ip_address_list", "", Pick::Ip)])),
    Row("observer.product", Fixed(Literal::Text("Apex Central"))),
    Row("trendmicro.apex_central.*", Rest),
];
