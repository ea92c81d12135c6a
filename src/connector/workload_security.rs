//! Trend Micro Cloud One Workload Security (Deep Security): the inventory of computers.
//!
//! `POST /computers/search`, sorted by object ID and continued behind the last ID, so that computers
//! that come and go while we page move nothing. Two kinds of key exist, each with its header.

use std::sync::Arc;
use std::time::Duration;

use super::{Connector, Mode, Product, Settings, Stream};
use crate::error::{Error, Result};
use crate::http::{Request, auth::Scheme};
use crate::json::{Kind, Reader};
use crate::record::{Records, Shape};
use crate::window::Window;

/// Its line in the table of products.
pub const PRODUCT: Product = Product {
    name: "workload_security",
    api_root: "/computers",
    regions: &[
        ("us", "workload.us-1.cloudone.trendmicro.com/api"),
        ("au", "workload.au-1.cloudone.trendmicro.com/api"),
        ("de", "workload.de-1.cloudone.trendmicro.com/api"),
        ("sg", "workload.sg-1.cloudone.trendmicro.com/api"),
        ("in", "workload.in-1.cloudone.trendmicro.com/api"),
        ("jp", "workload.jp-1.cloudone.trendmicro.com/api"),
        ("ca", "workload.ca-1.cloudone.trendmicro.com/api"),
        ("gb", "workload.gb-1.cloudone.trendmicro.com/api"),
    ],
    content_types: &["computers"],
    defaults: &[("interval", "1h")],
    generated: &[],
    span_max: Duration::ZERO,
    is_budgeted: false,
    connect: |settings| Arc::new(WorkloadSecurity::new(settings)),
};

const SOURCE: &str = "trendmicro_cloudone";
/// A fully expanded computer has hundreds of kilobytes; a page of them must still come in time.
const PAGE_RECORDS: usize = 200;

/// What a search can expand.
pub const EXPANSIONS: &[&str] = &[
    "none",
    "all",
    "computerStatus",
    "tasks",
    "securityUpdates",
    "computerSettings",
    "allSecurityModules",
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
    "allVirtualMachineSummaries",
    "azureARMVirtualMachineSummary",
    "azureVMVirtualMachineSummary",
    "ec2VirtualMachineSummary",
    "noConnectorVirtualMachineSummary",
    "vmwareVMVirtualMachineSummary",
    "vcloudVMVirtualMachineSummary",
    "workspaceVirtualMachineSummary",
    "gcpVirtualMachineSummary",
];

struct WorkloadSecurity {
    base_path: String,
    query: String,
    streams: Vec<Stream>,
}

impl WorkloadSecurity {
    fn new(settings: &Settings) -> Self {
        let expand = settings.expand.iter().map(|name| format!("expand={name}&"));
        // Every address of this API ends in /api, which people leave out.
        let base_path =
            if settings.base_path.is_empty() { "/api" } else { settings.base_path.as_str() };
        Self {
            base_path: base_path.to_owned(),
            query: expand.chain(["overrides=false".to_owned()]).collect(),
            streams: vec![Stream {
                name: "computers".to_owned(),
                content_type: "computers",
                msg_class: format!("{SOURCE}_computers"),
                category: "endpoint",
                members: Vec::new(),
                mode: Mode::Inventory,
                shape: Shape {
                    source: SOURCE,
                    content_type: "computers",
                    variant: "",
                    time: &[],
                    name: &["ID"],
                    folds_name: false,
                },
            }],
        }
    }
}

impl Connector for WorkloadSecurity {
    fn streams(&self) -> &[Stream] {
        &self.streams
    }

    fn scheme(&self) -> Scheme {
        Scheme::WorkloadKey
    }

    fn request(&self, _: usize, _: &Window, next: Option<&str>) -> Request {
        let after = next.unwrap_or("0");
        Request {
            target: format!("{}/computers/search?{}", self.base_path, self.query),
            body: Some(format!(
                r#"{{"maxItems":{PAGE_RECORDS},"searchCriteria":[{{"idValue":{after},"idTest":"greater-than"}}],"sortByObjectID":true}}"#
            )),
            headers: &[("api-version", "v1")],
        }
    }

    fn list(&self) -> &'static str {
        "computers"
    }

    /// `{"computers": […]}`; only an empty list is the end, since a server may page shorter than
    /// asked for. The greatest ID is followed rather than the last, should it ignore the order.
    fn read_frame(&self, frame: &str, records: &Records) -> Result<Option<String>> {
        let mut has_list = false;
        let mut reader = Reader::new(frame);
        reader.object(|reader, key| {
            has_list |= key == "computers" && reader.peek()? == Kind::Array;
            reader.skip().map(drop)
        })?;
        reader.end()?;
        if !has_list {
            return Err(Error::retry("no list in \"computers\""));
        }
        // A computer's name is its ID.
        Ok(records.seen().greatest.map(|id| id.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;

    #[test]
    fn a_search_goes_on_behind_the_greatest_id() {
        let settings = Settings { expand: vec!["none".to_owned()], ..Settings::default() };
        let connector = WorkloadSecurity::new(&settings);
        let now = Time::from_timestamp(0, 0).unwrap();
        let window = Window { start: now, end: now };
        let request = connector.request(0, &window, Some("17"));
        assert_eq!(request.target, "/api/computers/search?expand=none&overrides=false");
        assert_eq!(request.headers, [("api-version", "v1")]);
        let body: serde_json::Value = serde_json::from_str(&request.body.unwrap()).unwrap();
        assert_eq!(body["searchCriteria"][0]["idValue"], 17);
        assert_eq!(body["sortByObjectID"], true);

        let shape = connector.streams()[0].shape;
        let records = shape.read([r#"{"ID":9}"#, r#"{"ID":12}"#, r#"{"ID":3}"#]).unwrap();
        let read = |frame: &str, records: &Records| connector.read_frame(frame, records);
        assert_eq!(read(r#"{"computers":[0,0,0]}"#, &records).unwrap().as_deref(), Some("12"));
        assert_eq!(read(r#"{"computers":[]}"#, &Records::default()).unwrap(), None);
        assert!(read(r#"{"message":"no"}"#, &Records::default()).is_err());
    }
}
