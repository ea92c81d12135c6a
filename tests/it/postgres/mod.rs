//! State in a PostgreSQL database, against a real server.

mod budget;
mod people;
mod registry;
mod server;
mod store;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use in_trendmicro::checkpoint::{Postgres, Registry as _};
use in_trendmicro::clock::Time;
use in_trendmicro::config::{Config, Db, DbServer};
use in_trendmicro::error::Error;
use in_trendmicro::lease::{Lease, Member, Roll, Tenure};
use in_trendmicro::window::Window;

use crate::support::postgres::{PASSWORD, Server};

/// A lease's time that no test waits for.
const LONG: Duration = Duration::from_secs(300);

/// The database at an address, as the plugin's configuration makes it.
fn configured(address: &str, more: &[(&str, &str)]) -> DbServer {
    let lookup = |key: &str| {
        let own = [("connector", "email_security"), ("base_url", "http://127.0.0.1:1")];
        let own = own.into_iter().chain([("username", "u"), ("api_key", "k"), ("db", address)]);
        let found = own.chain(more.iter().copied()).find(|(name, _)| *name == key);
        found.map(|(_, value)| value.to_owned())
    };
    match Config::read(&lookup).unwrap().db {
        Some(Db::Server(server)) => *server,
        _ => panic!("{address} is no address"),
    }
}

fn open(address: &str) -> Postgres {
    Postgres::new(&configured(address, &[])).unwrap()
}

/// A database of its own on the server that all share.
fn fresh() -> Option<(&'static Server, String, Postgres)> {
    let server = Server::shared()?;
    let database = server.database();
    let store = open(&server.address(&database));
    Some((server, database, store))
}

fn member(id: &str, connectors: &[&str]) -> Member {
    Member {
        id: id.to_owned(),
        name: format!("host of {id}"),
        connectors: connectors.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn lease(roll: &Roll, connector: &str) -> Lease {
    roll.leases.iter().find(|lease| lease.connector == connector).unwrap().clone()
}

/// Lets a member take a lease.
fn tenure(store: &mut Postgres, id: &str, connector: &str) -> Tenure {
    let roll = store.beat(&member(id, &[connector]), LONG).unwrap();
    let epoch = store.take(id, &lease(&roll, connector)).unwrap().unwrap();
    Tenure { connector: connector.into(), epoch }
}

fn at(secs: i64) -> Time {
    Time::from_timestamp(secs, 0).unwrap()
}

fn span(start: i64, end: i64) -> Window {
    Window { start: at(start), end: at(end) }
}

/// The text of an error, which must not hold the password.
#[track_caller]
fn text(error: &Error) -> String {
    let text = format!("{error} {error:?}");
    assert!(!text.contains(PASSWORD), "{text}");
    error.to_string()
}

/// A file in a server's folder for the plugin to read.
fn file(server: &Server, name: &str, content: &str) -> PathBuf {
    server.write(name, content)
}
