//! The tables, and how they came to be.

use super::fault::Fault;
use super::link::Session;
use tokio_postgres::types::Type;

/// The oldest server that is known to do.
const SERVER_MIN: i32 = 13;
/// What hosts that start at once wait for, so that one makes the tables ("TMFB").
const LOCK: i64 = 0x544d_4642;

/// What each version of the schema adds to the one before.
///
/// Ids lie together as they were committed, 16 bytes each, big-endian, and are not compressed, since
/// hashes cannot be. `epoch` in cursors and ledgers says under which lease a row was written; nothing
/// is decided by it, people may want to know. A table that is removed by hand comes back with the
/// version row removed, too.
const SCHEMA: &[&str] = &["CREATE TABLE in_trendmicro_meta (
        name text PRIMARY KEY,
        value text NOT NULL
    );
    CREATE TABLE in_trendmicro_host (
        id text PRIMARY KEY,
        name text NOT NULL,
        connectors text[] NOT NULL,
        timeout interval NOT NULL,
        beat_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL
    );
    CREATE TABLE in_trendmicro_lease (
        connector text PRIMARY KEY,
        holder text,
        epoch bigint NOT NULL DEFAULT 0,
        since timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE TABLE in_trendmicro_cursor (
        stream text PRIMARY KEY,
        position_ms bigint NOT NULL,
        connector text NOT NULL DEFAULT '',
        epoch bigint NOT NULL DEFAULT 0
    );
    CREATE TABLE in_trendmicro_verified (
        stream text NOT NULL,
        pass integer NOT NULL,
        position_ms bigint NOT NULL,
        PRIMARY KEY (stream, pass)
    );
    CREATE TABLE in_trendmicro_ledger (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        stream text NOT NULL,
        from_ms bigint NOT NULL,
        until_ms bigint NOT NULL,
        ids bytea NOT NULL,
        epoch bigint NOT NULL DEFAULT 0
    );
    ALTER TABLE in_trendmicro_ledger ALTER COLUMN ids SET STORAGE EXTERNAL;
    CREATE INDEX in_trendmicro_ledger_span ON in_trendmicro_ledger (stream, until_ms, from_ms);
    CREATE TABLE in_trendmicro_inventory (
        stream text NOT NULL,
        key bytea NOT NULL,
        version bytea NOT NULL,
        name bytea NOT NULL,
        PRIMARY KEY (stream, key)
    );
    CREATE TABLE in_trendmicro_credential (
        credential bytea PRIMARY KEY,
        held_until timestamptz
    );
    CREATE TABLE in_trendmicro_request (
        credential bytea NOT NULL,
        sent_at timestamptz NOT NULL
    );
    CREATE INDEX in_trendmicro_request_sent ON in_trendmicro_request (credential, sent_at);"];

/// What may be done about tables that are missing or old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// They are made.
    Make,
    /// They are made and taken back, to see whether that is allowed.
    Try,
    /// Nothing.
    Leave,
}

/// Makes the tables, or brings them up to this version, if that is still to be done.
pub async fn ensure(session: &Session, setup: Setup) -> Result<(), Fault> {
    check_server(session).await?;
    let done = version(session).await?;
    if done == SCHEMA.len() {
        return Ok(());
    }
    if setup == Setup::Leave {
        return Err(Fault::Config {
            why: format!("has schema version {done} of {}", SCHEMA.len()),
            legal: "a database that a host of this version has used",
            write: "start Fluent Bit with this db first".to_owned(),
        });
    }
    session.batch("BEGIN").await?;
    session.execute("SELECT pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)]).await?;
    // Another host may have been faster.
    let done = version(session).await?;
    for step in &SCHEMA[done.min(SCHEMA.len())..] {
        session.batch(step).await?;
    }
    session
        .execute(
            "INSERT INTO in_trendmicro_meta VALUES ('schema', $1)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            &[(&SCHEMA.len().to_string(), Type::TEXT)],
        )
        .await?;
    session.batch(if setup == Setup::Try { "ROLLBACK" } else { "COMMIT" }).await
}

/// Refuses a server that is too old, and one that only repeats what another writes.
async fn check_server(session: &Session) -> Result<(), Fault> {
    let sql = "SELECT current_setting('server_version_num')::integer / 10000, pg_is_in_recovery()";
    let rows = session.query(sql, &[]).await?;
    let row = rows.first().ok_or(Fault::Standby)?;
    let server: i32 = row.try_get(0)?;
    if server < SERVER_MIN {
        return Err(Fault::Config {
            why: format!("the server is PostgreSQL {server}"),
            legal: "PostgreSQL 13 or newer",
            write: "db: with the address of a newer server".to_owned(),
        });
    }
    if row.try_get(1)? { Err(Fault::Standby) } else { Ok(()) }
}

/// What a person wants to know before the first start: the server's version, and whether the tables
/// are there.
pub async fn describe(session: &Session) -> Result<String, Fault> {
    // A list of privileges would ask for one of them.
    const DENIED: &str = "SELECT relname::text FROM pg_class c
        WHERE relname LIKE 'in\\_trendmicro\\_%' AND relkind = 'r' AND pg_table_is_visible(oid)
        AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
            AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))
        ORDER BY 1";
    let denied = session.query(DENIED, &[]).await?;
    if let Some(row) = denied.first() {
        return Err(Fault::Config {
            why: format!("permission denied for table {}", row.try_get::<_, &str>(0)?),
            legal: "a user that may SELECT, INSERT, UPDATE and DELETE in all tables in_trendmicro_*",
            write: "GRANT ALL ON the tables in_trendmicro_* TO the user".to_owned(),
        });
    }
    let rows = session.query("SELECT current_setting('server_version')", &[]).await?;
    let server: String = rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
    let tables = if version(session).await? == 0 { "can be made" } else { "are there" };
    Ok(format!("PostgreSQL {server}; the tables {tables}"))
}

/// The version of the tables; 0 if there are none.
async fn version(session: &Session) -> Result<usize, Fault> {
    // Not `to_regclass`: inside a transaction it repeats what it answered before the lock was waited for.
    let is_made = "SELECT EXISTS (SELECT FROM pg_class
        WHERE relname = 'in_trendmicro_meta' AND pg_table_is_visible(oid))";
    let rows = session.query(is_made, &[]).await?;
    let is_made = rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(false);
    if !is_made {
        return Ok(0);
    }
    let value = "SELECT value FROM in_trendmicro_meta WHERE name = 'schema'";
    let rows = session.query(value, &[]).await?;
    let text: String = rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
    let version = text.parse().unwrap_or(0);
    if version > SCHEMA.len() {
        return Err(Fault::Config {
            why: format!("has schema version {version}, newer than {}", SCHEMA.len()),
            legal: "a database of this or an older version of the plugin",
            write: "the same version of the plugin on every host, or another db".to_owned(),
        });
    }
    Ok(version)
}
