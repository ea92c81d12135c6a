//! The text of a computer in one of its states, with the parts that were asked for.

use serde_json::{Map, Value};

use super::WorkloadConfig;
use crate::inventory::Version;
use crate::json::ObjectWriter;
use crate::rng::{Rng, mix, uuid};

/// The parts of a record that `expand` chooses, each a member of that name.
const PARTS: [&str; 23] = [
    "computerStatus",
    "tasks",
    "securityUpdates",
    "computerSettings",
    "antiMalware",
    "webReputation",
    "activityMonitoring",
    "firewall",
    "intrusionPrevention",
    "integrityMonitoring",
    "logInspection",
    "applicationControl",
    "SAP",
    "interfaces",
    "ESXSummary",
    "azureARMVirtualMachineSummary",
    "azureVMVirtualMachineSummary",
    "ec2VirtualMachineSummary",
    "noConnectorVirtualMachineSummary",
    "vmwareVMVirtualMachineSummary",
    "vcloudVMVirtualMachineSummary",
    "workspaceVirtualMachineSummary",
    "gcpVirtualMachineSummary",
];

/// The security modules, from `antiMalware` to `SAP`.
const MODULES: u32 = 0x1ff << 4;
const MACHINES: u32 = 0xff << 15;

/// A set of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts(u32);

impl Parts {
    pub(crate) const ALL: Self = Self((1 << PARTS.len()) - 1);

    /// The parts that the query's parameters choose, all of them when none does. `Err` is a value
    /// that is not known.
    pub(crate) fn read(params: &[(String, String)]) -> Result<Self, String> {
        let values = params.iter().filter(|(name, _)| name == "expand").map(|(_, value)| value);
        let parts = values.map(|value| Self::of(value).ok_or_else(|| value.clone()));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        Ok(match parts.is_empty() {
            true => Self::ALL,
            false => Self(parts.into_iter().fold(0, |sum, part| sum | part)),
        })
    }

    fn of(value: &str) -> Option<u32> {
        Some(match value {
            "none" => 0,
            "all" => Self::ALL.0,
            "allSecurityModules" => MODULES,
            "allVirtualMachineSummaries" => MACHINES,
            _ => 1 << PARTS.iter().position(|part| *part == value)?,
        })
    }

    fn has(self, name: &str) -> bool {
        PARTS.iter().position(|part| *part == name).is_none_or(|at| self.0 >> at & 1 == 1)
    }
}

const SAMPLE_FILES: [&str; 2] = [
    include_str!("../../fixtures/cloudone-computers-none.json"),
    include_str!("../../fixtures/cloudone-computers-all.json"),
];
const PLATFORMS: [&str; 6] = [
    "Ubuntu Linux 20 (64 bit)",
    "Microsoft Windows Server 2019 (64 bit)  Build 17763",
    "Amazon Linux 2 (64 bit)",
    "Red Hat Enterprise 8 (64 bit)",
    "Unknown",
    "",
];
const STATUSES: [(&str, &str); 5] = [
    ("active", "Managed (Online)"),
    ("warning", "Policy Update Pending (Heartbeat)"),
    ("error", "Offline"),
    ("inactive", "Unmanaged (Unknown)"),
    ("not-supported", "No Agent"),
];
const NAMES: [&str; 5] = ["web", "db", "büro", "サーバー", "k8s-node"];
/// 2023-11-14, a little before the time of the reference's samples.
const EPOCH_MS: i64 = 1_699_900_000_000;

/// Makes the records of one simulator.
pub(crate) struct Records {
    seed: u64,
    computer_bytes: usize,
    samples: Vec<Map<String, Value>>,
}

impl Records {
    pub(crate) fn new(seed: u64, config: &WorkloadConfig) -> Self {
        let files = SAMPLE_FILES.into_iter().filter(|_| config.seed_samples);
        let samples = files.flat_map(|text| {
            let file: Value = serde_json::from_str(text).expect("the fixture is JSON");
            let computers = file["computers"].as_array().cloned().unwrap_or_default();
            computers.into_iter().filter_map(|computer| computer.as_object().cloned())
        });
        Self { seed, computer_bytes: config.computer_bytes, samples: samples.collect() }
    }

