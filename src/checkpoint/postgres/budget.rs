//! The budgets of requests that all hosts share.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{Postgres, millis};
use crate::error::Result;
use crate::http::limiter;

/// What is asked again too soon costs more than it brings.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Makes the row of a credential, and locks it: one request at a time is weighed.
const LOCK: &str = "INSERT INTO in_trendmicro_credential AS c (credential) VALUES ($1)
    ON CONFLICT (credential) DO UPDATE SET held_until = c.held_until";

/// Counts the requests of the last period and, if there is room, adds one. Answers whether it did,
/// and if not, after how many milliseconds to ask again. What was sent in the future was sent before
/// the server's clock was set back, and counts as sent now.
const TAKE: &str = "WITH clock AS MATERIALIZED (
        SELECT clock_timestamp() AS now, clock_timestamp() - $3 * interval '1 ms' AS start
    ), recent AS MATERIALIZED (
        SELECT least(sent_at, now) AS sent_at FROM in_trendmicro_request, clock
        WHERE credential = $1 AND sent_at > start
    ), gone AS (
        DELETE FROM in_trendmicro_request USING clock WHERE credential = $1 AND sent_at <= start
    ), shifted AS (
        UPDATE in_trendmicro_request SET sent_at = now FROM clock
        WHERE credential = $1 AND sent_at > now
    ), held AS MATERIALIZED (
        SELECT held_until FROM in_trendmicro_credential, clock
        WHERE credential = $1 AND held_until > now
    ), granted AS (
        INSERT INTO in_trendmicro_request (credential, sent_at) SELECT $1, now FROM clock
        WHERE NOT EXISTS (SELECT FROM held) AND (SELECT count(*) FROM recent) < $2
        RETURNING 1
    )
    SELECT EXISTS (SELECT FROM granted), ceil(1000 * extract(epoch FROM coalesce(greatest(
        (SELECT held_until FROM held) - now,
        (SELECT sent_at FROM recent ORDER BY sent_at DESC OFFSET greatest($2 - 1, 0) LIMIT 1) - start
    ), $3 * interval '1 ms')))::bigint FROM clock";

impl limiter::Shared for Postgres {
    fn take(
        &mut self,
        credential: &[u8; 32],
        limit: u32,
        period: Duration,
    ) -> Result<Option<Duration>> {
        let credential = credential.as_slice();
        let (limit, period) = (i64::from(limit), millis(period));
        self.link.call(async |session| {
            session.batch("BEGIN").await?;
            session.execute(LOCK, &[(&credential, Type::BYTEA)]).await?;
            let values = [
                (&credential as _, Type::BYTEA),
                (&limit as _, Type::INT8),
                (&period as _, Type::INT8),
            ];
            let rows = session.query(TAKE, &values).await?;
            let (mut is_granted, mut wait) = (false, period);
            if let Some(row) = rows.first() {
                (is_granted, wait) = (row.try_get(0)?, row.try_get(1)?);
            }
            session.batch("COMMIT").await?;
            let wait = Duration::from_millis(u64::try_from(wait).unwrap_or_default());
            Ok((!is_granted).then_some(wait.max(WAIT_MIN)))
        })
    }

    fn hold(&mut self, credential: &[u8; 32], wait: Duration) -> Result<()> {
        let (credential, wait) = (credential.as_slice(), millis(wait));
        self.link.call(async |session| {
            session
                .execute(
                    "INSERT INTO in_trendmicro_credential AS c (credential, held_until)
                     VALUES ($1, clock_timestamp() + $2 * interval '1 ms')
                     ON CONFLICT (credential) DO UPDATE
                     SET held_until = greatest(c.held_until, excluded.held_until)",
                    &[(&credential, Type::BYTEA), (&wait, Type::INT8)],
                )
                .await
                .map(drop)
        })
    }
}
