//! What the database itself saw: triggers that note every change of a lease, and everything that was
//! saved under another epoch than the lease's.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use in_trendmicro::checkpoint::Postgres;
use in_trendmicro::config::{Config, Db};
use serde_json::Value;

use super::super::postgres::Server;

/// The plugin's tables, watched. Whoever saves under an epoch that is not the lease's is noted in the
/// very transaction, with the lease's row locked.
const TRIGGERS: &str = "
    CREATE TABLE audit_stale (at timestamptz, kind text, stream text, epoch bigint, current bigint);
    CREATE TABLE audit_lease (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz,
        connector text, before text, before_epoch bigint, holder text, epoch bigint);
    CREATE FUNCTION audit_stale() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    DECLARE current bigint;
    BEGIN
        SELECT l.epoch INTO current FROM in_trendmicro_lease l
        WHERE starts_with(NEW.stream, l.connector || '/');
        IF current IS DISTINCT FROM NEW.epoch THEN
            INSERT INTO audit_stale
            VALUES (clock_timestamp(), TG_TABLE_NAME, NEW.stream, NEW.epoch, current);
        END IF;
        RETURN NULL;
    END $$;
    CREATE FUNCTION audit_lease() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO audit_lease (at, connector, before, before_epoch, holder, epoch) VALUES
        (clock_timestamp(), NEW.connector, OLD.holder, OLD.epoch, NEW.holder, NEW.epoch);
        RETURN NULL;
    END $$;
    CREATE TRIGGER audit AFTER INSERT OR UPDATE ON in_trendmicro_ledger
        FOR EACH ROW EXECUTE FUNCTION audit_stale();
    CREATE TRIGGER audit AFTER INSERT OR UPDATE ON in_trendmicro_cursor
        FOR EACH ROW EXECUTE FUNCTION audit_stale();
    CREATE TRIGGER audit AFTER UPDATE ON in_trendmicro_lease
        FOR EACH ROW EXECUTE FUNCTION audit_lease();";

/// Makes the plugin's tables in a new database, and watches them.
pub fn install(server: &Server, database: &str) {
    let address = server.address(database);
    let own = [
        ("connector", "email_security"),
        ("base_url", "http://127.0.0.1:1"),
        ("username", "u"),
        ("api_key", "k"),
        ("db", &address),
    ];
    let lookup =
        |key: &str| own.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned());
    let Ok(Config { db: Some(Db::Server(place)), .. }) = Config::read(&lookup) else {
        panic!("{address} is no address");
    };
    Postgres::new(&place).and_then(|mut store| store.connect()).expect("the tables are made");
    server.sql(database, TRIGGERS);
}

/// What is wrong in a database: rows saved under a stale epoch, a ledger that goes back to an earlier
/// epoch, and leases that do not count up.
pub fn faults(server: &Server, database: &str) -> Vec<Vec<String>> {
    server.sql(
        database,
        "SELECT 'stale', kind, stream, epoch::text, current::text FROM audit_stale
         UNION ALL SELECT 'back', '', stream, epoch::text, before::text FROM (
             SELECT stream, epoch, lag(epoch) OVER (PARTITION BY stream ORDER BY id) AS before
             FROM in_trendmicro_ledger) l WHERE epoch < before
         UNION ALL SELECT 'lease', '', connector, before_epoch::text, epoch::text FROM audit_lease
         WHERE epoch < before_epoch OR (holder IS NOT NULL AND epoch = before_epoch)",
    )
}

/// How often a lease was taken, and how often from a host that still held it.
pub fn takings(server: &Server, database: &str) -> (usize, usize) {
    let rows = server.sql(
        database,
        "SELECT count(*), count(*) FILTER (WHERE before IS NOT NULL)
         FROM audit_lease WHERE holder IS NOT NULL",
    );
    let number = |at: usize| rows[0][at].parse().expect("a number");
    (number(0), number(1))
}

/// Looks at the journals of embedded hosts and at the ledger in turn: what is handed over must not
/// have been committed before.
#[derive(Default)]
pub struct Watch {
    journals: Vec<(PathBuf, u64)>,
    /// The last rows of the ledger that were read.
    seen_row: i64,
    /// Ids that were committed at the last look, and at the one before.
    committed: HashSet<String>,
    fresh: Vec<String>,
    /// How often each id was handed over.
    handed: HashMap<String, usize>,
    /// Handed over although it had been committed.
    pub recommitted: Vec<String>,
}

impl Watch {
    pub fn new(journals: impl IntoIterator<Item = PathBuf>) -> Self {
        let journals = journals.into_iter().map(|path| (path, 0)).collect();
        Self { journals, ..Self::default() }
    }

    /// Looks at the journals, then at the ledger. What a journal has gained since the last look was
    /// handed over after that look's journals were read, so after the ledger of the look before.
    pub fn look(&mut self, server: &Server, database: &str) {
        for (path, seen) in &mut self.journals {
            for id in news(path, seen) {
                if self.committed.contains(&id) {
                    self.recommitted.push(id.clone());
                }
                *self.handed.entry(id).or_default() += 1;
            }
        }
        self.committed.extend(self.fresh.drain(..));
        // Rows of transactions at the same time may come in another order than their numbers.
        let since = self.seen_row - 100;
        let sql = format!(
            "SELECT id, encode(ids, 'hex') FROM in_trendmicro_ledger WHERE id > {since} ORDER BY id"
        );
        for row in server.sql(database, &sql) {
            self.seen_row = row[0].parse().expect("a number");
            let ids = row[1].as_bytes().chunks_exact(32);
            self.fresh.extend(ids.map(|id| String::from_utf8_lossy(id).into_owned()));
        }
    }

    /// Second and further copies that were handed over.
    pub fn copies(&self) -> usize {
        self.handed.values().map(|copies| copies - 1).sum()
    }
}

/// The ids in the whole lines that a journal has gained.
fn news(path: &PathBuf, seen: &mut u64) -> Vec<String> {
    let mut bytes = Vec::new();
    let Ok(mut journal) = File::open(path) else { return Vec::new() };
    let read = journal.seek(SeekFrom::Start(*seen)).and_then(|_| journal.read_to_end(&mut bytes));
    read.expect("the journal is readable");
    bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
    *seen += bytes.len() as u64;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let id = |line: &[u8]| {
        let row: Value = serde_json::from_slice(line).expect("a whole line of the journal");
        row["record"]["event_id"].as_str().expect("an event id").to_owned()
    };
    lines.map(id).collect()
}
