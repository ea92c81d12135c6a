//! Records in the words of a common schema, by tables that anybody can check against the vendor's
//! field list.
//!
//! A table ([`table`]) names a target, the vendor's fields it comes from, and a conversion
//! (`convert`). It is compiled once per stream (`plan`) and filled by each record (`fill`). What has
//! no home, and what is not of the type that its home wants, stays under the vendor's own name: no
//! value is lost, and no record.

mod address;
mod convert;
pub mod ecs;
mod fill;
mod found;
mod lists;
pub mod ocsf;
mod plan;
pub mod redact;
pub mod table;
mod text;

use crate::config::{EcsMapping, Format};
use crate::record::Shape;
pub use fill::{Event, Scratch};
pub use plan::About;
use plan::Plan;
use table::Row;
pub use text::json;

/// The tables by which a format writes the records of a stream; `None` if it needs none.
#[must_use]
pub fn tables(format: Format, mapping: EcsMapping, shape: &Shape) -> Option<Vec<&'static [Row]>> {
    match format {
        Format::Envelope | Format::Raw => None,
        Format::Ecs => ecs::tables(mapping, shape),
        Format::Ocsf => ocsf::tables(shape),
    }
}

/// Writes the records of one stream by its tables.
pub struct Mapped(Plan);

impl Mapped {
    /// A writer for what is known of a stream's events.
    #[must_use]
    pub fn new(tables: &[&'static [Row]], about: About<'_>) -> Self {
        Self(Plan::new(tables.iter().copied().flatten(), Some(about)))
    }

    /// Appends the map of an event.
    pub fn write(&self, out: &mut Vec<u8>, event: &Event<'_>, scratch: &mut Scratch) {
        self.0.write(out, event, scratch);
    }
}
