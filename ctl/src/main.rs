//! `trendmicroctl`: tests a configuration, shows where collecting stands, moves it, and reconciles
//! what the vendor has with what was delivered. It works with the plugin's own code, so what it says
//! is what the plugin would do.

mod check;
mod command;
mod host;
mod html;
mod lint;
mod network;
mod place;
mod reconcile;
mod replay;
mod report;
mod simulate;
mod stanza;
mod state;
mod states;
mod time;
mod vendor;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use in_trendmicro::error::Error;

/// Why a command could not be carried out.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The plugin, or somebody else, holds the state file.
    fn in_use(message: String) -> Self {
        Self { code: command::EXIT_IN_USE, message }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { code: command::EXIT_UNABLE, message: error.to_string() }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self { code: command::EXIT_UNABLE, message: error.to_string() }
    }
}

fn main() -> ExitCode {
    match command::run(command::Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(Failure { code, message }) => {
            // Where not even this can be written, the code still tells.
            let _ = writeln!(anstream::stderr(), "trendmicroctl: {message}");
            ExitCode::from(code)
        }
    }
}
