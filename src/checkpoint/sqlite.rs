//! The state file: SQLite in WAL mode, held exclusively for as long as it is open.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Change, Saved, Store, guard};
use crate::clock::Time;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Id;
use crate::sweep::{self, Entity};

/// Marks the file as ours, so that another program's database is never written to ("TMFB").
const APPLICATION_ID: i32 = 0x544d_4642;
/// The schema that this version writes.
const SCHEMA_VERSION: i32 = 1;
/// A process that is just ending still holds the file for a moment.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Ids lie together as they were committed, 16 bytes each, big-endian: a row per record would cost
/// many times the work for nothing, since the set that is asked lives in memory.
const SCHEMA: &str = "
    CREATE TABLE in_trendmicro_cursor (
        stream TEXT PRIMARY KEY,
        position_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE in_trendmicro_ledger (
        stream TEXT NOT NULL,
        until_ms INTEGER NOT NULL,
        ids BLOB NOT NULL
    );
    CREATE INDEX in_trendmicro_ledger_until ON in_trendmicro_ledger (stream, until_ms);
    CREATE TABLE in_trendmicro_inventory (
        stream TEXT NOT NULL,
        key BLOB NOT NULL,
        version BLOB NOT NULL,
        name BLOB NOT NULL,
        PRIMARY KEY (stream, key)
    ) WITHOUT ROWID;";

/// A state file.
pub struct Sqlite {
    path: PathBuf,
    connection: Connection,
}

impl Sqlite {
    /// Opens the file, or makes it, and locks it.
    ///
    /// # Errors
    /// When it is in use, is not a state file, comes from a newer version, or cannot be written.
    pub fn open(path: &Path, sync: &str) -> Result<Self> {
        let fault = |error: rusqlite::Error| cannot_open(path, &error);
        guard::check(path)?;
        create_private(path)?;
        let connection = Connection::open(path).map_err(fault)?;
        connection.busy_timeout(LOCK_TIMEOUT).map_err(fault)?;
        // Exclusive mode takes the lock with the first access and keeps it until the file is closed,
        // also against a second opening by this process.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(fault)?;
        let mut store = Self { path: path.to_owned(), connection };
        store.check_owner()?;
        store.connection.pragma_update(None, "journal_mode", "WAL").map_err(fault)?;
        store.connection.pragma_update(None, "synchronous", sync).map_err(fault)?;
        store.migrate().map_err(fault)?;
        Ok(store)
    }

    fn check_owner(&self) -> Result<()> {
        let number = |name| -> rusqlite::Result<i32> {
            self.connection.pragma_query_value(None, name, |row| row.get(0))
        };
        let fault = |error: rusqlite::Error| cannot_open(&self.path, &error);
        let owner = number("application_id").map_err(fault)?;
        let version = number("user_version").map_err(fault)?;
        let tables: i32 = self
            .connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(fault)?;
        if owner != APPLICATION_ID && tables > 0 {
            return Err(self.refuse("is another program's database", "a file of its own"));
        }
        if owner == APPLICATION_ID && version > SCHEMA_VERSION {
            return Err(self.refuse(
                &format!("has schema version {version}, newer than {SCHEMA_VERSION}"),
                "a file of this or an older version of the plugin",
            ));
        }
        Ok(())
    }

    fn refuse(&self, why: &str, legal: &str) -> Error {
        Error::config(format!(
            "db = \"{}\": {why}; legal: {legal}; write: db: {}.new",
            self.path.display(),
            self.path.display()
        ))
    }

    /// Makes the tables where they are missing, and takes the lock in any case.
    fn migrate(&mut self) -> rusqlite::Result<()> {
        let transaction =
            self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive)?;
        let version: i32 =
            transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version == 0 {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        // Written also when it is right already: a transaction that writes nothing takes no lock.
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        transaction.commit()
    }

    fn fault(&self, what: &str, error: rusqlite::Error) -> Error {
        let text = format!("state file \"{}\" cannot be {what}", self.path.display());
        Error::new(ErrorKind::Store, text).caused_by(error)
    }
}

impl Store for Sqlite {
    fn load(&mut self, stream: &str) -> Result<Saved> {
        let read = |connection: &Connection| -> rusqlite::Result<Saved> {
            let cursor: Option<i64> = connection
                .query_row(
                    "SELECT position_ms FROM in_trendmicro_cursor WHERE stream = ?1",
                    [stream],
                    |row| row.get(0),
                )
                .optional()?;
            let mut statement = connection
                .prepare("SELECT until_ms, ids FROM in_trendmicro_ledger WHERE stream = ?1")?;
            let mut rows = statement.query([stream])?;
            let mut saved = Saved { cursor: cursor.map(from_millis), ..Saved::default() };
            while let Some(row) = rows.next()? {
                let until = from_millis(row.get(0)?);
                let ids = row.get_ref(1)?.as_blob()?.as_chunks::<16>().0;
                saved.ids.extend(ids.iter().map(|&id| (until, Id(u128::from_be_bytes(id)))));
            }
            let mut statement = connection.prepare(
                "SELECT key, version, name FROM in_trendmicro_inventory WHERE stream = ?1",
            )?;
            let id = |bytes| Id(u128::from_be_bytes(bytes));
            let entities = statement.query_map([stream], |row| {
                Ok(Entity { key: id(row.get(0)?), version: id(row.get(1)?), name: row.get(2)? })
            })?;
            saved.entities = entities.collect::<Result<_, _>>()?;
            Ok(saved)
        };
        read(&self.connection).map_err(|error| self.fault("read", error))
    }

    fn commit(&mut self, changes: &[Change]) -> Result<()> {
        let saved = self.connection.transaction().and_then(|transaction| {
            changes.iter().try_for_each(|change| save(&transaction, change))?;
            transaction.commit()
        });
        saved.map_err(|error| self.fault("written", error))
    }
}

fn save(transaction: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO in_trendmicro_ledger (stream, until_ms, ids) VALUES (?1, ?2, ?3)",
    )?;
    for (until, ids) in &change.delivered {
        let ids: Vec<u8> = ids.iter().flat_map(|id| id.0.to_be_bytes()).collect();
        insert.execute(params![change.stream, until.timestamp_millis(), ids])?;
    }
    for (what, entity) in &change.entities {
        save_entity(transaction, &change.stream, *what, entity)?;
    }
    if let Some(cursor) = change.cursor {
        transaction
            .prepare_cached(
                "INSERT INTO in_trendmicro_cursor (stream, position_ms) VALUES (?1, ?2)
                 ON CONFLICT (stream) DO UPDATE SET position_ms = excluded.position_ms",
            )?
            .execute(params![change.stream, cursor.timestamp_millis()])?;
    }
    if let Some(before) = change.forget_before {
        transaction
            .prepare_cached("DELETE FROM in_trendmicro_ledger WHERE stream = ?1 AND until_ms < ?2")?
            .execute(params![change.stream, before.timestamp_millis()])?;
    }
    Ok(())
}

