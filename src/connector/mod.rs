//! The vendor's products: what to ask for, and how to read the answer.
//!
//! A connector is a pure description of one API. It builds requests and reads pages; it never does
//! I/O, sleeps or reads a clock, it never sees a credential, and it never knows another connector.
//! To add one, write its file and add its line to [`PRODUCTS`].

pub mod email_security;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::http::{Request, Response, auth::Scheme};
use crate::page::Body;
use crate::record::{Record, Shape};
use crate::window::Window;

/// Every product that can be collected from.
pub const PRODUCTS: &[&Product] = &[&email_security::PRODUCT];

/// One of the vendor's products.
pub struct Product {
    /// Its name in the configuration.
    pub name: &'static str,
    /// What the API's own paths begin with; the rest of a base URL is what comes before.
    pub api_root: &'static str,
    /// Region names and their hosts, the default first.
    pub regions: &'static [(&'static str, &'static str)],
    /// What can be collected, each a stream of its own.
    pub content_types: &'static [&'static str],
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
pub struct Settings {
    /// The path of the base URL, without a trailing `/`.
    pub base_path: String,
    /// Login ID.
    pub username: String,
    /// Content types to collect; empty means all.
    pub content_types: Vec<String>,
}

/// One stream: a sequence of records with its own cursor.
#[derive(Debug)]
pub struct Stream {
    /// Its content type, as in the configuration and in tags.
    pub content_type: &'static str,
    /// `msg_class` of its records.
    pub msg_class: String,
    /// `msg_origin.category` of its records.
    pub category: &'static str,
    /// How its records are read; its `source` is `msg_origin.source`, and the key of the vendor's
    /// record in the envelope.
    pub shape: Shape,
}

/// One answer's worth of records.
pub struct Page {
    /// Its records, in the vendor's order, which means nothing.
    pub records: Vec<Record>,
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
    /// the pointer to the next page.
    ///
    /// # Errors
    /// When the frame is not what this API answers; the page must then be asked for again.
    fn read_frame(&self, frame: &str, records: usize) -> Result<Option<String>>;
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
    let next = connector
        .read_frame(&frame, records.len())
        .map_err(|error| unreadable(response, &excerpt).caused_by(error))?;
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
        let legal: Vec<&str> = options::find("region").unwrap().legal.split(", ").collect();
        for (region, host) in PRODUCTS.iter().flat_map(|product| product.regions) {
            assert!(legal.contains(region), "{region}");
            assert!(host.contains("trendmicro"), "{host}");
        }
    }
}
