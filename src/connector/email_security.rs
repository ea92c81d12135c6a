//! Trend Micro Email Security: mail tracking and policy event logs.
//!
//! `GET /api/v1/log/mailtrackinglog?type=…` and `GET /api/v1/log/policyeventlog`, Basic
//! authentication, windows over `genTime`, pages by `nextToken`. The vendor guarantees no order and
//! documents no unique key: one mail has a record per recipient and per state, so only the whole
//! record identifies itself.

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::{Connector, Mode, Product, Settings, Stream, is_chosen};
use crate::error::{Error, Result};
use crate::http::{Request, auth::Scheme};
use crate::json::{Kind, Reader};
use crate::record::{Records, Shape};
use crate::window::Window;

/// Its line in the table of products.
pub const PRODUCT: Product = Product {
    name: "email_security",
    api_root: "/api/v1",
    regions: &[
        ("us", "api.tmes.trendmicro.com"),
        ("eu", "api.tmes.trendmicro.eu"),
        ("au", "api.tmes-anz.trendmicro.com"),
        // The vendor's own spelling has an "m" more here.
        ("jp", "api.tmems-jp.trendmicro.com"),
        ("sg", "api.tmes-sg.trendmicro.com"),
        ("in", "api.tmes-in.trendmicro.com"),
        ("uae", "api.tmes-uae.trendmicro.com"),
        ("uk", "api.tmes-uk.trendmicro.com"),
    ],
    content_types: &["accepted_traffic", "blocked_traffic", "policy_events"],
    defaults: &[("interval", "60s")],
    generated: &["genTime"],
    // A failed page fails its window, so a window must not be a day's work.
    span_max: Duration::from_secs(3600),
    is_budgeted: false,
    connect: |settings| Arc::new(EmailSecurity::new(settings)),
};

const SOURCE: &str = "trendmicro_email_security";
/// The vendor's default; no larger page is documented.
const PAGE_RECORDS: usize = 500;
/// Everything but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

struct EmailSecurity {
    base_path: String,
    username: String,
    streams: Vec<Stream>,
}

impl EmailSecurity {
    fn new(settings: &Settings) -> Self {
        let stream = |&content_type: &&'static str| Stream {
            name: content_type.to_owned(),
            content_type,
            msg_class: format!("{SOURCE}_{content_type}"),
            category: "email",
            members: Vec::new(),
            mode: Mode::Log,
            shape: Shape {
                source: SOURCE,
                content_type,
                variant: "",
                time: &["timestamp"],
                name: &[],
                folds_name: false,
            },
        };
        let wanted =
            PRODUCT.content_types.iter().filter(|name| is_chosen(&settings.content_types, name));
        Self {
            base_path: settings.base_path.clone(),
            username: settings.username.clone(),
            streams: wanted.map(stream).collect(),
        }
    }
}

impl Connector for EmailSecurity {
    fn streams(&self) -> &[Stream] {
        &self.streams
    }

    fn scheme(&self) -> Scheme {
        Scheme::Basic { username: self.username.clone() }
    }

    fn request(&self, stream: usize, window: &Window, next: Option<&str>) -> Request {
        let endpoint = match self.streams[stream].content_type {
            "policy_events" => "policyeventlog?".to_owned(),
            content_type => format!("mailtrackinglog?type={content_type}&"),
        };
        let token = next.map(|token| format!("&token={}", encode_token(token)));
        Request::get(format!(
            "{}/api/v1/log/{endpoint}start={}&end={}&limit={PAGE_RECORDS}{}",
            self.base_path,
            window.start.format("%Y-%m-%dT%H:%M:%SZ"),
            window.end.format("%Y-%m-%dT%H:%M:%SZ"),
            token.unwrap_or_default(),
        ))
    }

    fn list(&self) -> &'static str {
        "logs"
    }

    /// `{"nextToken": "…", "logs": […]}`. The vendor may hand out a token although nothing follows,
    /// so an empty list ends the window too.
    fn read_frame(&self, frame: &str, records: &Records) -> Result<Option<String>> {
        let mut next = None;
        let mut has_logs = false;
        let mut reader = Reader::new(frame);
        reader.object(|reader, key| match (&*key, reader.peek()?) {
            ("logs", Kind::Array | Kind::Null) => {
                has_logs = true;
                reader.skip().map(drop)
            }
            ("nextToken", Kind::String) => {
                next = Some(reader.string()?.into_owned()).filter(|token| !token.is_empty());
                Ok(())
            }
            _ => reader.skip().map(drop),
        })?;
        reader.end()?;
        if !has_logs {
            return Err(Error::retry("no \"logs\" in it"));
        }
        Ok(next.filter(|_| records.seen().records > 0))
    }
}

/// Makes a token fit for a query, encoded once.
///
/// Tokens arrive percent-encoded or plain. Decoding a plain one changes nothing, since base64 knows
/// no `%`; a `+` must stay a `+`.
fn encode_token(token: &str) -> String {
    let plain: Vec<u8> = percent_decode_str(token).collect();
    percent_encode(&plain, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;

    fn connector(content_types: &[&str]) -> EmailSecurity {
        EmailSecurity::new(&Settings {
            base_path: "/x".to_owned(),
            content_types: content_types.iter().map(|&name| name.to_owned()).collect(),
            ..Settings::default()
        })
    }

    fn window() -> Window {
        let at = |secs| Time::from_timestamp(secs, 0).unwrap();
        Window { start: at(1_700_000_000), end: at(1_700_003_600) }
    }

    #[test]
    fn requests_name_the_window_and_encode_the_token_once() {
        let all = connector(&[]);
        assert_eq!(
            all.request(0, &window(), None).target,
            "/x/api/v1/log/mailtrackinglog?type=accepted_traffic\
             &start=2023-11-14T22:13:20Z&end=2023-11-14T23:13:20Z&limit=500"
        );
        let policy = connector(&["policy_events"]);
        assert_eq!(policy.streams().len(), 1);
        for token in ["a+b/c==", "a%2Bb%2Fc%3D%3D", "a%2bb/c%3d="] {
            let target = policy.request(0, &window(), Some(token)).target;
            assert!(target.starts_with("/x/api/v1/log/policyeventlog?start="), "{target}");
            assert!(target.ends_with("&limit=500&token=a%2Bb%2Fc%3D%3D"), "{target}");
        }
    }

    #[test]
    fn every_ending_ends_and_every_token_goes_on() {
        let connector = connector(&[]);
        let read = |frame: &str, records| {
            let records = connector.streams()[0].shape.read(vec!["{}"; records]).unwrap();
            connector.read_frame(frame, &records)
        };
        let token = Some("t".to_owned());
        assert_eq!(read(r#"{"nextToken":"t","logs":[0,0]}"#, 2).unwrap(), token);
        for (frame, records) in [
            (r#"{"logs":[0]}"#, 1),
            (r#"{"logs":[0],"nextToken":""}"#, 1),
            (r#"{"logs":[0],"nextToken":null}"#, 1),
            (r#"{"logs":[],"nextToken":"t"}"#, 0),
            (r#"{"logs":null,"other":{"x":[1]}}"#, 0),
        ] {
            assert_eq!(read(frame, records).unwrap(), None, "{frame}");
        }
        for frame in ["{}", "[]", "<html>", r#"{"logs":[0"#, r#"{"logs":[]} x"#, r#"{"logs":5}"#] {
            assert!(read(frame, 0).is_err(), "{frame}");
        }
    }
}
