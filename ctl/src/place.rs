//! Where an input keeps its state, and what is done to it there: a file of this host's, or a database
//! that several hosts share.
//!
//! A file can be opened only while the plugin does not run. A database can be looked at and changed at
//! any time: a host that runs a connector whose position is moved loses its lease, what it has
//! delivered but not saved is delivered again, and whoever takes the lease begins from the new
//! position. So nothing has to be stopped, and nothing is lost.

use std::path::{Path, PathBuf};

use in_trendmicro::checkpoint::Postgres;
use in_trendmicro::checkpoint::postgres::Overview;
use in_trendmicro::config::value::is_database;
use in_trendmicro::config::{Config, Db, DbServer};
use in_trendmicro::error::{Error, Result};
use serde_json::{Value, json};

use crate::Failure;
use crate::host::HostConfig;
use crate::stanza::Stanza;
use crate::state::{Refusal, Saved, StateFile};
use crate::time::{self, Time};

/// How to look at a plugin that runs.
const LOOK_INSTEAD: &str = "the plugin holds it as long as it runs; look at Fluent Bit's log and its \
                            metrics (/api/v2/metrics/prometheus), or stop Fluent Bit first";

/// Where an input keeps its state.
pub enum Place {
    /// In a file.
    File(PathBuf),
    /// In a database.
    Server(Box<DbServer>),
}

impl Place {
    /// The place that a configuration names.
    #[must_use]
    pub fn of(db: &Db) -> Self {
        match db {
            Db::File(file) => Self::File(file.path.clone()),
            Db::Server(server) => Self::Server(server.clone()),
        }
    }

    /// A place by its path or address.
    ///
    /// # Errors
    /// When it is an address that is none.
    pub fn named(text: &Path) -> Result<Self> {
        let Some(address) = text.to_str().filter(|text| is_database(text)) else {
            return Ok(Self::File(text.to_owned()));
        };
        // The plugin's own reading, of an input that is otherwise complete.
        let stanza = [
            ("connector", "email_security"),
            ("base_url", "http://127.0.0.1:1"),
            ("username", "nobody"),
            ("api_key", "none"),
            ("db", address),
        ];
        let lookup = |key: &str| {
            stanza.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned())
        };
        let db = Config::read(&lookup)?.db;
        Ok(db.map_or_else(|| Self::File(text.to_owned()), |db| Self::of(&db)))
    }

    /// The places that are meant: the one named, or those of every input of a configuration.
    ///
    /// # Errors
    /// When neither is given, or the configuration has none.
    pub fn all(db: Option<&Path>, config: Option<&Path>) -> Result<Vec<Self>> {
        let config = match (db, config) {
            (Some(db), _) => return Ok(vec![Self::named(db)?]),
            (None, Some(config)) => config,
            (None, None) => {
                let text = "which state? write --db FILE, --db postgres://…, or -c FILE";
                return Err(Error::config(text));
            }
        };
        let host = HostConfig::read(config)?;
        let mut places: Vec<Self> = Vec::new();
        for stanza in host.inputs().map(Stanza) {
            let Some(db) = stanza.db() else { continue };
            let place = match db.to_str().is_some_and(is_database) {
                true => stanza.read()?.db.as_ref().map(Self::of),
                false => Some(Self::File(db)),
            };
            // Inputs that share a database have one state.
            places.extend(place.filter(|new| places.iter().all(|old| old.shown() != new.shown())));
        }
        if places.is_empty() {
            let text = format!("{}: no input of trendmicro has a db", config.display());
            return Err(Error::config(text));
        }
        Ok(places)
    }

    /// Its path, or its address without the password.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Server(server) => server.shown.clone(),
        }
    }

    /// Opens it, or says who has it.
    ///
    /// # Errors
    /// When it is in use, or holds no state of the plugin's.
    pub fn open(&self) -> Result<State, Failure> {
        let path = match self {
            Self::File(path) => path,
            Self::Server(server) => return Ok(State::Database(Box::new(Postgres::look(server)?))),
        };
        let refused = |refusal| match refusal {
            Refusal::InUse(holders) => {
                let holders: Vec<String> = holders.iter().map(ToString::to_string).collect();
                let by = match holders.is_empty() {
                    true => "another process".to_owned(),
                    false => holders.join(", "),
                };
                Failure::in_use(format!("{}: in use by {by}; {LOOK_INSTEAD}", path.display()))
            }
            Refusal::Other(error) => Failure::from(error),
        };
        StateFile::open(path).map(State::File).map_err(refused)
    }
}