fn save_entity(
    transaction: &Transaction<'_>,
    stream: &str,
    change: sweep::Change,
    Entity { key, version, name }: &Entity,
) -> rusqlite::Result<()> {
    let (key, version) = (key.0.to_be_bytes(), version.0.to_be_bytes());
    if change == sweep::Change::Removed {
        return transaction
            .prepare_cached("DELETE FROM in_trendmicro_inventory WHERE stream = ?1 AND key = ?2")?
            .execute(params![stream, key])
            .map(drop);
    }
    transaction
        .prepare_cached("REPLACE INTO in_trendmicro_inventory VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![stream, key, version, name])
        .map(drop)
}

/// Makes the file before SQLite does, since SQLite would let others read it.
fn create_private(path: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map(drop).map_err(|error| {
        Error::config(format!(
            "db = \"{}\": cannot be opened for writing; legal: a file path whose directory exists \
             and can be written to; write: db: /var/lib/fluent-bit/trendmicro.db",
            path.display()
        ))
        .caused_by(error)
    })
}

fn cannot_open(path: &Path, error: &rusqlite::Error) -> Error {
    let path = path.display();
    let (why, write) = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => (
            "in use by another process or another input".to_owned(),
            format!("{path}.second, or stop the other one"),
        ),
        Some(rusqlite::ErrorCode::NotADatabase) => {
            ("not a state file".to_owned(), format!("{path}.new"))
        }
        _ => (error.to_string(), "/var/lib/fluent-bit/trendmicro.db".to_owned()),
    };
    Error::config(format!(
        "db = \"{path}\": {why}; legal: a file that only this input uses; write: db: {write}"
    ))
}

fn from_millis(millis: i64) -> Time {
    Time::from_timestamp_millis(millis).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn at(secs: i64) -> Time {
        Time::from_timestamp(secs, 0).unwrap()
    }

    fn entity(key: u128) -> Entity {
        Entity { key: Id(key), version: Id(7), name: vec![1, 2, 3] }
    }

    #[test]
    fn what_is_committed_is_loaded_again_and_what_is_out_of_reach_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let mut store = Sqlite::open(&path, "NORMAL").unwrap();
        assert_eq!(store.load("a").unwrap(), Saved::default());
        let change = Change {
            stream: "a".into(),
            delivered: vec![(at(10), vec![Id(1), Id(u128::MAX)]), (at(20), vec![Id(2)])],
            cursor: Some(at(10)),
            entities: vec![
                (sweep::Change::Added, entity(1)),
                (sweep::Change::Added, entity(2)),
                (sweep::Change::Removed, entity(1)),
            ],
            forget_before: None,
        };
        store.commit(&[change.clone(), Change { stream: "b".into(), ..change }]).unwrap();
        drop(store);
        let mut store = Sqlite::open(&path, "FULL").unwrap();
        let saved = store.load("a").unwrap();
        assert_eq!(saved.cursor, Some(at(10)));
        assert_eq!(saved.ids.len(), 3);
        assert_eq!(saved.entities, [entity(2)]);
        assert!(saved.ids.contains(&(at(10), Id(u128::MAX))));
        let forget =
            Change { stream: "a".into(), forget_before: Some(at(20)), ..Change::default() };
        store.commit(&[forget]).unwrap();
        assert_eq!(store.load("a").unwrap().ids, [(at(20), Id(2))]);
        assert_eq!(store.load("b").unwrap().ids.len(), 3, "another stream is untouched");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_in_use_or_of_somebody_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let open = |path: &Path| Sqlite::open(path, "NORMAL").map(drop).unwrap_err().to_string();
        let first = Sqlite::open(&path, "NORMAL").unwrap();
        assert!(open(&path).contains("in use by another process or another input"));
        drop(first);
        Sqlite::open(&path, "NORMAL").unwrap();

        let foreign = dir.path().join("foreign.db");
        Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        assert!(open(&foreign).contains("another program's database"));
        let garbage = dir.path().join("garbage.db");
        std::fs::write(&garbage, "no database at all, but some longer text").unwrap();
        assert!(open(&garbage).contains("not a state file"));
        assert!(std::fs::read_to_string(&garbage).unwrap().starts_with("no database"));
        let newer = Connection::open(&path).unwrap();
        newer.pragma_update(None, "user_version", 99).unwrap();
        drop(newer);
        assert!(open(&path).contains("schema version 99"));
        assert!(open(&dir.path().join("none/state.db")).contains("cannot be opened"));
    }
}
