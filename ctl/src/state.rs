//! The state file, read and written while the plugin does not run.
//!
//! The plugin holds its file exclusively, so nobody can look into it meanwhile; this room says so and
//! names the process. It knows the tables that it needs by name, and leaves alone what it does not
//! know, so that a newer plugin's file can be read as well.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use in_trendmicro::checkpoint;
use in_trendmicro::error::{Error, Result};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::time::Time;

/// What the plugin marks its files with ("TMFB").
const APPLICATION_ID: i32 = 0x544d_4642;
/// Another reader is gone in a moment; the plugin is not.
const BUSY_TIMEOUT: Duration = Duration::from_millis(300);
/// Bytes of an id in the ledger.
const ID_BYTES: usize = 16;

/// A process that has the file open.
#[derive(Debug)]
pub struct Holder {
    pid: u32,
    name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({})", self.pid, self.name)
    }
}

/// Whether a state file can be opened now.
#[derive(Debug)]
pub enum Access {
    /// It can.
    Free,
    /// A process has it, the plugin as a rule.
    InUse(Vec<Holder>),
    /// It is not there; whether it could be made.
    Missing(std::io::Result<()>),
    /// It is no state file, or cannot be read.
    Unusable(String),
}

/// Looks whether a state file can be opened, and changes nothing.
#[must_use]
pub fn access(path: &Path) -> Access {
    if fs::symlink_metadata(path).is_err() {
        return Access::Missing(try_folder(path));
    }
    match StateFile::open(path) {
        Ok(_) => Access::Free,
        Err(Refusal::InUse(holders)) => Access::InUse(holders),
        Err(Refusal::Other(error)) => Access::Unusable(error.to_string()),
    }
}

/// Whether a file can be made beside `path`.
fn try_folder(path: &Path) -> std::io::Result<()> {
    let probe = path.with_extension(format!("probe-{}", std::process::id()));
    fs::File::create_new(&probe)?;
    fs::remove_file(&probe)
}

/// Why a state file was not opened.
#[derive(Debug)]
pub enum Refusal {
    /// These processes have it.
    InUse(Vec<Holder>),
    /// Anything else.
    Other(Error),
}

/// What a stream has in the file.
#[derive(Debug, Clone)]
pub struct Saved {
    /// Its key: connector, product, host, account and stream.
    pub key: String,
    /// Up to where everything was delivered.
    pub cursor: Option<Time>,
    /// Delivered records that are remembered one by one.
    pub ledger_count: i64,
    /// The earliest end of a window whose records are remembered.
    pub ledger_since: Option<Time>,
    /// Entries of an inventory that the receiver was told of.
    pub inventory_count: i64,
}

impl Saved {
    /// The connector and the stream in its key.
    #[must_use]
    pub fn names(&self) -> (&str, &str) {
        let connector = self.key.split('/').next().unwrap_or_default();
        (connector, self.key.rsplit('/').next().unwrap_or_default())
    }

    /// The product in its key.
    #[must_use]
    pub fn product(&self) -> &str {
        self.key.split('/').nth(1).unwrap_or_default()
    }

    /// Whether it is meant by a whole key, `CONNECTOR`, or `CONNECTOR/STREAM`.
    #[must_use]
    pub fn is_meant(&self, pattern: &str) -> bool {
        let (connector, stream) = self.names();
        pattern == self.key
            || pattern == connector
            || pattern.split_once('/') == Some((connector, stream))
    }
}

/// An open state file; nobody else can open it meanwhile.
pub struct StateFile {
    path: PathBuf,
    connection: Connection,
}

