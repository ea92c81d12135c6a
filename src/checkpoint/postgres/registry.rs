//! Where hosts find each other.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::types::Type;

use super::{Postgres, millis, signed, unsigned};
use crate::checkpoint::Registry;
use crate::error::Result;
use crate::lease::{Lease, Member, Roll, Tenure};

/// Whether the row `h` is of a member that lives. After a restart of the server everybody has the
/// time to come back.
pub const IS_ALIVE: &str =
    "greatest(h.expires_at, pg_postmaster_start_time() + h.timeout) > clock_timestamp()";

/// Says that a member lives, makes leases for its connectors, and forgets who died long ago.
const BEAT: &str = "WITH me AS (
        INSERT INTO in_trendmicro_host (id, name, connectors, timeout, beat_at, expires_at)
        VALUES ($1, $2, $3, $4 * interval '1 ms', clock_timestamp(),
            clock_timestamp() + $4 * interval '1 ms')
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, connectors = excluded.connectors,
            timeout = excluded.timeout, beat_at = excluded.beat_at,
            expires_at = excluded.expires_at
    ), dead AS (
        DELETE FROM in_trendmicro_host
        WHERE expires_at < clock_timestamp() - interval '1 day' AND id <> $1
    )
    INSERT INTO in_trendmicro_lease (connector) SELECT unnest($3) ON CONFLICT DO NOTHING";

impl Registry for Postgres {
    fn beat(&mut self, me: &Member, timeout: Duration) -> Result<Roll> {
        // Sorted, so that two hosts which make the same leases do not wait for each other in turn.
        let connectors: BTreeSet<&str> = me.connectors.iter().map(String::as_str).collect();
        let connectors: Vec<&str> = connectors.into_iter().collect();
        let timeout = millis(timeout);
        let roll = format!(
            "SELECT true, h.id, h.name, h.connectors, NULL::text, 0::bigint
             FROM in_trendmicro_host h WHERE {IS_ALIVE}
             UNION ALL SELECT false, connector, '', '{{}}', holder, epoch FROM in_trendmicro_lease
             ORDER BY 1, 2"
        );
        self.link.call(async |session| {
            let values = [
                (&me.id as _, Type::TEXT),
                (&me.name as _, Type::TEXT),
                (&connectors as _, Type::TEXT_ARRAY),
                (&timeout as _, Type::INT8),
            ];
            session.execute(BEAT, &values).await?;
            let mut found = Roll::default();
            for row in session.query(&roll, &[]).await? {
                if row.try_get(0)? {
                    let (id, name) = (row.try_get(1)?, row.try_get(2)?);
                    found.members.push(Member { id, name, connectors: row.try_get(3)? });
                } else {
                    let (connector, holder) = (row.try_get(1)?, row.try_get(4)?);
                    let epoch = unsigned(row.try_get(5)?);
                    found.leases.push(Lease { connector, holder, epoch });
                }
            }
            Ok(found)
        })
    }

    fn take(&mut self, me: &str, seen: &Lease) -> Result<Option<u64>> {
        // Nobody waits for a commit that whoever was frozen or cut off has left half done, until the
        // server gives it up: who waits says no longer that it lives. The next beat tries again.
        self.link.call(async |session| {
            let epoch = signed(seen.epoch);
            let values = [
                (&me as _, Type::TEXT),
                (&seen.connector as _, Type::TEXT),
                (&epoch as _, Type::INT8),
                (&seen.holder as _, Type::TEXT),
            ];
            let rows = session
                .query(
                    "UPDATE in_trendmicro_lease
                     SET holder = $1, epoch = epoch + 1, since = clock_timestamp()
                     WHERE connector = (SELECT connector FROM in_trendmicro_lease
                         WHERE connector = $2 AND epoch = $3 AND holder IS NOT DISTINCT FROM $4
                         FOR UPDATE SKIP LOCKED)
                     RETURNING epoch",
                    &values,
                )
                .await?;
            let Some(row) = rows.first() else { return Ok(None) };
            Ok(Some(unsigned(row.try_get(0)?)))
        })
    }

    fn release(&mut self, me: &str, tenure: &Tenure) -> Result<()> {
        self.link.call(async |session| {
            let (connector, epoch) = (&*tenure.connector, signed(tenure.epoch));
            let values =
                [(&me as _, Type::TEXT), (&connector as _, Type::TEXT), (&epoch as _, Type::INT8)];
            session
                .execute(
                    "UPDATE in_trendmicro_lease SET holder = NULL, since = clock_timestamp()
                     WHERE holder = $1 AND connector = $2 AND epoch = $3",
                    &values,
                )
                .await
                .map(drop)
        })
    }

    fn leave(&mut self, me: &str) -> Result<()> {
        self.link.call(async |session| {
            session
                .execute(
                    "WITH me AS (DELETE FROM in_trendmicro_host WHERE id = $1)
                     UPDATE in_trendmicro_lease SET holder = NULL, since = clock_timestamp()
                     WHERE holder = $1",
                    &[(&me, Type::TEXT)],
                )
                .await
                .map(drop)
        })
    }
}
