//! The text of an agent or a server in one of its states.

use serde_json::{Map, Value};

use crate::inventory::Version;
use crate::json::ObjectWriter;
use crate::rng::{Rng, mix, uuid};

/// The two inventories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Agents,
    Servers,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Agents, Self::Servers];

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Servers => "servers",
        }
    }

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Agents => "/WebApp/API/AgentResource/ProductAgents",
            Self::Servers => "/WebApp/API/ServerResource/ProductServers",
        }
    }

    pub(crate) fn of(content_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.content_type() == content_type)
    }

    fn sample_files(self) -> [&'static str; 2] {
        match self {
            Self::Agents => [
                include_str!("../../fixtures/apex-agents.json"),
                include_str!("../../fixtures/apex-agents-vendordoc.json"),
            ],
            Self::Servers => [
                include_str!("../../fixtures/apex-servers.json"),
                include_str!("../../fixtures/apex-servers-vendordoc.json"),
            ],
        }
    }
}

const AGENT_COMMANDS: [&str; 4] = [
    "cmd_restore_isolated_agent",
    "cmd_isolate_agent",
    "cmd_relocate_agent",
    "cmd_uninstall_agent",
];
const PRODUCTS: [&str; 3] =
    ["SLF_PRODUCT_OFFICESCAN_CE", "SLF_PRODUCT_PLS_TMSM", "SLF_PRODUCT_HEADLESS_DSM"];
const AD_DOMAINS: [&str; 5] = ["", "", "", "corp.example.com", "EU\\example"];
const FOLDERS: [&str; 4] = ["Workgroup", "Default", "Büro/Köln", "営業部"];
const ISOLATIONS: [&str; 5] =
    ["normal", "isolated", "pending isolation", "pending restoration", "unknown"];

/// Makes the records of one simulator.
pub(crate) struct Records {
    seed: u64,
    samples: [Vec<Map<String, Value>>; Kind::ALL.len()],
    /// How many servers there were at the start; agents belong to one of them.
    servers: u64,
}

impl Records {
    pub(crate) fn new(seed: u64, has_samples: bool, servers: usize) -> Self {
        let read = |kind: Kind| {
            let files = kind.sample_files().into_iter().filter(|_| has_samples);
            let records = files.flat_map(|text| {
                let file: Value = serde_json::from_str(text).expect("the fixture is JSON");
                let content = file["result_content"].as_array().cloned().unwrap_or_default();
                content.into_iter().filter_map(|record| record.as_object().cloned())
            });
            records.collect()
        };
        Self { seed, samples: Kind::ALL.map(read), servers: servers as u64 }
    }

    pub(crate) fn text(&self, kind: Kind, version: &Version) -> String {
        let mut text = String::with_capacity(512);
        self.write(&mut text, kind, version);
        text
    }

    /// Appends a record. A change is told by the address in any case, so no two states of an
    /// entity are alike.
    pub(crate) fn write(&self, out: &mut String, kind: Kind, version: &Version) {
        if let Some(sample) = self.samples[kind as usize].get(version.entity as usize) {
            let mut sample = sample.clone();
            if version.revision > 0 {
                sample.insert("ip_address_list".to_string(), address(version).into());
            }
            out.push_str(&Value::Object(sample).to_string());
            return;
        }
        let mut rng = Rng::keyed(self.seed, &[0xa9, kind as u64, version.entity]);
        let is_agent = kind == Kind::Agents;
        let mut object = ObjectWriter::new(out, false);
        object.text("entity_id", &self.entity_id(kind, version));
        let product = if rng.below(10) < 8 { PRODUCTS[0] } else { rng.pick(&PRODUCTS) };
        object.text("product", product);
        if is_agent {
            object.text("managing_server_id", &self.managing_server(&mut rng));
        }
        object.text("ad_domain", rng.pick(&AD_DOMAINS));
        if is_agent {
            object.text("folder_path", rng.pick(&FOLDERS));
        }
        object.text("ip_address_list", &addresses(&mut rng, version));
        if is_agent {
            object.text("mac_address_list", &macs(&mut rng));
        }
        object.text("host_name", &host(&mut rng, version.entity));
        if is_agent {
            let usual = rng.below(10) < 8;
            let at = if usual { 0 } else { rng.below(ISOLATIONS.len() as u64) };
            let at = (at + u64::from(version.revision)) % ISOLATIONS.len() as u64;
            object.text("isolation_status", ISOLATIONS[at as usize]);
        }
        let commands: &[&str] = match rng.below(10) {
            0 => &[],
            _ if is_agent => &AGENT_COMMANDS,
            _ => &["cmd_deploy_update_sources"],
        };
        object.texts("capabilities", commands.iter().map(|command| command.to_string()));
        object.finish();
    }

    /// Agents have lower case, servers upper, as in the samples.
    pub(crate) fn entity_id(&self, kind: Kind, version: &Version) -> String {
        if let Some(sample) = self.samples[kind as usize].get(version.entity as usize) {
            return sample["entity_id"].as_str().unwrap_or_default().to_string();
        }
        let identity = mix(mix(self.seed ^ 0x6170_6578) ^ ((kind as u64) << 61 | version.entity));
        match kind {
            Kind::Agents => uuid(identity),
            Kind::Servers => uuid(identity).to_ascii_uppercase(),
        }
    }

    fn managing_server(&self, rng: &mut Rng) -> String {
        let server = rng.below(self.servers.max(1));
        self.entity_id(Kind::Servers, &Version::first(server))
    }
}

fn address(version: &Version) -> String {
    let entity = version.entity;
    format!("10.{}.{}.{}", version.revision % 256, entity >> 8 & 255, entity & 255)
}

/// One string, as the vendor has it; empty now and then, until the entity changes.
fn addresses(rng: &mut Rng, version: &Version) -> String {
    let (is_empty, more) = (rng.one_in(20), rng.below(3));
    if is_empty && version.revision == 0 {
        return String::new();
    }
    let mut list = address(version);
    for zone in 0..more {
        list.push_str(&format!(",fe80::{:x}:{:x}%{}", rng.below(65_536), version.entity, zone + 2));
    }
    list
}

fn macs(rng: &mut Rng) -> String {
    let count = 1 + rng.below(2);
    let mac = |value: u64| {
        let bytes = value.to_be_bytes();
        bytes[2..].iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join("-")
    };
    (0..count).map(|_| mac(rng.next_u64())).collect::<Vec<_>>().join(",")
}

fn host(rng: &mut Rng, entity: u64) -> String {
    match rng.below(20) {
        0 => String::new(),
        1 => format!("bücherei-{entity}"),
        2..8 => format!("srv-{entity}.example.com"),
        _ => format!("DESKTOP-{entity:06X}"),
    }
}
