//! What people see and change: who lives, who runs what, where the streams stand.
//!
//! Positions may be moved while hosts run. The leases that are concerned are freed under a new epoch in
//! the same transaction: what their holders save after it is refused, so they leave, and whoever takes
//! a lease next begins from the new position. What was delivered but not saved is delivered again.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::fault::Fault;
use super::link::Session;
use super::registry::IS_ALIVE;
use super::{Postgres, unsigned};
use crate::checkpoint::{from_millis, unpack};
use crate::clock::Time;
use crate::error::Result;
use crate::record::Id;

/// What the database shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// All hosts of the last day.
    pub hosts: Vec<Host>,
    /// Every connector, and who runs it.
    pub runs: Vec<Run>,
    /// Every stream.
    pub streams: Vec<Standing>,
}

/// A host's process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Which process, and which of its inputs.
    pub id: String,
    /// What people call the host.
    pub name: String,
    /// What it is able to run.
    pub connectors: Vec<String>,
    /// For how long it has not said that it lives.
    pub silent_secs: i64,
    /// Whether it counts as alive.
    pub is_alive: bool,
}

/// A connector, and who runs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The connector.
    pub connector: String,
    /// The id of the process that holds the lease.
    pub holder: Option<String>,
    /// What people call its host, if it is still known.
    pub host: Option<String>,
    /// Whether that lives.
    pub is_alive: bool,
    /// How often the lease has been taken.
    pub epoch: u64,
    /// Since when it is as it is.
    pub since: Time,
}

/// Where a stream stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its key.
    pub stream: String,
    /// Up to where everything was delivered.
    pub cursor: Option<Time>,
    /// Delivered records that are remembered one by one.
    pub ledger_count: i64,
    /// The earliest end of a window whose records are remembered.
    pub ledger_since: Option<Time>,
    /// Entries of an inventory that the receiver was told of.
    pub inventory_count: i64,
}

impl Postgres {
    /// Everything at one moment.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn overview(&mut self) -> Result<Overview> {
        self.link.call(async |session| {
            session.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            let (hosts, runs, streams) =
                (hosts(session).await?, runs(session).await?, streams(session).await?);
            session.batch("COMMIT").await?;
            Ok(Overview { hosts, runs, streams })
        })
    }

    /// The ids of records that a stream remembers as delivered, each with its window's end.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn ledger(&mut self, stream: &str) -> Result<Vec<(Time, Id)>> {
        self.link.call(async |session| {
            let sql = "SELECT until_ms, ids FROM in_trendmicro_ledger WHERE stream = $1";
            let mut found = Vec::new();
            for row in session.query(sql, &[(&stream, Type::TEXT)]).await? {
                let until = from_millis(row.try_get(0)?);
                found.extend(unpack(row.try_get(1)?).map(|id| (until, id)));
            }
            Ok(found)
        })
    }

    /// Moves the cursors of streams. The ledgers stay, so that what was delivered is not delivered
    /// again as far as they reach. Returns the hosts that have to begin anew.
    ///
    /// # Errors
    /// When the database cannot be written; nothing was changed then, or nobody knows.
    pub fn set_cursor(&mut self, streams: &[&str], cursor: Time) -> Result<Vec<String>> {
        const SET: &str = "INSERT INTO in_trendmicro_cursor (stream, position_ms)
            SELECT unnest($1), $2
            ON CONFLICT (stream) DO UPDATE SET position_ms = excluded.position_ms";
        self.change(streams, async |session| {
            let values =
                [(&streams as _, Type::TEXT_ARRAY), (&cursor.timestamp_millis() as _, Type::INT8)];
            session.execute(SET, &values).await.map(drop)
        })
    }

    /// Moves the cursors of streams back and forgets what windows that ended in the span have
    /// delivered, each stream up to its own time. Returns the hosts that have to begin anew.
    ///
    /// # Errors
    /// When the database cannot be written; nothing was changed then, or nobody knows.
    pub fn rewind(&mut self, streams: &[(&str, Time)], since: Time) -> Result<Vec<String>> {
        let keys: Vec<&str> = streams.iter().map(|(stream, _)| *stream).collect();
        let untils: Vec<i64> = streams.iter().map(|(_, until)| until.timestamp_millis()).collect();
        let since = since.timestamp_millis();
        self.change(&keys, async |session| {
            let values = [
                (&keys as _, Type::TEXT_ARRAY),
                (&since as _, Type::INT8),
                (&untils as _, Type::INT8_ARRAY),
            ];
            session
                .execute(
                    "DELETE FROM in_trendmicro_ledger l USING unnest($1, $3) AS f (stream, until_ms)
                     WHERE l.stream = f.stream AND l.until_ms >= $2 AND l.until_ms <= f.until_ms",
                    &values,
                )
                .await?;
            session
                .execute(
                    "UPDATE in_trendmicro_cursor SET position_ms = $2
                     WHERE stream = ANY($1) AND position_ms > $2",
                    &values[..2],
                )
                .await
                .map(drop)
        })
    }

    /// Removes all that is known of streams. Returns the hosts that have to begin anew.
    ///
    /// # Errors
    /// When the database cannot be written; nothing was changed then, or nobody knows.
    pub fn reset(&mut self, streams: &[&str]) -> Result<Vec<String>> {
        self.change(streams, async |session| {
            for table in ["ledger", "inventory", "verified", "cursor"] {
                let sql = format!("DELETE FROM in_trendmicro_{table} WHERE stream = ANY($1)");
                session.execute(&sql, &[(&streams, Type::TEXT_ARRAY)]).await?;
            }
            Ok(())
        })
    }

    /// Changes streams, and frees the leases of their connectors. Returns who held these.
    fn change(
        &mut self,
        streams: &[&str],
        work: impl AsyncFnOnce(&Session) -> Result<(), Fault>,
    ) -> Result<Vec<String>> {
        // A stream's cursor names its connector; its key begins with it.
        const HELD: &str = "SELECT l.connector, coalesce(h.name, l.holder)
            FROM in_trendmicro_lease l LEFT JOIN in_trendmicro_host h ON h.id = l.holder
            WHERE EXISTS (
                SELECT FROM unnest($1) AS s (stream)
                LEFT JOIN in_trendmicro_cursor c ON c.stream = s.stream
                WHERE c.connector = l.connector OR starts_with(s.stream, l.connector || '/'))
            ORDER BY l.connector FOR UPDATE OF l";
        self.link.call(async |session| {
            session.batch("BEGIN").await?;
            let rows = session.query(HELD, &[(&streams, Type::TEXT_ARRAY)]).await?;
            let column = |row: &Row| -> Result<String, Fault> { Ok(row.try_get(0)?) };
            let connectors: Vec<String> = rows.iter().map(column).collect::<Result<_, _>>()?;
            let mut holders: Vec<String> = Vec::new();
            for row in &rows {
                holders.extend(row.try_get::<_, Option<String>>(1)?);
            }
            session
                .execute(
                    "UPDATE in_trendmicro_lease
                     SET holder = NULL, epoch = epoch + 1, since = clock_timestamp()
                     WHERE connector = ANY($1)",
                    &[(&connectors, Type::TEXT_ARRAY)],
                )
                .await?;
            work(session).await?;
            session.batch("COMMIT").await?;
            holders.sort();
            holders.dedup();
            Ok(holders)
        })
    }
}