impl StateFile {
    /// Opens the file; it is not made if it is missing.
    ///
    /// # Errors
    /// When it is in use, or is no state file.
    pub fn open(path: &Path) -> Result<Self, Refusal> {
        let fault = |error: &rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Refusal::InUse(holders(path))
            }
            _ => Refusal::Other(Error::config(format!("{}: {error}", path.display()))),
        };
        let connection = checkpoint::connect(path, BUSY_TIMEOUT).map_err(|e| fault(&e))?;
        let owner: i32 = connection
            .pragma_query_value(None, "application_id", |row| row.get(0))
            .map_err(|e| fault(&e))?;
        if owner != APPLICATION_ID {
            let text = format!("{}: not a state file of this plugin", path.display());
            return Err(Refusal::Other(Error::config(text)));
        }
        if let Some(name) = program(&connection).map_err(|e| fault(&e))? {
            let text = format!(
                "{}: {name:?} is no plain table, so somebody else has made it; the plugin sets such a \
                 file aside when it starts",
                path.display()
            );
            return Err(Refusal::Other(Error::config(text)));
        }
        Ok(Self { path: path.to_owned(), connection })
    }

    /// Every stream that the file knows, by key.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn streams(&self) -> Result<Vec<Saved>> {
        let read = || -> rusqlite::Result<Vec<Saved>> {
            let mut statement = self.connection.prepare(
                "SELECT stream FROM in_trendmicro_cursor
                 UNION SELECT stream FROM in_trendmicro_ledger
                 UNION SELECT stream FROM in_trendmicro_inventory ORDER BY stream",
            )?;
            let keys = statement.query_map([], |row| row.get(0))?;
            keys.map(|key| self.stream(key?)).collect()
        };
        read().map_err(|error| self.fault("read", &error))
    }

    fn stream(&self, key: String) -> rusqlite::Result<Saved> {
        let cursor: Option<i64> = self
            .connection
            .query_row(
                "SELECT position_ms FROM in_trendmicro_cursor WHERE stream = ?1",
                [&key],
                |row| row.get(0),
            )
            .optional()?;
        let (bytes, since): (i64, Option<i64>) = self.connection.query_row(
            "SELECT coalesce(sum(length(ids)), 0), min(until_ms)
             FROM in_trendmicro_ledger WHERE stream = ?1",
            [&key],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let inventory_count = self.connection.query_row(
            "SELECT count(*) FROM in_trendmicro_inventory WHERE stream = ?1",
            [&key],
            |row| row.get(0),
        )?;
        Ok(Saved {
            key,
            cursor: cursor.and_then(Time::from_timestamp_millis),
            ledger_count: bytes / ID_BYTES as i64,
            ledger_since: since.and_then(Time::from_timestamp_millis),
            inventory_count,
        })
    }

    /// The ids of records that a stream remembers as delivered, each with its window's end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn ledger(&self, key: &str) -> Result<Vec<(Time, u128)>> {
        let read = || -> rusqlite::Result<Vec<(Time, u128)>> {
            let mut statement = self
                .connection
                .prepare("SELECT until_ms, ids FROM in_trendmicro_ledger WHERE stream = ?1")?;
            let mut rows = statement.query([key])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let until = Time::from_timestamp_millis(row.get(0)?).unwrap_or_default();
                let ids = row.get_ref(1)?.as_blob()?.as_chunks::<ID_BYTES>().0;
                found.extend(ids.iter().map(|&id| (until, u128::from_be_bytes(id))));
            }
            Ok(found)
        };
        read().map_err(|error| self.fault("read", &error))
    }

    /// Moves the cursor of a stream. The ledger stays, so that what was delivered is not delivered
    /// again as far as the ledger reaches.
    ///
    /// # Errors
    /// When the file cannot be written; nothing was changed then.
    pub fn set_cursor(&mut self, key: &str, cursor: Time) -> Result<()> {
        let sql = "INSERT INTO in_trendmicro_cursor (stream, position_ms) VALUES (?1, ?2)
                   ON CONFLICT (stream) DO UPDATE SET position_ms = excluded.position_ms";
        let done = self.connection.execute(sql, params![key, cursor.timestamp_millis()]);
        done.map(drop).map_err(|error| self.fault("written", &error))
    }

    /// Moves the cursor back and forgets what windows that ended in the span have delivered.
    ///
    /// # Errors
    /// When the file cannot be written; nothing was changed then.
    pub fn rewind(&mut self, key: &str, cursor: Time, forget: (Time, Time)) -> Result<()> {
        let change = |connection: &mut Connection| -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            transaction.execute(
                "DELETE FROM in_trendmicro_ledger
                 WHERE stream = ?1 AND until_ms >= ?2 AND until_ms <= ?3",
                params![key, forget.0.timestamp_millis(), forget.1.timestamp_millis()],
            )?;
            transaction.execute(
                "UPDATE in_trendmicro_cursor SET position_ms = ?2
                 WHERE stream = ?1 AND position_ms > ?2",
                params![key, cursor.timestamp_millis()],
            )?;
            transaction.commit()
        };
        change(&mut self.connection).map_err(|error| self.fault("written", &error))
    }

    /// Removes all that the file knows of a stream, in whatever table.
    ///
    /// # Errors
    /// When the file cannot be written; nothing was changed then.
    pub fn reset(&mut self, key: &str) -> Result<()> {
        let change = |connection: &mut Connection| -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            for table in tables_of_streams(&transaction)? {
                let table = table.replace('"', "\"\"");
                transaction
                    .execute(&format!("DELETE FROM \"{table}\" WHERE stream = ?1"), [key])?;
            }
            transaction.commit()
        };
        change(&mut self.connection).map_err(|error| self.fault("written", &error))
    }

    fn fault(&self, what: &str, error: &rusqlite::Error) -> Error {
        Error::config(format!("{}: cannot be {what}: {error}", self.path.display()))
    }
}

/// The name of something in the file that would run when it is read: a view, a trigger, a virtual
/// table.
fn program(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT coalesce(CAST(name AS TEXT), '') FROM sqlite_schema
               WHERE type NOT IN ('table', 'index') OR coalesce(rootpage, 0) = 0 LIMIT 1";
    connection.query_row(sql, [], |row| row.get(0)).optional()
}

/// The plugin's tables that have rows per stream.
fn tables_of_streams(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT t.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c
         WHERE t.type = 'table' AND t.name LIKE 'in\\_trendmicro\\_%' ESCAPE '\\' AND c.name = 'stream'",
    )?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// The processes that have a file open, as far as this user may know.
fn holders(path: &Path) -> Vec<Holder> {
    let Ok(path) = fs::canonicalize(path) else { return Vec::new() };
    let own = std::process::id();
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| pid != own)
        .filter(|pid| {
            let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            links.filter_map(|link| fs::read_link(link.path()).ok()).any(|target| target == path)
        })
        .map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Holder { pid, name: name.trim().to_owned() }
        })
        .collect()
}
