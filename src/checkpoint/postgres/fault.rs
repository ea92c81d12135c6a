//! What went wrong at the database, in one line, and whether a person has to change something.

use std::error::Error as _;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::error::{Error, ErrorKind};
use crate::http::tls;

/// What went wrong.
pub enum Fault {
    /// The server or the way to it.
    Server(tokio_postgres::Error),
    /// There was no answer within this.
    Timeout(Duration),
    /// A mistake of the configuration: why, what is legal, and what to write.
    Config { why: String, legal: &'static str, write: String },
    /// Anything that says itself what it is.
    Other(Error),
    /// The server can only be read.
    Standby,
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

impl Fault {
    /// The error for the database that is `shown` so.
    pub fn at(self, shown: &str) -> Error {
        let broken =
            |text: String| Error::new(ErrorKind::Store, format!("the database {shown} {text}"));
        let mistake = |why: &str, legal: &str, write: &str| {
            Error::config(format!("db = \"{shown}\": {why}; legal: {legal}; write: {write}"))
        };
        match self {
            Self::Timeout(limit) => {
                broken(format!("cannot be reached: no answer within {} s", limit.as_secs()))
            }
            Self::Standby => broken("cannot be written: it is a standby of another server".into()),
            Self::Other(error) => error,
            Self::Config { why, legal, write } => mistake(&why, legal, &write),
            Self::Server(error) => match mistaken(&error, shown) {
                Some((why, legal, write)) => mistake(&why, legal, &write),
                None => match error.as_db_error() {
                    Some(said) => broken(format!(
                        "answers: {} (SQLSTATE {})",
                        said.message(),
                        said.code().code()
                    )),
                    None => broken(format!("cannot be reached: {}", causes(&error))),
                },
            },
        }
    }
}

/// For an error that waiting does not cure: why, what is legal, and what to write.
fn mistaken(error: &tokio_postgres::Error, shown: &str) -> Option<(String, &'static str, String)> {
    if let Some(said) = error.as_db_error() {
        let why = said.message().to_owned();
        let code = said.code();
        return match *code {
            SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => Some((
                why,
                "a user whom the server lets in from here (pg_hba.conf), with the right password",
                "db_password_file: /etc/fluent-bit/trendmicro-db.password".to_owned(),
            )),
            SqlState::UNDEFINED_DATABASE => Some((
                why,
                "a database that is there",
                "db: with its name, or make it (CREATE DATABASE)".to_owned(),
            )),
            SqlState::INSUFFICIENT_PRIVILEGE => Some((
                why,
                "a user that may make and use tables",
                "as its owner: GRANT CREATE, USAGE ON SCHEMA public TO the user; if the tables are \
                 another user's: GRANT ALL ON the tables in_trendmicro_*"
                    .to_owned(),
            )),
            _ => None,
        };
    }
    // What is not said by the server has no code, only a text.
    match error.to_string().as_str() {
        "error performing TLS handshake" => of_handshake(error, shown),
        "authentication error" | "invalid configuration" | "invalid connection string" => Some((
            error.source().map_or_else(|| error.to_string(), causes),
            "postgres://USER@HOST/DATABASE, and the user's password",
            "db_password_file: /etc/fluent-bit/trendmicro-db.password".to_owned(),
        )),
        _ => None,
    }
}

fn of_handshake(
    error: &tokio_postgres::Error,
    shown: &str,
) -> Option<(String, &'static str, String)> {
    const LEGAL: &str = "a server whose certificate is for the host in db, and signed by whom this \
                         machine or db_ca_file trusts";
    let cause = error.source()?;
    if let Some(why) = tls::distrust(cause) {
        let why = format!("the server's certificate is refused: {why}");
        return Some((why, LEGAL, "db_ca_file: /etc/fluent-bit/db-ca.pem".to_owned()));
    }
    let says = cause.to_string();
    if says.contains("does not support TLS") {
        let query = if shown.contains('?') { '&' } else { '?' };
        return Some((
            "the server speaks no TLS".to_owned(),
            "a server with TLS, or an address that does without",
            format!("ssl = on in postgresql.conf, or db: {shown}{query}sslmode=disable"),
        ));
    }
    None
}

/// An error without its outermost words, and all its causes.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
