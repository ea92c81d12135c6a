//! The symbols that Fluent Bit looks up, in the manner of its Go proxy. The only room with `unsafe`.
//!
//! Every export is a guard around one safe call. The host calls most of them on the input's own
//! thread; registering happens on its main thread, before a fork in daemon mode, and so must do
//! nothing but fill in the definition.

// The exported names are the host's.
#![allow(non_snake_case, non_camel_case_types)]

pub mod abi;
mod guard;
mod host;
mod memory;
mod metrics;
mod registry;

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use abi::{FLB_ERROR, FLB_OK, flb_plugin_proxy_def, flbgo_input_plugin};
use guard::guard;
use host::FfiHost;
use registry::{Entry, Origin, Slot};

use crate::config::{Config, HandoverMode};
use crate::error::{Error, Result};
use crate::instance::{Abilities, Host as _, Instance};
use crate::log::{Level, Line, Log, Logger};

/// Called before registering; `is_hot_reload` tells a reload from a start.
#[unsafe(no_mangle)]
pub extern "C" fn FLBPluginPreRegister(_is_hot_reload: c_int) -> c_int {
    guard(FLB_OK, || FLB_OK)
}

/// Fills in the definition: its first 32 bytes and not one more.
///
/// # Safety
/// `def` is NULL or points to the host's `struct flb_plugin_proxy_def`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn FLBPluginRegister(def: *mut flb_plugin_proxy_def) -> c_int {
    guard(-1, || {
        // SAFETY: by the caller's promise; the mirror ends where the shortest definition ends.
        let Some(def) = (unsafe { def.as_mut() }) else { return -1 };
        *def = flb_plugin_proxy_def {
            r#type: abi::FLB_PROXY_INPUT_PLUGIN,
            proxy: abi::FLB_PROXY_GOLANG,
            flags: 0,
            name: c"trendmicro".as_ptr(),
            description: c"Trend Micro logs and inventories".as_ptr(),
        };
        0
    })
}

/// Starts an instance; returns 1, or 0 after an error line if its configuration is wrong.
///
/// # Safety
/// `plugin` is NULL or points to the host's `struct flbgo_input_plugin`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn FLBPluginInit(plugin: *mut flbgo_input_plugin) -> c_int {
    guard(FLB_ERROR, || {
        guard::keep_last_words();
        // SAFETY: by the caller's promise.
        let (host, has_context) = unsafe { (FfiHost::new(plugin), host::has_context(plugin)) };
        let Some(entry) = host.and_then(|host| start(host, has_context)) else { return FLB_ERROR };
        if has_context {
            // SAFETY: `has_context` was just found true.
            unsafe { host::set_context(plugin, entry.context()) };
        }
        FLB_OK
    })
}

/// Called once all inputs are initialised.
#[unsafe(no_mangle)]
pub extern "C" fn FLBPluginInputPreRun(_is_hot_reload_enabled: c_int) -> c_int {
    guard(FLB_OK, || FLB_OK)
}

/// One tick of a host before 4.1, which passes no context.
///
/// # Safety
/// `data` and `len` are NULL or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn FLBPluginInputCallback(data: *mut *mut c_void, len: *mut usize) -> c_int {
    // SAFETY: by the caller's promise.
    guard(FLB_OK, || unsafe { collect(&Entry::of_thread(), data, len) })
}

/// One tick of a host from 4.1 on.
///
/// # Safety
/// `data` and `len` are NULL or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn FLBPluginInputCallbackCtx(
    context: *mut c_void,
    data: *mut *mut c_void,
    len: *mut usize,
) -> c_int {
    // SAFETY: by the caller's promise.
    guard(FLB_OK, || unsafe { collect(&Entry::of_context(context), data, len) })
}

/// The host has copied the buffer that collect returned; hosts before 2.1.10 pass NULL too.
#[unsafe(no_mangle)]
pub extern "C" fn FLBPluginInputCleanupCallback(data: *mut c_void) -> c_int {
    guard(FLB_OK, || cleanup(&Entry::of_thread(), data))
}