    /// The identifier: those of the samples are small, the others grow with gaps.
    pub(crate) fn id(&self, entity: u64) -> u64 {
        let sample = self.samples.get(entity as usize);
        let id = sample.and_then(|sample| sample["ID"].as_u64());
        id.unwrap_or_else(|| 1000 + 4 * entity + mix(self.seed ^ entity) % 4)
    }

    /// Appends a record.
    pub(crate) fn write(&self, out: &mut String, version: &Version, parts: Parts) {
        if let Some(sample) = self.samples.get(version.entity as usize) {
            out.push_str(&chosen(sample, version, parts));
            return;
        }
        let begun = out.len();
        let rng = Rng::keyed(self.seed, &[0xc1, version.entity]);
        let mut object = ObjectWriter::new(out, false);
        let mut computer = Computer { object: &mut object, rng, parts, version, id: 0 };
        computer.id = self.id(version.entity);
        computer.basic();
        computer.status();
        computer.modules();
        computer.network();
        object.finish();
        if parts.has("computerSettings") {
            let missing = self.computer_bytes.saturating_sub(out.len() - begun);
            out.truncate(out.len() - 1);
            settings(out, missing);
            out.push('}');
        }
    }
}

/// A sample with the parts that were asked for. It changes by its agent's last word.
fn chosen(sample: &Map<String, Value>, version: &Version, parts: Parts) -> String {
    let members = sample.iter().filter(|(name, _)| parts.has(name));
    let mut chosen: Map<String, Value> =
        members.map(|(name, value)| (name.clone(), value.clone())).collect();
    if version.revision > 0 {
        let heard_ms = EPOCH_MS + 1000 * i64::from(version.revision);
        chosen.insert("lastAgentCommunication".to_string(), heard_ms.into());
    }
    Value::Object(chosen).to_string()
}

/// Settings until the record has its size. Their values are texts, whatever they mean.
fn settings(out: &mut String, bytes: usize) {
    let begun = out.len();
    out.push_str(",\"computerSettings\":");
    let mut object = ObjectWriter::new(out, false);
    let mut nth = 0;
    loop {
        let value = ["Automatic", "false", "0", "10 Minutes", ""][nth % 5];
        object.object(&format!("platformSettingSimulated{nth:05}"), |it| it.text("value", value));
        nth += 1;
        if object.length() - begun >= bytes {
            break;
        }
    }
    object.finish();
}

/// One computer as it is written. `rng` is drawn from in the same order whatever the parts, so
/// that a member reads the same in every form.
struct Computer<'a, 'b> {
    object: &'a mut ObjectWriter<'b>,
    rng: Rng,
    parts: Parts,
    version: &'a Version,
    id: u64,
}

impl Computer<'_, '_> {
    fn basic(&mut self) {
        let entity = self.version.entity;
        let name = format!("{}-{entity}", self.rng.pick(&NAMES));
        let (platform, group, policy) =
            (self.rng.pick(&PLATFORMS), self.rng.below(20), self.rng.below(9));
        let (is_active, has_name, noise) =
            (!self.rng.one_in(5), self.rng.one_in(2), self.rng.next_u64());
        let object = &mut *self.object;
        object.text("hostName", &format!("{name}.example.org"));
        object.text("displayName", if has_name { &name } else { "" });
        object.text("description", if noise.is_multiple_of(7) { "rack \"7\"\nrow ü" } else { "" });
        match is_active || self.version.revision > 0 {
            true => object.text("lastIPUsed", &format!("10.1.{}.{}", entity >> 8, entity & 255)),
            false => object.raw("lastIPUsed", "null"),
        }
        object.text("platform", platform);
        object.int("groupID", group as i64);
        // None is 0 here and missing there.
        if policy != 1 {
            object.int("policyID", policy as i64);
        }
        object.int("assetImportanceID", (noise % 4) as i64);
        object.int("relayListID", (noise >> 4 & 3) as i64);
        if is_active {
            object.text("agentFingerPrint", &format!("{noise:016X}"));
        }
        // A changed computer was heard of since, so no two of its states are alike.
        let revision = i64::from(self.version.revision);
        if is_active || revision > 0 {
            let heard_ms = EPOCH_MS + (noise % 90_000_000) as i64 + 600_123 * revision;
            object.int("lastAgentCommunication", heard_ms);
            object.int("lastSendPolicyRequest", EPOCH_MS - 10_000);
            object.int("lastSendPolicySuccess", EPOCH_MS - 9_000);
        }
        object.text("agentVersion", if is_active { "20.0.0.6313" } else { "0.0.0.0" });
        object.text("biosUUID", &uuid(noise));
        // No document has it, but the service is known to send it.
        object.text("agentGUID", &uuid(mix(noise)).to_ascii_uppercase());
        object.text("hostGUID", &uuid(mix(self.id)).to_ascii_uppercase());
        object.int("ID", self.id as i64);
    }

