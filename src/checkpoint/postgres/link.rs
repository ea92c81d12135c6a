//! The connection to the database: made when it is needed, thrown away after any failure.
//!
//! A server that is paused and a cable that is cut answer nothing, for ever. So everything that is
//! asked has a limit on this side, beside those that the server is told to keep.

use std::time::Duration;

use tokio::runtime::{self, Runtime};
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Values;
use super::fault::Fault;
use super::schema::{self, Setup};
use crate::config::DbServer;
use crate::error::{Error, Result};
use crate::http::tls;

/// For name, connection, TLS and login together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For the answer to one statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that the server has closed meanwhile shows it at once when it is looked at.
const LOOK_TIMEOUT: Duration = Duration::from_millis(1);
/// How long a farewell may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(200);
/// When unanswered data makes the system give a connection up.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// Where the servers of most systems have their socket.
const SOCKET_FOLDER: &str = "/var/run/postgresql";
/// The server gives up a little before this side does, so that it can say why. A commit that was
/// reported must not be forgotten, and a look at a lease must see what the lock waited for. Who is
/// frozen in the middle of a commit keeps the lease's row locked, and so holds up who takes over.
const SESSION: &str = "SET statement_timeout = '9s';
    SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '3s';
    SET default_transaction_isolation = 'read committed';
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off'";

/// The way to a database.
pub struct Link {
    place: Place,
    runtime: Option<Runtime>,
    session: Option<Session>,
}

/// Where the database is.
struct Place {
    server: DbServer,
    config: Config,
    tls: Option<MakeRustlsConnect>,
    setup: Setup,
}

/// One connection.
pub struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

impl Link {
    /// The way to `server`; nothing is sent yet.
    ///
    /// # Errors
    /// When the address or the file of certificates cannot be used.
    pub fn new(server: &DbServer, setup: Setup) -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .thread_name("trendmicro-dns")
            .build()
            .map_err(|error| Error::config("no event loop for the database").caused_by(error))?;
        Ok(Self { place: Place::new(server, setup)?, runtime: Some(runtime), session: None })
    }

    /// Does some work over the connection; after a failure, the connection is thrown away, so that
    /// the server gives up what was not committed.
    ///
    /// # Errors
    /// When the database cannot be reached, or refuses.
    pub fn call<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, Fault>,
    ) -> Result<T> {
        let Some(runtime) = &self.runtime else { return Err(Error::stopped()) };
        let (place, kept) = (&self.place, &mut self.session);
        let done = runtime.block_on(async {
            let alive = match kept.take() {
                Some(session) => session.if_alive().await,
                None => None,
            };
            let mut session = match alive {
                Some(session) => session,
                None => place.connect().await?,
            };
            match work(&mut session).await {
                Ok(done) => {
                    *kept = Some(session);
                    Ok(done)
                }
                Err(fault) => {
                    session.abandon().await;
                    Err(fault)
                }
            }
        });
        done.map_err(|fault| fault.at(&place.server.shown))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if let Some(Session { client, driver }) = self.session.take() {
            drop(client);
            let _ =
                runtime.block_on(async { tokio::time::timeout(FAREWELL_TIMEOUT, driver).await });
        }
        runtime.shutdown_timeout(FAREWELL_TIMEOUT);
    }
}