/// An open state.
pub enum State {
    /// A file, which nobody else can open meanwhile.
    File(StateFile),
    /// A database.
    Database(Box<Postgres>),
}

impl State {
    /// Every stream that is known, by key; of a database, also who lives and who runs what.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn look(&mut self) -> Result<(Vec<Saved>, Option<Overview>)> {
        let database = match self {
            Self::File(file) => return Ok((file.streams()?, None)),
            Self::Database(database) => database,
        };
        let overview = database.overview()?;
        let saved = overview.streams.iter().map(|standing| Saved {
            key: standing.stream.clone(),
            cursor: standing.cursor,
            ledger_count: standing.ledger_count,
            ledger_since: standing.ledger_since,
            inventory_count: standing.inventory_count,
        });
        Ok((saved.collect(), Some(overview)))
    }

    /// Every stream that is known, by key.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn streams(&mut self) -> Result<Vec<Saved>> {
        Ok(self.look()?.0)
    }

    /// The ids of records that a stream remembers as delivered, each with its window's end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn ledger(&mut self, key: &str) -> Result<Vec<(Time, u128)>> {
        match self {
            Self::File(file) => file.ledger(key),
            Self::Database(database) => {
                let found = database.ledger(key)?;
                Ok(found.into_iter().map(|(until, id)| (until, id.0)).collect())
            }
        }
    }

    /// Moves the cursors of streams. Returns the hosts that have to begin anew.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_cursor(&mut self, keys: &[&str], cursor: Time) -> Result<Vec<String>> {
        match self {
            Self::File(file) => {
                keys.iter().try_for_each(|key| file.set_cursor(key, cursor))?;
                Ok(Vec::new())
            }
            Self::Database(database) => database.set_cursor(keys, cursor),
        }
    }

    /// Moves the cursors of streams back and forgets what windows that ended in the span have
    /// delivered, each stream up to its own time. Returns the hosts that have to begin anew.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn rewind(&mut self, plan: &[(&str, Time)], since: Time) -> Result<Vec<String>> {
        match self {
            Self::File(file) => {
                let rewind = |(key, until): &(&str, Time)| file.rewind(key, since, (since, *until));
                plan.iter().try_for_each(rewind)?;
                Ok(Vec::new())
            }
            Self::Database(database) => database.rewind(plan, since),
        }
    }

    /// Removes all that is known of streams. Returns the hosts that have to begin anew.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn reset(&mut self, keys: &[&str]) -> Result<Vec<String>> {
        match self {
            Self::File(file) => {
                keys.iter().try_for_each(|key| file.reset(key))?;
                Ok(Vec::new())
            }
            Self::Database(database) => database.reset(keys),
        }
    }
}

/// Who lives and who runs what, for a program.
#[must_use]
pub fn json_of(overview: &Overview) -> (Value, Value) {
    let hosts = overview.hosts.iter().map(|host| {
        json!({
            "id": host.id,
            "name": host.name,
            "is_alive": host.is_alive,
            "last_beat_secs": host.silent_secs,
            "connectors": host.connectors,
        })
    });
    let leases = overview.runs.iter().map(|run| {
        json!({
            "connector": run.connector,
            "host": run.host,
            "holder": run.holder,
            "is_alive": run.is_alive,
            "epoch": run.epoch,
            "since": time::text(run.since),
        })
    });
    (hosts.collect(), leases.collect())
}

/// Who lives and who runs what, line by line for a person.
#[must_use]
pub fn lines_of(overview: &Overview, now: Time) -> Vec<String> {
    let hosts = overview.hosts.iter().map(|host| {
        let lives = if host.is_alive { "lives" } else { "is SILENT" };
        let beat = chrono::TimeDelta::seconds(host.silent_secs);
        format!(
            "host {} ({}) {lives}, heard of {} ago; can run {}",
            host.name,
            host.id,
            time::span(beat),
            host.connectors.join(", ")
        )
    });
    let runs = overview.runs.iter().map(|run| {
        let by = match (&run.host, &run.holder, run.is_alive) {
            (Some(host), _, true) => format!("run by {host}"),
            (Some(host), _, false) => format!("run by NOBODY; last by {host}, which is silent"),
            (None, Some(id), _) => format!("run by NOBODY; last by {id}, which is gone"),
            (None, None, _) => "run by NOBODY".to_owned(),
        };
        let for_long = time::span(now - run.since);
        format!("connector {}: {by}, for {for_long}, epoch {}", run.connector, run.epoch)
    });
    hosts.chain(runs).collect()
}
