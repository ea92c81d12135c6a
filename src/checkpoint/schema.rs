//! The tables of a state file: how they are made, and whether a file holds them and nothing else.

use std::collections::BTreeSet;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, TransactionBehavior};

/// Marks the file as ours, so that another program's database is never written to ("TMFB").
pub(super) const APPLICATION_ID: i32 = 0x544d_4642;

/// What each version of the schema adds to the one before. A file is compared with these texts, so
/// none of them is ever changed.
///
/// Ids lie together as they were committed, 16 bytes each, big-endian: a row per record would cost
/// many times the work for nothing, since the set that is asked lives in memory. The index answers
/// which rows touch a span without looking at their ids.
pub(super) const SCHEMA: &[&str] = &[
    "CREATE TABLE in_trendmicro_cursor (
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
    ) WITHOUT ROWID;",
    "ALTER TABLE in_trendmicro_ledger ADD COLUMN from_ms INTEGER NOT NULL DEFAULT 0;
    DROP INDEX in_trendmicro_ledger_until;
    CREATE INDEX in_trendmicro_ledger_span ON in_trendmicro_ledger (stream, until_ms, from_ms);
    CREATE TABLE in_trendmicro_verified (
        stream TEXT NOT NULL,
        pass INTEGER NOT NULL,
        position_ms INTEGER NOT NULL,
        PRIMARY KEY (stream, pass)
    ) WITHOUT ROWID;
    CREATE TABLE in_trendmicro_meta (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) WITHOUT ROWID;",
];
/// How much of a name that somebody else chose is shown.
const NAME_CHARS_MAX: usize = 60;

/// Whose a file says that it is.
pub(super) enum Owner {
    /// Nobody's: nothing was ever written to it.
    Nobody,
    /// Ours, with a schema that it says to be of this version.
    Us(i64),
    /// Another program's.
    Other,
}

impl Owner {
    pub(super) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let number = |name| -> rusqlite::Result<i64> {
            connection.pragma_query_value(None, name, |row| row.get(0))
        };
        let is_ours = number("application_id")? == i64::from(APPLICATION_ID);
        let version = number("user_version")?;
        Ok(if is_ours {
            Self::Us(version)
        } else if version == 0 && objects(connection)?.is_empty() {
            Self::Nobody
        } else {
            Self::Other
        })
    }
}

/// What is in a file of ours that its version does not have, or the other way round.
///
/// Every table is compared word for word: one that is a view, is virtual, computes columns or checks
/// what is written is a program that somebody else wrote.
pub(super) fn flaw(connection: &Connection, version: i64) -> rusqlite::Result<Option<String>> {
    let Some(steps) = usize::try_from(version).ok().and_then(|version| SCHEMA.get(..version))
    else {
        return Ok(Some(format!("it says to have version {version}")));
    };
    let model = Connection::open_in_memory()?;
    steps.iter().try_for_each(|step| model.execute_batch(step))?;
    let (expected, found) = (objects(&model)?, objects(connection)?);
    let show = |[kind, name, _]: &[String; 3]| {
        let name: String = name.chars().take(NAME_CHARS_MAX).collect();
        format!("{:.20} {name:?}", kind)
    };
    let added = found.difference(&expected).next().map(show);
    let missing = || expected.difference(&found).next().map(show);
    Ok(added
        .map(|what| format!("it holds the {what}, which no state file has"))
        .or_else(|| missing().map(|what| format!("it lacks the {what}"))))
}

/// Makes the tables where they are missing, and takes the lock in any case.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    let version: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    SCHEMA.iter().skip(version as usize).try_for_each(|step| transaction.execute_batch(step))?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    // Written also when it is right already: a transaction that writes nothing takes no lock.
    transaction.pragma_update(None, "user_version", SCHEMA.len() as u32)?;
    transaction.commit()
}

/// Kind, name and text of everything that a file's schema names.
fn objects(connection: &Connection) -> rusqlite::Result<BTreeSet<[String; 3]>> {
    let mut statement = connection.prepare("SELECT type, name, sql FROM sqlite_schema")?;
    let mut rows = statement.query([])?;
    let mut found = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let text = |column| -> rusqlite::Result<String> {
            Ok(match row.get_ref(column)? {
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                    let text = String::from_utf8_lossy(bytes);
                    text.split_whitespace().collect::<Vec<_>>().join(" ")
                }
                _ => String::new(),
            })
        };
        found.insert([text(0)?, text(1)?, text(2)?]);
    }
    Ok(found)
}
