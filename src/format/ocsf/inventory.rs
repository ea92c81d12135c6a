//! Inventories as OCSF's Device Inventory Info.

use crate::format::table::Fill::{ByChange, Fixed, From};
use crate::format::table::{Changes, Convert, Literal, Pick, Row};

/// The class: the inventory was collected, or told what changed in it.
pub const CLASS: &[Row] = &[
    Row("category_uid", Fixed(Literal::Number(5))),
    Row("category_name", Fixed(Literal::Text("Discovery"))),
    Row("class_uid", Fixed(Literal::Number(5001))),
    Row("class_name", Fixed(Literal::Text("Device Inventory Info"))),
    Row("activity_id", of_change(Literal::Number(2), Literal::Number(99))),
    Row(
        "activity_name",
        ByChange(Changes {
            none: Literal::Text("Collect"),
            added: Literal::Text("added"),
            changed: Literal::Text("changed"),
            removed: Literal::Text("removed"),
        }),
    ),
    Row("type_uid", of_change(Literal::Number(500_102), Literal::Number(500_199))),
    Row(
        "type_name",
        of_change(
            Literal::Text("Device Inventory Info: Collect"),
            Literal::Text("Device Inventory Info: Other"),
        ),
    ),
    Row("severity_id", Fixed(Literal::Number(1))),
    Row("severity", Fixed(Literal::Text("Informational"))),
];

/// The schema knows no activity for changes, so each is "other" under its own name.
const fn of_change(none: Literal, change: Literal) -> crate::format::table::Fill {
    ByChange(Changes { none, added: change, changed: change, removed: change })
}

/// What is said of Apex Central's agents.
pub const AGENTS: &[Row] = &[
    Row("device.type_id", Fixed(Literal::Number(0))),
    Row("device.agent_list[].uid", From(&["entity_id"], Convert::Text)),
    Row("device.agent_list[].name", From(&["product"], Convert::Text)),
    Row("device.agent_list[].vendor_name", Fixed(Literal::Text("Trend Micro"))),
];

/// What is said of Apex Central's servers.
pub const SERVERS: &[Row] = &[Row("device.type_id", Fixed(Literal::Number(1)))];

/// What is said of the hosts on which either runs.
pub const HOSTS: &[Row] = &[
    Row("metadata.product.name", Fixed(Literal::Text("Apex Central"))),
    Row("device.uid", From(&["entity_id"], Convert::Text)),
    Row("device.hostname", From(&["host_name"], Convert::Text)),
    Row("device.domain", From(&["ad_domain"], Convert::Text)),
    Row("device.ip", From(&["ip_address_list"], Convert::FirstIp)),
    Row("device.network_interfaces", From(&["ip_address_list"], Convert::Wrapped("ip", Pick::Ip))),
];

/// What is said of Workload Security's computers.
pub const COMPUTERS: &[Row] = &[
    Row("metadata.product.name", Fixed(Literal::Text("Workload Security"))),
    Row("device.type_id", Fixed(Literal::Number(0))),
    Row("device.uid", From(&["ID"], Convert::Digits)),
    Row("device.uid_alt", From(&["hostGUID"], Convert::Text)),
    Row("device.hostname", From(&["hostName"], Convert::Text)),
    Row("device.name", From(&["displayName"], Convert::Text)),
    Row("device.desc", From(&["description"], Convert::Text)),
    Row("device.ip", From(&["lastIPUsed"], Convert::Ip)),
    Row("device.instance_uid", From(&["ec2VirtualMachineSummary.instanceID"], Convert::Text)),
    Row("device.last_seen_time", From(&["lastAgentCommunication"], Convert::Long)),
    Row("device.os.name", From(&["platform"], Convert::Text)),
    Row(
        "device.os.type_id",
        From(
            &["platform"],
            Convert::ClassifyStart(
                &[
                    ("Microsoft Windows", Literal::Number(100)),
                    ("Windows", Literal::Number(100)),
                    ("Amazon Linux", Literal::Number(200)),
                    ("CentOS", Literal::Number(200)),
                    ("Debian", Literal::Number(200)),
                    ("Oracle Linux", Literal::Number(200)),
                    ("Red Hat", Literal::Number(200)),
                    ("SUSE", Literal::Number(200)),
                    ("Ubuntu", Literal::Number(200)),
                    ("macOS", Literal::Number(300)),
                    ("Solaris", Literal::Number(400)),
                    ("AIX", Literal::Number(401)),
                ],
                Literal::Number(0),
            ),
        ),
    ),
    Row("device.agent_list[].uid", From(&["agentGUID", "hostGUID"], Convert::Text)),
    Row("device.agent_list[].version", From(&["agentVersion"], Convert::Text)),
    Row("device.agent_list[].vendor_name", Fixed(Literal::Text("Trend Micro"))),
    Row(
        "device.network_interfaces",
        From(
            &["interfaces.interfaces"],
            Convert::Each(&[
                Row("uid", From(&["ID"], Convert::Digits)),
                Row("name", From(&["name"], Convert::Text)),
                Row("mac", From(&["MAC"], Convert::Text)),
            ]),
        ),
    ),
];
