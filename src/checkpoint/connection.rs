//! SQLite, opened so that a file of somebody else's making does no harm.
//!
//! A database can be a program: views, triggers, virtual tables, generated columns and expressions
//! run when a table is read, and none of them has a bound. A state file has nothing of the kind, so
//! all of it is switched off, and what cannot be switched off is bounded.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

/// The largest row of our own: what 256 batches of 1 MB have delivered, by 16 bytes an event of 20.
const ROW_BYTES_MAX: i32 = 256 * 1024 * 1024;
/// Switches, and how they stand.
const SWITCHES: [(DbConfig, bool); 6] = [
    (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
    (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, false),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, false),
];
/// Bounds; our own statements are far below them.
const LIMITS: [(Limit, i32); 8] = [
    (Limit::SQLITE_LIMIT_LENGTH, ROW_BYTES_MAX),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 64 * 1024),
    (Limit::SQLITE_LIMIT_COLUMN, 64),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 64),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 8),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 0),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
];
/// Pages in memory, in KiB below zero; a file's header may ask for two thousand million pages.
const CACHE: i64 = -2_000;

/// Opens a file that is there already, and keeps others out of it for as long as it is open;
/// somebody who has it gets so much time to let go.
///
/// # Errors
/// When it is in use or is no database.
pub fn connect(path: &Path, patience: Duration) -> rusqlite::Result<Connection> {
    // SQLite is compiled to take `file:` for the beginning of a URI, with all that one can ask for,
    // whatever the flags say.
    let plain = Path::new(".").join(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(plain, flags)?;
    connection.busy_timeout(patience)?;
    for (switch, is_on) in SWITCHES {
        connection.set_db_config(switch, is_on)?;
    }
    for (limit, value) in LIMITS {
        connection.set_limit(limit, value)?;
    }
    connection.pragma_update(None, "cell_size_check", true)?;
    // Exclusive mode takes the lock with the first access and keeps it until the file is closed,
    // also against a second opening by this process.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "cache_size", CACHE)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_defence_of_sqlites_own_is_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        assert!(connect(&path, Duration::ZERO).is_err(), "nothing is made");
        std::fs::write(&path, "").unwrap();
        let connection = connect(&path, Duration::ZERO).unwrap();
        for (switch, is_on) in SWITCHES {
            assert_eq!(connection.db_config(switch).unwrap(), is_on, "{switch:?}");
        }
        for (limit, value) in LIMITS {
            assert_eq!(connection.limit(limit).unwrap(), value, "{limit:?}");
        }
        let number =
            |name| -> i64 { connection.pragma_query_value(None, name, |row| row.get(0)).unwrap() };
        assert_eq!(number("cell_size_check"), 1);
        assert_eq!(number("cache_size"), CACHE);
        assert_eq!(number("trusted_schema"), 0);
        let journal: String =
            connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        connection.pragma_update(None, "journal_mode", "OFF").unwrap();
        let after: String =
            connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(journal, after, "a defended file keeps its journal");
        assert!(connection.execute_batch("ATTACH ':memory:' AS other").is_err());
    }

    #[test]
    fn a_header_that_asks_for_memory_gets_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let greedy = Connection::open(&path).unwrap();
        greedy.execute_batch("PRAGMA default_cache_size = 2000000000; CREATE TABLE t (x)").unwrap();
        drop(greedy);
        let connection = connect(&path, Duration::ZERO).unwrap();
        let pages: i64 =
            connection.pragma_query_value(None, "cache_size", |row| row.get(0)).unwrap();
        assert_eq!(pages, CACHE);
    }
}
