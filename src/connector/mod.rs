//! The vendor's products: what to ask for, and how to read the answer.
//!
//! A connector is a pure description of one API. It builds requests and reads pages; it never does
//! I/O, sleeps or reads a clock, it never sees a credential, and it never knows another connector.
//! To add one, write its file and add its line to [`PRODUCTS`].

pub mod apex_central;
pub mod cloud_app_security;
pub mod email_security;
pub mod workload_security;

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::http::{Request, Response, auth::Scheme};
use crate::page::Body;
use crate::record::{Records, Shape};
use crate::window::Window;

/// Every product that can be collected from.
pub const PRODUCTS: &[&Product] = &[
    &email_security::PRODUCT,
    &cloud_app_security::PRODUCT,
    &apex_central::PRODUCT,
    &workload_security::PRODUCT,
];

/// One of the vendor's products.
pub struct Product {
    /// Its name in the configuration.
    pub name: &'static str,
    /// What the API's own paths begin with; the rest of a base URL is what comes before.
    pub api_root: &'static str,
    /// Region names and their hosts, the default first; empty if every customer has an address.
    pub regions: &'static [(&'static str, &'static str)],
    /// What can be chosen with `content_types`; empty if that is chosen otherwise.
    pub content_types: &'static [&'static str],
    /// Defaults of properties that differ between products.
    pub defaults: &'static [(&'static str, &'static str)],
    /// The path, in a record, to the time by which the vendor filters; empty for an inventory.
    pub generated: &'static [&'static str],
    /// The longest window; zero for an inventory, which has none.
    pub span_max: Duration,
    /// The vendor allows so few requests that streams which show nothing are asked less often.
    pub is_budgeted: bool,
    /// Makes its connector.
    pub connect: fn(&Settings) -> Arc<dyn Connector>,
}

impl std::fmt::Debug for Product {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The product of that name.
#[must_use]
pub fn product(name: &str) -> Option<&'static Product> {
    PRODUCTS.iter().copied().find(|product| product.name.eq_ignore_ascii_case(name))
}

/// What a connector needs to know of its configuration.
#[derive(Default)]
pub struct Settings {
    /// The path of the base URL, without a trailing `/`.
    pub base_path: String,
    /// Host and port of the base URL.
    pub authority: String,
    /// Login ID.
    pub username: String,
    /// Application ID.
    pub application_id: String,
    /// Content types to collect; empty means all.
    pub content_types: Vec<String>,
    /// Services to collect from; empty means all.
    pub services: Vec<String>,
    /// Event types to collect; empty means all.
    pub event_types: Vec<String>,
    /// What to expand.
    pub expand: Vec<String>,
}

/// Whether `name` is among the chosen; nothing chosen means all.
fn is_chosen(chosen: &[String], name: &str) -> bool {
    chosen.is_empty() || chosen.iter().any(|wanted| wanted == name)
}

/// How a stream is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Windows of time behind a cursor; each record once.
    Log,
    /// A sweep lists everything there is, every round.
    Inventory,
}

/// One stream: a sequence of records with its own cursor.
#[derive(Debug)]
pub struct Stream {
    /// Its name, which no other stream of the connector has.
    pub name: String,
    /// Its content type, as in tags.
    pub content_type: &'static str,
    /// `msg_class` of its records.
    pub msg_class: String,
    /// `msg_origin.category` of its records.
    pub category: &'static str,
    /// Members of the envelope beside the common ones: what was asked for.
    pub members: Vec<(&'static str, &'static str)>,
    /// How it is read.
    pub mode: Mode,
    /// How its records are read; its `source` is `msg_origin.source`, and the key of the vendor's
    /// record in the envelope.
    pub shape: Shape,
}

/// One answer's worth of records.
pub struct Page {
    /// Its records, in the vendor's order, which means nothing, without those that were handed over
    /// before its end.
    pub records: Records,
    /// The pointer to the next page of the same window, valid only inside it.
    pub next: Option<String>,
}

/// One vendor API.
pub trait Connector: Send + Sync {
    /// Its streams; a stream is named by its index.
    fn streams(&self) -> &[Stream];

    /// How its requests prove who asks.
    fn scheme(&self) -> Scheme;

    /// The request for a page of a window: the first, or the one that `next` points to.
    fn request(&self, stream: usize, window: &Window, next: Option<&str>) -> Request;

    /// The member of an answer that holds its records.
    fn list(&self) -> &'static str;

    /// Reads the frame of a successful answer, which has a `0` in the place of each record; returns
    /// the pointer to the next page. Of the records, only what was seen of them is sure to be there.
    ///
    /// # Errors
    /// When the frame is not what this API answers; the page must then be asked for again.
    fn read_frame(&self, frame: &str, records: &Records) -> Result<Option<String>>;
}

/// Puts a page together from a body that was read whole; one that is empty holds no records.
///
/// # Errors
/// When the body is not what the API answers.
pub fn read(connector: &dyn Connector, response: &Response, body: Body) -> Result<Page> {
    let Body { records, frame, excerpt } = body;
    if frame.is_empty() {
        return Ok(Page { records, next: None });
    }
    let next = connector.read_frame(&frame, &records).map_err(|error| match error.kind() {
        ErrorKind::Refused => error,
        _ => unreadable(response, &excerpt).caused_by(error),
    })?;
    Ok(Page { records, next })
}

fn unreadable(response: &Response, excerpt: &str) -> Error {
    let kind = response.content_type.as_deref().unwrap_or("unknown type");
    let shown = if excerpt.is_empty() { String::new() } else { format!(" ({excerpt})") };
    Error::retry(format!("the answer of HTTP {}, {kind}, cannot be read{shown}", response.status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options;

    #[test]
    fn the_options_table_names_every_product_and_region() {
        let names: Vec<&str> = PRODUCTS.iter().map(|product| product.name).collect();
        assert_eq!(options::find("connector").unwrap().legal, names.join(", "));
        let legal = options::find("region").unwrap().legal;
        for (region, host) in PRODUCTS.iter().flat_map(|product| product.regions) {
            assert!(legal.contains(*region), "{region}");
            assert!(host.contains("trendmicro"), "{host}");
        }
        for (name, default) in PRODUCTS.iter().flat_map(|product| product.defaults) {
            assert!(options::find(name).unwrap().default.contains(default), "{name}");
        }
    }
}