    fn status(&mut self) {
        let (status, message) = self.rng.pick(&STATUSES);
        let changed_ms = EPOCH_MS - self.rng.below(90_000_000) as i64;
        if self.parts.has("computerStatus") {
            self.object.object("computerStatus", |it| {
                it.text("agentStatus", status);
                it.texts("agentStatusMessages", [message.to_string()]);
            });
        }
        if self.parts.has("tasks") {
            self.object.object("tasks", |it| it.texts("agentTasks", None));
        }
        if self.parts.has("securityUpdates") {
            self.object.object("securityUpdates", |it| {
                it.object("updateStatus", |it| {
                    it.text("status", status);
                    it.text("statusMessage", message);
                });
                it.int("lastChanged", changed_ms);
                it.objects("antiMalware", 1, |_, it| {
                    it.text("name", "Smart Scan Agent Pattern");
                    it.text("version", "18.789.00");
                    it.bool("latest", true);
                });
                it.texts("other", None);
            });
        }
    }

    fn modules(&mut self) {
        for (at, name) in PARTS.into_iter().enumerate().filter(|(at, _)| MODULES >> at & 1 == 1) {
            let (is_on, rules) = (self.rng.below(2) == 0, self.rng.below(40));
            if !self.parts.has(name) {
                continue;
            }
            let on = match name {
                "intrusionPrevention" => "prevent",
                "integrityMonitoring" => "real-time",
                _ => "on",
            };
            self.object.object(name, |it| {
                it.text("state", if is_on { on } else { "off" });
                it.object("moduleStatus", |it| {
                    it.text("agentStatus", if is_on { "active" } else { "inactive" });
                    it.text("agentStatusMessage", if is_on { "On" } else { "Off" });
                });
                it.ints("ruleIDs", (0..rules).map(|rule| 100 + 11 * rule + at as u64));
            });
        }
    }

    fn network(&mut self) {
        let (is_there, is_ec2, noise) =
            (!self.rng.one_in(5), self.rng.one_in(3), self.rng.next_u64());
        let entity = self.version.entity;
        if self.parts.has("interfaces") {
            match is_there {
                false => self.object.raw("interfaces", "null"),
                true => self.object.object("interfaces", |it| {
                    it.objects("interfaces", 1 + (noise % 2) as usize, |nth, it| {
                        it.int("ID", (2 * entity) as i64 + nth as i64);
                        it.text("name", &format!("eth{nth}"));
                        it.text("MAC", &format!("02:42:AC:11:00:{:02X}", noise >> 8 & 255));
                        it.bool("DHCP", noise >> 16 & 1 == 1);
                        it.texts("IPs", [format!("10.1.{}.{}", entity >> 8, entity & 255)]);
                    });
                }),
            }
        }
        if is_ec2 && self.parts.has("ec2VirtualMachineSummary") {
            self.object.object("ec2VirtualMachineSummary", |it| {
                it.text("cloudProvider", "AWS");
                it.text("accountID", "012345678912");
                it.text("instanceID", &format!("i-{noise:017x}"));
                it.text("availabilityZone", "us-east-1a");
                it.objects("securityGroups", 1, |_, it| {
                    it.text("name", "default");
                    it.text("ID", "sg-1");
                });
                it.text("type", "t2.micro");
                it.text("state", "POWER ON");
                it.objects("metadata", 1, |_, it| {
                    it.text("name", "Name");
                    it.text("value", "日本 \"quoted\"");
                });
            });
        }
    }
}
