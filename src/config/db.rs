//! Where it is remembered what was delivered: a file, or a database that several hosts share.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::properties::{Properties, option};
use super::{SECOND, key_file, value};
use crate::error::Result;
use crate::secret::{Credential, Secret};

/// Where it is remembered what was delivered.
#[derive(Clone, Debug)]
pub enum Db {
    /// In a file of this host's.
    File(DbFile),
    /// In a database that several hosts share.
    Server(Box<DbServer>),
}

/// A state file.
#[derive(Clone, Debug)]
pub struct DbFile {
    /// Where it lies.
    pub path: PathBuf,
    /// SQLite's `synchronous`.
    pub sync: &'static str,
}

/// A PostgreSQL database.
#[derive(Clone)]
pub struct DbServer {
    /// Its address as it was written; there may be a password in it.
    pub address: Secret,
    /// The same for people, without the password.
    pub shown: String,
    /// The password, if it is not in the address.
    pub password: Option<Arc<Credential>>,
    /// Whether TLS is spoken, and then always verified; off only if the address says so.
    pub is_tls: bool,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// After what time of silence another host may run this one's connectors.
    pub lease_timeout: Duration,
}

impl fmt::Debug for DbServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Reads what belongs to the state.
pub(super) fn read(stanza: &Properties<'_>) -> Result<Option<Db>> {
    let sync = stanza.parse("db.sync", |text| {
        let modes = [("extra", "EXTRA"), ("full", "FULL"), ("normal", "NORMAL"), ("off", "OFF")];
        value::choice(text, &modes)
    })?;
    if stanza.get(option("db")).is_some_and(|(_, text)| value::is_database(&text)) {
        return Ok(Some(Db::Server(Box::new(server(stanza)?))));
    }
    for opt in ["lease_timeout", "db_ca_file", "db_password_file"].map(option) {
        if let Some((key, value)) = stanza.get(opt).filter(|(_, value)| value != opt.default) {
            return Err(stanza.wrong(opt, &key, &value, "db is no postgres:// address"));
        }
    }
    let path = stanza.parse_optional("db", value::state_file)?;
    Ok(path.map(|path| Db::File(DbFile { path, sync })))
}

fn server(stanza: &Properties<'_>) -> Result<DbServer> {
    let database = stanza.parse("db", value::database)?;
    let file = option("db_password_file");
    let password = match stanza.get(file) {
        Some((key, value)) if database.has_password => {
            return Err(stanza.wrong(file, &key, &value, "there is a password in db, too"));
        }
        Some((key, value)) => Some(Arc::new(key_file(stanza, file, &key, &value)?)),
        None => None,
    };
    let ca_file = stanza.parse_optional("db_ca_file", value::existing_file)?;
    if let (Some(path), false) = (&ca_file, database.is_tls) {
        let text = path.display().to_string();
        let why = "the address in db says sslmode=disable";
        return Err(stanza.wrong(option("db_ca_file"), "db_ca_file", &text, why));
    }
    Ok(DbServer {
        address: database.address,
        shown: database.shown,
        password,
        is_tls: database.is_tls,
        ca_file,
        lease_timeout: stanza
            .parse("lease_timeout", |text| value::duration(text, 3 * SECOND, 600 * SECOND))?,
    })
}
