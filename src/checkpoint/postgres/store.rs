//! Cursors, ledgers and inventories.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::types::Type;

use super::fault::Fault;
use super::link::Session;
use super::{Postgres, signed, unsigned};
use crate::checkpoint::{Change, ID_BYTES, Saved, Store, from_millis, id, id_bytes, pack, unpack};
use crate::clock::Time;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::Tenure;
use crate::record::Id;
use crate::sweep::{self, Entity};
use crate::window::Window;

/// Entries of an inventory that one statement writes; a message is then a few megabytes.
const ENTITIES_MAX: usize = 10_000;

impl Store for Postgres {
    fn load(&mut self, stream: &str) -> Result<Saved> {
        self.link.call(async |session| load(session, stream).await)
    }

    fn recall(
        &mut self,
        stream: &str,
        span: Window,
        count_max: usize,
    ) -> Result<Option<Vec<(Time, Id)>>> {
        self.link.call(async |session| recall(session, stream, span, count_max).await)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<Vec<Tenure>> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        self.link.call(async |session| {
            session.batch("BEGIN").await?;
            let epochs = lock_leases(session, changes).await?;
            let is_current =
                |tenure: &Tenure| epochs.get(&*tenure.connector) == Some(&tenure.epoch);
            let mut left: Vec<&Change> =
                changes.iter().filter(|change| is_current(&change.tenure)).collect();
            while !left.is_empty() {
                let rest = left.split_off(distinct(&left));
                save(session, &left).await?;
                left = rest;
            }
            session.batch("COMMIT").await?;
            let tenures = changes.iter().map(|change| &change.tenure);
            let ended: BTreeSet<&Tenure> = tenures.filter(|tenure| !is_current(tenure)).collect();
            Ok(ended.into_iter().cloned().collect())
        })
    }

    fn renew(&mut self, _: &[Change]) -> Result<String> {
        let text = "a database that several hosts share is not renewed";
        Err(Error::new(ErrorKind::Store, text))
    }
}

async fn load(session: &Session, stream: &str) -> Result<Saved, Fault> {
    let key = [(&stream as _, Type::TEXT)];
    let mut saved = Saved::default();
    let rows = session
        .query("SELECT position_ms FROM in_trendmicro_cursor WHERE stream = $1", &key)
        .await?;
    if let Some(row) = rows.first() {
        saved.cursor = Some(from_millis(row.try_get(0)?));
    }
    let rows = session
        .query("SELECT pass, position_ms FROM in_trendmicro_verified WHERE stream = $1", &key)
        .await?;
    for row in rows {
        let pass = usize::try_from(row.try_get::<_, i32>(0)?).unwrap_or(usize::MAX);
        if let Some(verified) = saved.verified.get_mut(pass) {
            *verified = Some(from_millis(row.try_get(1)?));
        }
    }
    let rows = session
        .query("SELECT key, version, name FROM in_trendmicro_inventory WHERE stream = $1", &key)
        .await?;
    for row in rows {
        let id = |column| -> Result<Id, Fault> { Ok(id_of(row.try_get(column)?)) };
        saved.entities.push(Entity { key: id(0)?, version: id(1)?, name: row.try_get(2)? });
    }
    Ok(saved)
}

/// An id of 16 bytes; what is shorter was not written by us, and is like nothing that was.
fn id_of(bytes: &[u8]) -> Id {
    bytes.first_chunk().map_or(Id(0), |bytes| id(*bytes))
}

async fn recall(
    session: &Session,
    stream: &str,
    span: Window,
    count_max: usize,
) -> Result<Option<Vec<(Time, Id)>>, Fault> {
    const TOUCHING: &str =
        "FROM in_trendmicro_ledger WHERE stream = $1 AND until_ms >= $2 AND from_ms <= $3";
    let (start, end) = (span.start.timestamp_millis(), span.end.timestamp_millis());
    let values = [(&stream as _, Type::TEXT), (&start as _, Type::INT8), (&end as _, Type::INT8)];
    let sql = format!("SELECT coalesce(sum(length(ids)), 0)::bigint / {ID_BYTES} {TOUCHING}");
    let rows = session.query(&sql, &values).await?;
    let count: i64 = rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
    let count = usize::try_from(count).unwrap_or(0);
    if count > count_max {
        return Ok(None);
    }
    let mut found = Vec::with_capacity(count);
    for row in session.query(&format!("SELECT until_ms, ids {TOUCHING}"), &values).await? {
        let until = from_millis(row.try_get(0)?);
        found.extend(unpack(row.try_get(1)?).map(|id| (until, id)));
    }
    Ok(Some(found))
}

