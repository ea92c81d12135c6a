//! What survives a restart: the cursors, and the ledger of delivered records.
//!
//! The committer writes it, and only what the host has confirmed. It lies in a file of this host's, or
//! in a database that several hosts share; there, this room also keeps the leases and the budgets.

mod connection;
mod file;
mod guard;
pub mod postgres;
mod schema;
mod sqlite;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Time;
use crate::config::Db;
use crate::error::Result;
use crate::http::limiter;
use crate::lease::{Lease, Member, Roll, Tenure};
use crate::record::Id;
use crate::sweep::{self, Entity};
use crate::window::{PASSES, Window};

pub use connection::connect;
pub use postgres::Postgres;
pub use sqlite::Sqlite;

/// Bytes of an id, as every store has it.
const ID_BYTES: usize = 16;

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
    /// The lease under which it changed; a state file has none.
    pub tenure: Tenure,
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

/// Where an instance keeps its state.
pub struct Opened {
    /// For the committer.
    pub store: Box<dyn Store>,
    /// What it shares with other hosts, if it does.
    pub shared: Option<Shared>,
}

/// What several hosts share; each part has a connection of its own, so that none waits for another.
pub struct Shared {
    /// The leases.
    pub registry: Box<dyn Registry>,
    /// The budgets.
    pub budget: limiter::SharedBudget,
    /// After what time of silence another host takes over.
    pub lease_timeout: Duration,
}

/// Opens the state file, if there is to be one; a database is connected to when it is first asked.
///
/// # Errors
/// When it cannot be used.
pub fn open(db: Option<&Db>) -> Result<Opened> {
    Ok(match db {
        None => Opened { store: Box::new(Forgetful), shared: None },
        Some(Db::File(file)) => {
            Opened { store: Box::new(Sqlite::open(&file.path, file.sync)?), shared: None }
        }
        Some(Db::Server(server)) => {
            let shared = Shared {
                registry: Box::new(Postgres::new(server)?),
                budget: Arc::new(Mutex::new(Box::new(Postgres::new(server)?))),
                lease_timeout: server.lease_timeout,
            };
            Opened { store: Box::new(Postgres::new(server)?), shared: Some(shared) }
        }
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

    /// Saves all changes or none, except those of a tenure that is over: of these nothing is ever
    /// saved. Returns the tenures that are over.
    ///
    /// # Errors
    /// When the store cannot be written; nothing was saved then, or nobody knows, so that the same
    /// changes must be saved again. `Damaged` if it never will be.
    fn commit(&mut self, changes: &[Change]) -> Result<Vec<Tenure>>;

    /// Sets a damaged store aside and begins anew with `changes`, which hold all there is to know;
    /// says what became of the old one.
    ///
    /// # Errors
    /// When that fails, too.
    fn renew(&mut self, changes: &[Change]) -> Result<String>;
}

/// Where hosts find each other: the leases of what they share.
pub trait Registry: Store {
    /// Says that `me` lives and will be taken for dead after `timeout`, makes sure that its
    /// connectors have leases, and reads who else lives and who runs what.
    ///
    /// # Errors
    /// When the database cannot be asked.
    fn beat(&mut self, me: &Member, timeout: Duration) -> Result<Roll>;

    /// Takes the lease that was `seen` for the member `me`; returns its new epoch, or `None` if it
    /// has changed since.
    ///
    /// # Errors
    /// When the database cannot be asked; the lease may be taken all the same.
    fn take(&mut self, me: &str, seen: &Lease) -> Result<Option<u64>>;

    /// Gives a lease back, if the tenure is not over anyway.
    ///
    /// # Errors
    /// When the database cannot be asked.
    fn release(&mut self, me: &str, tenure: &Tenure) -> Result<()>;

    /// Gives all leases of the member `me` back and forgets it.
    ///
    /// # Errors
    /// When the database cannot be asked.
    fn leave(&mut self, me: &str) -> Result<()>;
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

    fn commit(&mut self, _: &[Change]) -> Result<Vec<Tenure>> {
        Ok(Vec::new())
    }

    fn renew(&mut self, _: &[Change]) -> Result<String> {
        Ok(String::new())
    }
}

/// A time as every store has it; what is none is the beginning of 1970.
fn from_millis(millis: i64) -> Time {
    Time::from_timestamp_millis(millis).unwrap_or_default()
}

/// An id as every store has it.
fn id_bytes(id: Id) -> [u8; ID_BYTES] {
    id.0.to_be_bytes()
}

/// The same the other way.
fn id(bytes: [u8; ID_BYTES]) -> Id {
    Id(u128::from_be_bytes(bytes))
}

/// Ids as a row of a ledger has them, one behind the other.
fn pack(ids: &[Id]) -> Vec<u8> {
    ids.iter().copied().flat_map(id_bytes).collect()
}

/// The same the other way.
fn unpack(bytes: &[u8]) -> impl Iterator<Item = Id> {
    bytes.as_chunks().0.iter().copied().map(id)
}
