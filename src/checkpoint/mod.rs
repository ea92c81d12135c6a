//! What survives a restart: the cursors, and the ledger of delivered records.
//!
//! Only the committer calls this room, and only for what the host has confirmed.

mod connection;
mod file;
mod guard;
mod schema;
mod sqlite;

use crate::clock::Time;
use crate::config::Db;
use crate::error::Result;
use crate::record::Id;
use crate::sweep::{self, Entity};
use crate::window::{PASSES, Window};

pub use connection::connect;
pub use sqlite::Sqlite;

/// What was saved for a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Up to where everything was delivered.
    pub cursor: Option<Time>,
    /// Up to where each verification pass has read.
    pub verified: [Option<Time>; PASSES],
    /// What the receiver was told of an inventory.
    pub entities: Vec<Entity>,
    /// An older store was damaged and set aside, so nobody knows where the stream stood.
    pub is_unknown: bool,
}

/// What has changed for a stream.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The stream's key in the store.
    pub stream: String,
    /// Records now delivered, by the window that showed them.
    pub delivered: Vec<(Window, Vec<Id>)>,
    /// What the receiver was now told of an inventory, or is about to be.
    pub entities: Vec<(sweep::Change, Entity)>,
    /// The new cursor, if it moved.
    pub cursor: Option<Time>,
    /// How far verification passes have read now, of those that moved.
    pub verified: [Option<Time>; PASSES],
    /// Delivered records of windows that ended before this can be forgotten.
    pub forget_before: Option<Time>,
}

impl Change {
    /// Whether there is nothing to save.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.delivered.is_empty()
            && self.entities.is_empty()
            && self.cursor.is_none()
            && self.verified.iter().all(Option::is_none)
            && self.forget_before.is_none()
    }
}

/// Opens the state file, if there is to be one.
///
/// # Errors
/// When it cannot be used.
pub fn open(db: Option<&Db>) -> Result<Box<dyn Store>> {
    Ok(match db {
        Some(db) => Box::new(Sqlite::open(&db.path, db.sync)?),
        None => Box::new(Forgetful),
    })
}

/// A durable place for cursors and ledger.
pub trait Store: Send {
    /// What a person must know about how it was opened, once.
    fn notice(&mut self) -> Option<String> {
        None
    }

    /// Where a stream stands; nothing for a stream that is new.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn load(&mut self, stream: &str) -> Result<Saved>;

    /// The delivered records of a stream that windows touching `span` have shown, each with the end
    /// of its window; `None` if they are more than `count_max`.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn recall(
        &mut self,
        stream: &str,
        span: Window,
        count_max: usize,
    ) -> Result<Option<Vec<(Time, Id)>>>;

    /// Saves all changes or none.
    ///
    /// # Errors
    /// When the store cannot be written; nothing was saved then. `Damaged` if it never will be.
    fn commit(&mut self, changes: &[Change]) -> Result<()>;

    /// Sets a damaged store aside and begins anew with `changes`, which hold all there is to know;
    /// says what became of the old one.
    ///
    /// # Errors
    /// When that fails, too.
    fn renew(&mut self, changes: &[Change]) -> Result<String>;
}

/// The store of a stanza without `db`: it forgets everything.
pub struct Forgetful;

impl Store for Forgetful {
    fn load(&mut self, _: &str) -> Result<Saved> {
        Ok(Saved::default())
    }

    fn recall(&mut self, _: &str, _: Window, _: usize) -> Result<Option<Vec<(Time, Id)>>> {
        Ok(Some(Vec::new()))
    }

    fn commit(&mut self, _: &[Change]) -> Result<()> {
        Ok(())
    }

    fn renew(&mut self, _: &[Change]) -> Result<String> {
        Ok(String::new())
    }
}
