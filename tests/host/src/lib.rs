//! A small host that loads a Fluent Bit input plugin through the real Go-proxy ABI.
//!
//! It keeps what a plugin can feel of the real host: the structs of both ABI lines, the order of the
//! callbacks and their threads, timers on whole seconds, the ring with its refusals, the pause that
//! stops the wrong collector, the reload that registers before it stops, and the places where records
//! are lost. It also judges: whatever a plugin must not do is counted as a violation.
//!
//! It is no Fluent Bit: outputs write JSON lines, storage is one journal per input, and there are no
//! filters. It shares no type with the plugin, so neither can hide the other's mistake.

mod cli;
mod config;
mod ffi;
mod host;
mod instance;
mod mailbox;
mod metrics;
mod options;
mod pipeline;
mod record;
mod report;
mod shared;
mod store;
mod worker;

use std::io;
use std::path::PathBuf;

pub use cli::main;
pub use config::ConfigError;
pub use ffi::{Definition, layouts};
pub use host::{Host, HostError, Loaded, OutputSwitch};
pub use options::{Abi, Exports, Options, Processor};
pub use report::{Counts, InputStatus, Report, Status};
pub use shared::{Call, Violation};

/// The plugin this crate's own tests load: it hands over numbered records and does what its
/// properties say.
pub fn probe_plugin() -> PathBuf {
    PathBuf::from(env!("EMBEDDED_HOST_OUT")).join("probe_plugin.so")
}

/// The shared object of this name that cargo has just built with this program, a test or an example:
/// beside its folder, or in `deps`, whichever is newer.
///
/// # Errors
/// When it is in neither place.
pub fn built_plugin(name: &str) -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).unwrap_or(&own);
    let places = [target.join("deps").join(name), target.join(name)];
    let age = |path: &PathBuf| path.metadata().and_then(|meta| meta.modified()).ok();
    let newest = places.into_iter().filter(|path| path.is_file()).max_by_key(age);
    newest.ok_or_else(|| {
        let text = format!("no {name} below {}: run cargo build", target.display());
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}
