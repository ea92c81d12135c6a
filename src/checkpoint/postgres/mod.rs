//! A PostgreSQL database that several hosts share: cursors and ledgers, leases, budgets.
//!
//! Every change of a stream is saved under a lease's epoch, which is compared in the same transaction;
//! the row of the lease is locked meanwhile, so nobody takes it between the look and the commit. All
//! times by which hosts are judged are the server's.

mod budget;
mod fault;
mod link;
mod people;
mod registry;
mod schema;
mod store;

use tokio_postgres::types::{ToSql, Type};

use crate::config::DbServer;
use crate::error::Result;

pub use people::{Host, Overview, Run, Standing};

use link::Link;
use schema::Setup;

/// A database. It is connected to when it is first asked, and anew after every failure.
pub struct Postgres {
    link: Link,
}

impl Postgres {
    /// The database at an address; nothing is sent yet.
    ///
    /// # Errors
    /// When the address or the file of certificates cannot be used.
    pub fn new(server: &DbServer) -> Result<Self> {
        Ok(Self { link: Link::new(server, Setup::Make)? })
    }

    /// The same, to be looked at: tables that are missing are not made.
    ///
    /// # Errors
    /// When the address or the file of certificates cannot be used.
    pub fn look(server: &DbServer) -> Result<Self> {
        Ok(Self { link: Link::new(server, Setup::Leave)? })
    }

    /// Whether a database could be used, which changes nothing in it; says what was found.
    ///
    /// # Errors
    /// When it cannot be reached, or used.
    pub fn probe(server: &DbServer) -> Result<String> {
        let mut link = Link::new(server, Setup::Try)?;
        link.call(async |session| schema::describe(session).await)
    }

    /// Connects, and makes or migrates the tables, if that was not done yet.
    ///
    /// # Errors
    /// When the database cannot be reached, or used.
    pub fn connect(&mut self) -> Result<()> {
        self.link.call(async |_| Ok(()))
    }
}

/// Values of a statement with their types, so that it takes one message and one answer.
type Values<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// An epoch as the database has it.
fn signed(epoch: u64) -> i64 {
    i64::try_from(epoch).unwrap_or(i64::MAX)
}

fn unsigned(epoch: i64) -> u64 {
    u64::try_from(epoch).unwrap_or_default()
}
