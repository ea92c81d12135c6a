//! Trend Micro Cloud App Security: security event logs.
//!
//! `GET /v1/siem/security_events?service=…&event=…`, bearer token, windows as in Email Security,
//! pages by `next_link`. Every service has a stream per event type. The vendor allows 20 requests in
//! 60 s per token, pages included, so windows are long and idle streams are asked less often.

use std::sync::Arc;
use std::time::Duration;

use super::{Connector, Mode, Product, Settings, Stream, is_chosen};
use crate::error::{Error, ErrorKind, Result};
use crate::http::{Request, auth::Scheme};
use crate::json::{Kind, Reader};
use crate::record::{Records, Shape};
use crate::window::Window;

/// Its line in the table of products.
pub const PRODUCT: Product = Product {
    name: "cloud_app_security",
    api_root: "/v1/siem",
    regions: &[
        ("us", "api.tmcas.trendmicro.com"),
        ("eu", "api-eu.tmcas.trendmicro.com"),
        ("jp", "api.tmcas.trendmicro.co.jp"),
        ("au", "api-au.tmcas.trendmicro.com"),
        ("uk", "api.tmcas.trendmicro.co.uk"),
        ("ca", "api-ca.tmcas.trendmicro.com"),
        ("sg", "api.tmcas.trendmicro.com.sg"),
        ("in", "api-in.tmcas.trendmicro.com"),
    ],
    content_types: &[],
    defaults: &[("interval", "5m"), ("rate_limit", "18")],
    generated: &["message", "detection_time"],
    span_max: Duration::from_secs(24 * 3600),
    is_budgeted: true,
    connect: |settings| Arc::new(CloudAppSecurity::new(settings)),
};

const SOURCE: &str = "trendmicro_cloud_app_security";
/// The vendor's maximum; older documents name a smaller default, so it is always sent.
const PAGE_RECORDS: usize = 500;

/// Services that can be asked for, each with its `msg_class`.
pub const SERVICES: &[(&str, &str)] = &[
    ("exchange", "trendmicro_cas_logs_exchange"),
    ("sharepoint", "trendmicro_cas_logs_sharepoint"),
    ("onedrive", "trendmicro_cas_logs_onedrive"),
    ("dropbox", "trendmicro_cas_logs_dropbox"),
    ("box", "trendmicro_cas_logs_box"),
    ("googledrive", "trendmicro_cas_logs_googledrive"),
    ("gmail", "trendmicro_cas_logs_gmail"),
    ("teams", "trendmicro_cas_logs_teams"),
    ("exchangeserver", "trendmicro_cas_logs_exchangeserver"),
    ("salesforce_sandbox", "trendmicro_cas_logs_salesforce_sandbox"),
    ("salesforce_production", "trendmicro_cas_logs_salesforce_production"),
    ("teams_chat", "trendmicro_cas_logs_teams_chat"),
];

/// Event types of every service.
pub const EVENT_TYPES: &[&str] = &["securityrisk", "virtualanalyzer", "ransomware", "dlp"];

struct CloudAppSecurity {
    base_path: String,
    authority: String,
    streams: Vec<Stream>,
}

impl CloudAppSecurity {
    fn new(settings: &Settings) -> Self {
        let services = SERVICES.iter().filter(|(name, _)| is_chosen(&settings.services, name));
        let streams = services.flat_map(|&(service, msg_class)| {
            let events = EVENT_TYPES.iter().filter(|name| is_chosen(&settings.event_types, name));
            events.map(move |&event_type| stream(service, msg_class, event_type))
        });
        Self {
            base_path: settings.base_path.clone(),
            authority: settings.authority.clone(),
            streams: streams.collect(),
        }
    }

    /// The path and query of a link, if it leads to the configured host.
    ///
    /// Links come with or without a scheme, with either spelling of the path, and with stray spaces.
    /// The token must not go anywhere else, so host and port have to be the configured ones.
    fn follow(&self, link: &str) -> Result<String> {
        let link = link.trim();
        let rest = link.split_once("://").map_or(link, |(_, rest)| rest);
        let (authority, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !is_same_authority(authority, &self.authority) || target.is_empty() {
            let text = format!(
                "next_link leads to \"{authority}\" instead of \"{}\" and is not followed",
                self.authority
            );
            return Err(Error::new(ErrorKind::Refused, text));
        }
        Ok(target.replace(' ', "%20"))
    }
}

fn stream(service: &'static str, msg_class: &str, event_type: &'static str) -> Stream {
    Stream {
        name: format!("{service}.{event_type}"),
        content_type: service,
        msg_class: msg_class.to_owned(),
        category: "saas",
        members: vec![("service", service), ("event_type", event_type)],
        mode: Mode::Log,
        shape: Shape {
            source: SOURCE,
            content_type: service,
            variant: event_type,
            time: &["message", "detection_time"],
            name: &["log_item_id"],
            folds_name: false,
        },
    }
}

/// Compares host and port; a port that the scheme implies may be left out.
fn is_same_authority(one: &str, two: &str) -> bool {
    let bare = |text: &str| text.strip_suffix(":443").unwrap_or(text).to_ascii_lowercase();
    bare(one) == bare(two)
}

impl Connector for CloudAppSecurity {
    fn streams(&self) -> &[Stream] {
        &self.streams
    }