impl Place {
    fn new(server: &DbServer, setup: Setup) -> Result<Self> {
        let at = |fault: Fault| fault.at(&server.shown);
        let mut config: Config = without_sslmode(server.address.expose())
            .parse()
            .map_err(|error| at(Fault::Server(error)))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host_path(SOCKET_FOLDER);
        }
        let count = config.get_hosts().len().max(config.get_hostaddrs().len()).max(1);
        // Between the hosts of one address the time is shared, so that each has its turn.
        config.connect_timeout(CONNECT_TIMEOUT / u32::try_from(count).unwrap_or(1));
        config.application_name(env!("CARGO_PKG_NAME"));
        config.tcp_user_timeout(TCP_USER_TIMEOUT);
        config.keepalives(true);
        config.keepalives_idle(KEEPALIVE_IDLE);
        config.keepalives_interval(KEEPALIVE_INTERVAL);
        config.keepalives_retries(KEEPALIVE_RETRIES);
        // Over a socket of this machine no server speaks TLS.
        let is_local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)))
            && config.get_hostaddrs().is_empty();
        let is_tls = server.is_tls && !is_local;
        config.ssl_mode(if is_tls { SslMode::Require } else { SslMode::Disable });
        let tls = match is_tls {
            true => Some(MakeRustlsConnect::new(tls::verified(
                "db_ca_file",
                server.ca_file.as_deref(),
            )?)),
            false => None,
        };
        Ok(Self { server: server.clone(), config, tls, setup })
    }

    async fn connect(&self) -> Result<Session, Fault> {
        let mut config = self.config.clone();
        if let Some(password) = &self.server.password {
            config.password(password.get().map_err(Fault::Other)?.expose());
        }
        let connecting = async {
            Ok::<_, Fault>(match &self.tls {
                Some(tls) => {
                    let (client, connection) = config.connect(tls.clone()).await?;
                    Session::new(client, async { drop(connection.await) })
                }
                None => {
                    let (client, connection) = config.connect(NoTls).await?;
                    Session::new(client, async { drop(connection.await) })
                }
            })
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        let session = connected.map_err(|_| Fault::Timeout(CONNECT_TIMEOUT))??;
        let prepared = async {
            session.batch(SESSION).await?;
            schema::ensure(&session, self.setup).await
        };
        match prepared.await {
            Ok(()) => Ok(session),
            Err(fault) => {
                session.abandon().await;
                Err(fault)
            }
        }
    }
}

impl Session {
    fn new(client: Client, connection: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { client, driver: tokio::spawn(connection) }
    }

    /// Itself, if the server has not closed the connection while nobody looked.
    async fn if_alive(mut self) -> Option<Self> {
        let ended = tokio::time::timeout(LOOK_TIMEOUT, &mut self.driver).await;
        ended.is_err().then_some(self)
    }

    /// Closes the connection without a word: whoever waits for what it has locked should not wait
    /// any longer.
    async fn abandon(self) {
        self.driver.abort();
        let _ = self.driver.await;
    }

    /// Runs statements without values, and nothing of what they answer is wanted.
    pub async fn batch(&self, sql: &str) -> Result<(), Fault> {
        within(self.client.batch_execute(sql)).await
    }

    /// Runs a statement, and reads what it answers.
    pub async fn query(&self, sql: &str, values: Values<'_>) -> Result<Vec<Row>, Fault> {
        within(self.client.query_typed(sql, values)).await
    }

    /// Runs a statement; returns how many rows it changed.
    pub async fn execute(&self, sql: &str, values: Values<'_>) -> Result<u64, Fault> {
        within(self.client.execute_typed(sql, values)).await
    }
}

async fn within<T>(
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Fault> {
    let answered = tokio::time::timeout(STATEMENT_TIMEOUT, answer).await;
    Ok(answered.map_err(|_| Fault::Timeout(STATEMENT_TIMEOUT))??)
}

/// The address without what it says of TLS: which words exist for that differs between programs.
fn without_sslmode(address: &str) -> String {
    let Some((base, query)) = address.split_once('?') else { return address.to_owned() };
    let kept: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("sslmode=")).collect();
    if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_all_but_its_sslmode() {
        for (address, expected) in [
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://u@h/d?sslmode=verify-full", "postgres://u@h/d"),
            (
                "postgres://u@h/d?sslmode=disable&options=-c%20a=b",
                "postgres://u@h/d?options=-c%20a=b",
            ),
            ("postgres:///d?host=/run/x&sslmode=require", "postgres:///d?host=/run/x"),
        ] {
            assert_eq!(without_sslmode(address), expected);
        }
    }
}