async fn hosts(session: &Session) -> Result<Vec<Host>, Fault> {
    let sql = format!(
        "SELECT h.id, h.name, h.connectors,
         extract(epoch FROM clock_timestamp() - h.beat_at)::bigint, {IS_ALIVE}
         FROM in_trendmicro_host h ORDER BY h.name, h.id"
    );
    let mut found = Vec::new();
    for row in session.query(&sql, &[]).await? {
        let (id, name, connectors) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (silent_secs, is_alive) = (row.try_get(3)?, row.try_get(4)?);
        found.push(Host { id, name, connectors, silent_secs, is_alive });
    }
    Ok(found)
}

async fn runs(session: &Session) -> Result<Vec<Run>, Fault> {
    let sql = format!(
        "SELECT l.connector, l.holder, h.name, coalesce({IS_ALIVE}, false), l.epoch,
         (1000 * extract(epoch FROM l.since))::bigint
         FROM in_trendmicro_lease l LEFT JOIN in_trendmicro_host h ON h.id = l.holder
         ORDER BY l.connector"
    );
    let mut found = Vec::new();
    for row in session.query(&sql, &[]).await? {
        let (connector, holder, host) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (is_alive, epoch) = (row.try_get(3)?, unsigned(row.try_get(4)?));
        let since = from_millis(row.try_get(5)?);
        found.push(Run { connector, holder, host, is_alive, epoch, since });
    }
    Ok(found)
}

async fn streams(session: &Session) -> Result<Vec<Standing>, Fault> {
    const STREAMS: &str = "WITH ledger AS (
            SELECT stream, sum(length(ids))::bigint / 16 AS count, min(until_ms) AS since
            FROM in_trendmicro_ledger GROUP BY stream
        ), inventory AS (
            SELECT stream, count(*) AS count FROM in_trendmicro_inventory GROUP BY stream
        )
        SELECT stream, c.position_ms, coalesce(l.count, 0), l.since, coalesce(i.count, 0)
        FROM in_trendmicro_cursor c FULL JOIN ledger l USING (stream)
        FULL JOIN inventory i USING (stream) ORDER BY stream";
    let mut found = Vec::new();
    for row in session.query(STREAMS, &[]).await? {
        let time = |column| -> Result<Option<Time>, Fault> {
            Ok(row.try_get::<_, Option<i64>>(column)?.map(from_millis))
        };
        found.push(Standing {
            stream: row.try_get(0)?,
            cursor: time(1)?,
            ledger_count: row.try_get(2)?,
            ledger_since: time(3)?,
            inventory_count: row.try_get(4)?,
        });
    }
    Ok(found)
}