/// The epochs of the leases that the changes name. Until the transaction ends, nobody can take one
/// of these; if somebody just does, this waits and sees the new epoch.
async fn lock_leases(session: &Session, changes: &[Change]) -> Result<HashMap<String, u64>, Fault> {
    let names: BTreeSet<&str> = changes.iter().map(|change| &*change.tenure.connector).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let rows = session
        .query(
            "SELECT connector, epoch FROM in_trendmicro_lease WHERE connector = ANY($1)
             ORDER BY connector FOR SHARE",
            &[(&names, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, unsigned(row.try_get(1)?)))).collect()
}

/// How many changes from the first are of different streams: their order does not matter.
fn distinct(changes: &[&Change]) -> usize {
    let mut seen = BTreeSet::new();
    changes.iter().take_while(|change| seen.insert(change.stream.as_str())).count()
}

/// Saves changes of different streams.
async fn save(session: &Session, changes: &[&Change]) -> Result<(), Fault> {
    save_ledger(session, changes).await?;
    save_entities(session, changes).await?;
    save_cursors(session, changes).await?;
    save_verified(session, changes).await?;
    forget(session, changes).await
}

/// What is there already, because nobody knew whether an earlier commit had succeeded, is not
/// written twice.
async fn save_ledger(session: &Session, changes: &[&Change]) -> Result<(), Fault> {
    // `OFFSET 0` keeps it a look into the index per new row, however much there is.
    const INSERT: &str = "INSERT INTO in_trendmicro_ledger (stream, from_ms, until_ms, ids, epoch)
        SELECT n.* FROM unnest($1, $2, $3, $4, $5) AS n (stream, from_ms, until_ms, ids, epoch)
        WHERE NOT EXISTS (
            SELECT FROM in_trendmicro_ledger l WHERE l.stream = n.stream
            AND l.until_ms = n.until_ms AND l.from_ms = n.from_ms AND l.ids = n.ids OFFSET 0)";
    let (mut streams, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let (mut ids, mut epochs) = (Vec::new(), Vec::new());
    for change in changes {
        for (Window { start, end }, delivered) in &change.delivered {
            streams.push(change.stream.as_str());
            starts.push(start.timestamp_millis());
            ends.push(end.timestamp_millis());
            ids.push(pack(delivered));
            epochs.push(signed(change.tenure.epoch));
        }
    }
    if streams.is_empty() {
        return Ok(());
    }
    let values = [
        (&streams as _, Type::TEXT_ARRAY),
        (&starts as _, Type::INT8_ARRAY),
        (&ends as _, Type::INT8_ARRAY),
        (&ids as _, Type::BYTEA_ARRAY),
        (&epochs as _, Type::INT8_ARRAY),
    ];
    session.execute(INSERT, &values).await.map(drop)
}

async fn save_entities(session: &Session, changes: &[&Change]) -> Result<(), Fault> {
    // Of an entity that changed twice, the last word counts; a statement may say only one.
    let mut last: BTreeMap<(&str, [u8; ID_BYTES]), (sweep::Change, &Entity)> = BTreeMap::new();
    for change in changes {
        for (what, entity) in &change.entities {
            last.insert((&change.stream, id_bytes(entity.key)), (*what, entity));
        }
    }
    let (gone, there): (Vec<_>, Vec<_>) =
        last.iter().partition(|(_, (what, _))| *what == sweep::Change::Removed);
    for gone in gone.chunks(ENTITIES_MAX) {
        let streams: Vec<&str> = gone.iter().map(|((stream, _), _)| *stream).collect();
        let keys: Vec<&[u8]> = gone.iter().map(|((_, key), _)| key.as_slice()).collect();
        session
            .execute(
                "DELETE FROM in_trendmicro_inventory i USING unnest($1, $2) AS gone (stream, key)
                 WHERE i.stream = gone.stream AND i.key = gone.key",
                &[(&streams, Type::TEXT_ARRAY), (&keys, Type::BYTEA_ARRAY)],
            )
            .await?;
    }
    for there in there.chunks(ENTITIES_MAX) {
        let streams: Vec<&str> = there.iter().map(|((stream, _), _)| *stream).collect();
        let keys: Vec<&[u8]> = there.iter().map(|((_, key), _)| key.as_slice()).collect();
        let versions: Vec<[u8; ID_BYTES]> =
            there.iter().map(|(_, (_, entity))| id_bytes(entity.version)).collect();
        let versions: Vec<&[u8]> = versions.iter().map(<[u8; ID_BYTES]>::as_slice).collect();
        let names: Vec<&[u8]> = there.iter().map(|(_, (_, e))| e.name.as_slice()).collect();
        let values = [
            (&streams as _, Type::TEXT_ARRAY),
            (&keys as _, Type::BYTEA_ARRAY),
            (&versions as _, Type::BYTEA_ARRAY),
            (&names as _, Type::BYTEA_ARRAY),
        ];
        session
            .execute(
                "INSERT INTO in_trendmicro_inventory (stream, key, version, name)
                 SELECT * FROM unnest($1, $2, $3, $4)
                 ON CONFLICT (stream, key)
                 DO UPDATE SET version = excluded.version, name = excluded.name",
                &values,
            )
            .await?;
    }
    Ok(())
}

async fn save_cursors(session: &Session, changes: &[&Change]) -> Result<(), Fault> {
    let moved: Vec<(&Change, Time)> =
        changes.iter().filter_map(|change| Some((*change, change.cursor?))).collect();
    if moved.is_empty() {
        return Ok(());
    }
    let streams: Vec<&str> = moved.iter().map(|(change, _)| change.stream.as_str()).collect();
    let positions: Vec<i64> = moved.iter().map(|(_, cursor)| cursor.timestamp_millis()).collect();
    let connectors: Vec<&str> = moved.iter().map(|(change, _)| &*change.tenure.connector).collect();
    let epochs: Vec<i64> = moved.iter().map(|(change, _)| signed(change.tenure.epoch)).collect();
    let values = [
        (&streams as _, Type::TEXT_ARRAY),
        (&positions as _, Type::INT8_ARRAY),
        (&connectors as _, Type::TEXT_ARRAY),
        (&epochs as _, Type::INT8_ARRAY),
    ];
    session
        .execute(
            "INSERT INTO in_trendmicro_cursor (stream, position_ms, connector, epoch)
             SELECT * FROM unnest($1, $2, $3, $4)
             ON CONFLICT (stream) DO UPDATE SET position_ms = excluded.position_ms,
             connector = excluded.connector, epoch = excluded.epoch",
            &values,
        )
        .await
        .map(drop)
}

async fn save_verified(session: &Session, changes: &[&Change]) -> Result<(), Fault> {
    let (mut streams, mut passes, mut positions) = (Vec::new(), Vec::new(), Vec::new());
    for change in changes {
        for (pass, verified) in (0_i32..).zip(&change.verified) {
            let Some(verified) = verified else { continue };
            streams.push(change.stream.as_str());
            passes.push(pass);
            positions.push(verified.timestamp_millis());
        }
    }
    if streams.is_empty() {
        return Ok(());
    }
    let values = [
        (&streams as _, Type::TEXT_ARRAY),
        (&passes as _, Type::INT4_ARRAY),
        (&positions as _, Type::INT8_ARRAY),
    ];
    session
        .execute(
            "INSERT INTO in_trendmicro_verified (stream, pass, position_ms)
             SELECT * FROM unnest($1, $2, $3)
             ON CONFLICT (stream, pass) DO UPDATE SET position_ms = excluded.position_ms",
            &values,
        )
        .await
        .map(drop)
}

/// What is forgotten can no longer be told from what is late, so no pass may read it again.
async fn forget(session: &Session, changes: &[&Change]) -> Result<(), Fault> {
    let (mut streams, mut befores) = (Vec::new(), Vec::new());
    for change in changes {
        let Some(before) = change.forget_before else { continue };
        streams.push(change.stream.as_str());
        befores.push(before.timestamp_millis());
    }
    if streams.is_empty() {
        return Ok(());
    }
    let values = [(&streams as _, Type::TEXT_ARRAY), (&befores as _, Type::INT8_ARRAY)];
    for sql in [
        "DELETE FROM in_trendmicro_ledger l USING unnest($1, $2) AS f (stream, before_ms)
         WHERE l.stream = f.stream AND l.until_ms < f.before_ms",
        "UPDATE in_trendmicro_verified v SET position_ms = f.before_ms
         FROM unnest($1, $2) AS f (stream, before_ms)
         WHERE v.stream = f.stream AND v.position_ms < f.before_ms",
    ] {
        session.execute(sql, &values).await?;
    }
    Ok(())
}