/// The same, of a host from 4.1 on.
#[unsafe(no_mangle)]
pub extern "C" fn FLBPluginInputCleanupCallbackCtx(
    context: *mut c_void,
    data: *mut c_void,
) -> c_int {
    guard(FLB_OK, || cleanup(&Entry::of_context(context), data))
}

/// The host wants no more records from this thread's input.
#[unsafe(no_mangle)]
pub extern "C" fn FLBPluginInputPause() {
    guard((), || Entry::of_thread().iter().for_each(|entry| entry.set_paused(true)));
}

/// The host wants records again.
#[unsafe(no_mangle)]
pub extern "C" fn FLBPluginInputResume() {
    guard((), || Entry::of_thread().iter().for_each(|entry| entry.set_paused(false)));
}

/// The input is about to end; the argument is not to be trusted after a failed reload.
#[unsafe(no_mangle)]
pub extern "C" fn FLBPluginInputPreExit(_is_hot_reload: c_int) {
    guard((), || Entry::of_thread().iter().for_each(|entry| entry.set_paused(true)));
}

/// Ends the input of this thread: its threads are joined, its state file is closed.
#[unsafe(no_mangle)]
pub extern "C" fn FLBPluginExit() -> c_int {
    guard(FLB_OK, || {
        for entry in Entry::remove_of_thread() {
            entry.with(|slot| {
                slot.instance.stop(&mut slot.host);
                report_panics(slot);
            });
        }
        FLB_OK
    })
}

/// The host drops a definition, perhaps that of a reload that failed while our instances run on.
#[unsafe(no_mangle)]
pub extern "C" fn FLBPluginUnregister(_def: *mut flb_plugin_proxy_def) -> c_int {
    guard(FLB_OK, || FLB_OK)
}

/// Reads the configuration and starts an instance; says what is wrong if it cannot.
fn start(mut host: FfiHost, has_context: bool) -> Option<Entry> {
    let level_max = if host.prints(Level::Debug) { Level::Debug } else { Level::Info };
    let log = Log::new(level_max);
    let name = host.name().unwrap_or_else(|| "trendmicro".to_owned());
    let logger = Logger::new(log.clone(), &format!("[input:trendmicro:{name}]"));
    let origin = Origin { abilities: host.abilities(has_context), log: Arc::clone(&log), logger };
    let started = Config::read(&|key| host.property(key)).and_then(|config| {
        check_thread(&config, origin.abilities, has_context, &origin.logger)?;
        origin.begin(config)
    });
    let Origin { logger, .. } = &origin;
    let mut instance = started.map_err(|error| logger.error(error)).ok();
    if let Some(instance) = &mut instance {
        if !host.create_metrics(&name) {
            logger.debug("this host does not export what makes metrics, so there are none");
        }
        // Every series must be there before this returns.
        instance.look(&mut host);
    }
    log.take().iter().for_each(|line| host.print(line));
    Some(Entry::add(Slot { instance: instance?, host, buffer: None, origin }))
}

impl Origin {
    fn begin(&self, config: Config) -> Result<Instance> {
        if !self.abilities.keeps_at_stop {
            self.logger.warn(
                "this host is older than 4.0.3: what it was handed just before a stop is not \
                 trusted, and is fetched again at the next start if db is set",
            );
        }
        host::with_signals_blocked(|| {
            Instance::start(config, self.abilities, Arc::clone(&self.log), self.logger.clone())
        })
    }
}

/// With `threaded off` all inputs share the host's main thread, which has its limits.
fn check_thread(
    config: &Config,
    abilities: Abilities,
    has_context: bool,
    logger: &Logger,
) -> Result<()> {
    let is_shared = !Entry::of_thread().is_empty();
    if is_shared || host::is_on_pipeline() {
        logger.warn("threaded is off: this input shares the host's main thread; leave it on");
    }
    let is_return = !abilities.can_append || config.handover == HandoverMode::Return;
    if is_shared && is_return && !has_context {
        return Err(Error::config(
            "threaded is off for several inputs of this plugin, and this host cannot tell them \
             apart; legal: one input, or threaded on; write: threaded: on",
        ));
    }
    Ok(())
}