    fn scheme(&self) -> Scheme {
        Scheme::Bearer
    }

    fn request(&self, stream: usize, window: &Window, next: Option<&str>) -> Request {
        if let Some(target) = next {
            return Request::get(target.to_owned());
        }
        let shape = &self.streams[stream].shape;
        Request::get(format!(
            "{}/v1/siem/security_events?service={}&event={}&start={}&end={}&limit={PAGE_RECORDS}",
            self.base_path,
            shape.content_type,
            shape.variant,
            window.start.format("%Y-%m-%dT%H:%M:%SZ"),
            window.end.format("%Y-%m-%dT%H:%M:%SZ"),
        ))
    }

    fn list(&self) -> &'static str {
        "security_events"
    }

    /// `{"next_link": "…", "security_events": […]}`; the last page's link is empty, null or missing.
    fn read_frame(&self, frame: &str, records: &Records) -> Result<Option<String>> {
        let mut link = None;
        let mut has_events = false;
        let mut reader = Reader::new(frame);
        reader.object(|reader, key| match (&*key, reader.peek()?) {
            ("security_events", Kind::Array | Kind::Null) => {
                has_events = true;
                reader.skip().map(drop)
            }
            ("next_link", Kind::String) => {
                link = Some(reader.string()?.into_owned());
                Ok(())
            }
            _ => reader.skip().map(drop),
        })?;
        reader.end()?;
        if !has_events {
            return Err(Error::retry("no \"security_events\" in it"));
        }
        match link.filter(|link| records.seen().records > 0 && !link.trim().is_empty()) {
            Some(link) => self.follow(&link).map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;

    fn connector(services: &[&str]) -> CloudAppSecurity {
        CloudAppSecurity::new(&Settings {
            authority: "api.tmcas.trendmicro.com".to_owned(),
            services: services.iter().map(|&name| name.to_owned()).collect(),
            ..Settings::default()
        })
    }

    fn one(connector: &CloudAppSecurity) -> Records {
        connector.streams()[0].shape.read(["{}"]).unwrap()
    }

    #[test]
    fn every_service_has_a_stream_per_event_type() {
        assert_eq!(connector(&[]).streams().len(), 48);
        let sharepoint = connector(&["sharepoint"]);
        let names: Vec<_> = sharepoint.streams().iter().map(|stream| &stream.name).collect();
        assert_eq!(
            names,
            [
                "sharepoint.securityrisk",
                "sharepoint.virtualanalyzer",
                "sharepoint.ransomware",
                "sharepoint.dlp"
            ]
        );
        let at = |secs| Time::from_timestamp(secs, 0).unwrap();
        let window = Window { start: at(1_700_000_000), end: at(1_700_003_600) };
        assert_eq!(
            sharepoint.request(3, &window, None).target,
            "/v1/siem/security_events?service=sharepoint&event=dlp\
             &start=2023-11-14T22:13:20Z&end=2023-11-14T23:13:20Z&limit=500"
        );
        let link = "/siem/v1/security_events?page_id=x=";
        assert_eq!(sharepoint.request(3, &window, Some(link)).target, link);
    }

    #[test]
    fn links_are_followed_to_the_configured_host_only() {
        let connector = connector(&[]);
        let read = |link: &str| {
            let frame = serde_json::json!({ "security_events": [0], "next_link": link });
            connector.read_frame(&frame.to_string(), &one(&connector))
        };
        for (link, target) in [
            (
                "https://api.tmcas.trendmicro.com/v1/siem/security_events?a=1&page_id=x=",
                "/v1/siem/security_events?a=1&page_id=x=",
            ),
            (
                "api.tmcas.trendmicro.com/siem/v1/security_events?a=1& b=2",
                "/siem/v1/security_events?a=1&%20b=2",
            ),
            (" https://API.tmcas.trendmicro.com:443/x ", "/x"),
        ] {
            assert_eq!(read(link).unwrap().as_deref(), Some(target), "{link}");
        }
        for link in [
            "https://evil.example/v1/siem/security_events",
            "https://api.tmcas.trendmicro.com.evil.example/x",
            "https://api.tmcas.trendmicro.com@evil.example/x",
            "https://api.tmcas.trendmicro.com:8443/x",
            "//evil.example/x",
            "/v1/siem/security_events",
        ] {
            assert!(read(link).unwrap_err().to_string().contains("is not followed"), "{link}");
        }
        for frame in [
            r#"{"security_events":[0],"next_link":""}"#,
            r#"{"security_events":[0],"next_link":null}"#,
            r#"{"security_events":[0]}"#,
        ] {
            assert_eq!(connector.read_frame(frame, &one(&connector)).unwrap(), None, "{frame}");
        }
        assert!(connector.read_frame(r#"{"next_link":""}"#, &Records::default()).is_err());
    }
}
