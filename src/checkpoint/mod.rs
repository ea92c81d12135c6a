//! What survives a restart: the cursors, and the ledger of delivered records.
//!
//! Only the committer calls this room, and only for what the host has confirmed.

mod guard;
mod sqlite;

use crate::clock::Time;
use crate::error::Result;
use crate::record::Id;
use crate::sweep::{self, Entity};

pub use sqlite::Sqlite;

/// What was saved for a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Up to where everything was delivered.
    pub cursor: Option<Time>,
    /// Delivered records, each with the end of the window that showed it.
    pub ids: Vec<(Time, Id)>,
    /// What the receiver was told of an inventory.
    pub entities: Vec<Entity>,
}

/// What has changed for a stream.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The stream's key in the store.
    pub stream: String,
    /// Records now delivered, by the end of the window that showed them.
    pub delivered: Vec<(Time, Vec<Id>)>,
    /// What the receiver was now told of an inventory, or is about to be.
    pub entities: Vec<(sweep::Change, Entity)>,
    /// The new cursor, if it moved.
    pub cursor: Option<Time>,
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
            && self.forget_before.is_none()
    }
}

/// A durable place for cursors and ledger.
pub trait Store: Send {
    /// What was saved for a stream; nothing for a stream that is new.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn load(&mut self, stream: &str) -> Result<Saved>;

    /// Saves all changes or none.
    ///
    /// # Errors
    /// When the store cannot be written; nothing was saved then.
    fn commit(&mut self, changes: &[Change]) -> Result<()>;
}

/// The store of a stanza without `db`: it forgets everything.
pub struct Forgetful;

impl Store for Forgetful {
    fn load(&mut self, _: &str) -> Result<Saved> {
        Ok(Saved::default())
    }

    fn commit(&mut self, _: &[Change]) -> Result<()> {
        Ok(())
    }
}