/// One tick of each instance; at most one of them returns a buffer.
///
/// # Safety
/// `data` and `len` are NULL or can be written to.
unsafe fn collect(entries: &[Entry], data: *mut *mut c_void, len: *mut usize) -> c_int {
    // SAFETY: by the caller's promise.
    let (Some(data), Some(len)) = (unsafe { (data.as_mut(), len.as_mut()) }) else {
        return FLB_OK;
    };
    (*data, *len) = (std::ptr::null_mut(), 0);
    for entry in entries {
        entry.with(|slot| {
            report_panics(slot);
            revive(slot);
            slot.buffer = slot.instance.tick(&mut slot.host);
            if let Some(buffer) = &mut slot.buffer {
                (*data, *len) = (buffer.as_mut_ptr().cast(), buffer.len());
            }
        });
    }
    FLB_OK
}

fn cleanup(entries: &[Entry], data: *mut c_void) -> c_int {
    for entry in entries {
        entry.with(|slot| {
            let is_ours = |buffer: &mut Vec<u8>| std::ptr::eq(buffer.as_ptr().cast(), data);
            slot.buffer.take_if(is_ours);
        });
    }
    FLB_OK
}

/// Starts an instance anew of which a thread has died, from what the host has been told of it.
fn revive(slot: &mut Slot) {
    let Slot { instance, host, origin, .. } = slot;
    instance.revive(host, |host| {
        Config::read(&|key| host.property(key)).and_then(|config| origin.begin(config))
    });
}

fn report_panics(slot: &mut Slot) {
    for text in guard::take_last_words() {
        let text = format!("[input:trendmicro] {text}");
        slot.host.print(&Line { level: Level::Error, text });
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::null_mut as null;

    use super::*;

    /// A panic behind any export is caught, and the host gets an answer that it can live with.
    #[test]
    fn no_panic_crosses_any_export() {
        let (mut data, mut len) = (null(), 7);
        // SAFETY: NULL and local pointers are within each function's promise.
        unsafe {
            let exports: [(&str, &mut dyn FnMut() -> c_int, c_int); 13] = [
                ("PreRegister", &mut || FLBPluginPreRegister(0), FLB_OK),
                ("Register", &mut || FLBPluginRegister(null()), -1),
                ("Init", &mut || FLBPluginInit(null()), FLB_ERROR),
                ("InputPreRun", &mut || FLBPluginInputPreRun(0), FLB_OK),
                ("InputCallback", &mut || FLBPluginInputCallback(null(), null()), FLB_OK),
                (
                    "InputCallbackCtx",
                    &mut || FLBPluginInputCallbackCtx(null(), &raw mut data, &raw mut len),
                    FLB_OK,
                ),
                ("Cleanup", &mut || FLBPluginInputCleanupCallback(null()), FLB_OK),
                ("CleanupCtx", &mut || FLBPluginInputCleanupCallbackCtx(null(), null()), FLB_OK),
                ("Exit", &mut || FLBPluginExit(), FLB_OK),
                ("Unregister", &mut || FLBPluginUnregister(null()), FLB_OK),
                (
                    "Pause",
                    &mut || {
                        FLBPluginInputPause();
                        FLB_OK
                    },
                    FLB_OK,
                ),
                (
                    "Resume",
                    &mut || {
                        FLBPluginInputResume();
                        FLB_OK
                    },
                    FLB_OK,
                ),
                (
                    "PreExit",
                    &mut || {
                        FLBPluginInputPreExit(0);
                        FLB_OK
                    },
                    FLB_OK,
                ),
            ];
            for (name, call, expected) in exports {
                guard::tests::arm();
                assert_eq!(call(), expected, "{name} with a panic inside");
                let is_disarmed = std::panic::catch_unwind(guard::tests::panic_if_armed).is_ok();
                assert!(is_disarmed, "{name} went through the guard");
                assert_eq!(call(), expected, "{name} with nothing but NULL");
            }
        }
    }
}
