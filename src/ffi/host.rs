//! The host behind a safe face.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::abi::{
    self, AppendFn, EncodeDestroyFn, EncodeFn, flb_api, flb_plugin_input_proxy_context,
    flbgo_input_plugin,
};
use super::metrics::{MetricSymbols, Metrics};
use crate::handover::Counters;
use crate::instance::{Abilities, Host};
use crate::log::{Level, Line};
use crate::metrics::Sample;

/// Functions that the host's executable exports, beyond its plugin interface.
struct Symbols {
    append: Option<AppendFn>,
    encode: Option<(EncodeFn, EncodeDestroyFn)>,
    measure: Option<MetricSymbols>,
}

impl Symbols {
    /// What this process exports, looked up once.
    fn get() -> &'static Self {
        static SYMBOLS: OnceLock<Symbols> = OnceLock::new();
        SYMBOLS.get_or_init(|| {
            let append = find(c"flb_input_log_append");
            let create = find(c"cmt_encode_prometheus_create");
            let destroy = find(c"cmt_encode_prometheus_destroy");
            Self {
                // SAFETY: the signature has been the same in every host since 2.0.0 (flb_input_log.h).
                append: append
                    .map(|symbol| unsafe { std::mem::transmute::<*mut c_void, AppendFn>(symbol) }),
                encode: create.zip(destroy).map(|(create, destroy)| {
                    // SAFETY: both signatures have been the same in every host since 2.0.0
                    // (cmt_encode_prometheus.h).
                    unsafe {
                        (
                            std::mem::transmute::<*mut c_void, EncodeFn>(create),
                            std::mem::transmute::<*mut c_void, EncodeDestroyFn>(destroy),
                        )
                    }
                }),
                measure: MetricSymbols::find(),
            }
        })
    }
}

/// The address of a symbol of the process.
pub(super) fn find(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name ends in NUL, and RTLD_DEFAULT needs no handle.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!symbol.is_null()).then_some(symbol)
}

/// The host's face for one input instance, for use on that instance's host thread.
pub struct FfiHost {
    api: *const flb_api,
    ins: *mut c_void,
    is_paused: Arc<AtomicBool>,
    metrics: Option<Metrics>,
}

// SAFETY: the pointers stay valid until FLBPluginExit has returned, after which the registry has
// dropped this value; it is moved between threads never, but lies in a static that demands `Send`.
unsafe impl Send for FfiHost {}

impl FfiHost {
    /// Reads what `FLBPluginInit` was given; `None` if the host gave nothing usable.
    ///
    /// # Safety
    /// `plugin` is NULL or points to the host's `struct flbgo_input_plugin`.
    pub unsafe fn new(plugin: *const flbgo_input_plugin) -> Option<Self> {
        // SAFETY: by the caller's promise; the fields read here exist in every host. They are
        // copied, since the host overwrites them when the next instance starts.
        let (api, ins) = unsafe { plugin.as_ref().map(|plugin| (plugin.api, plugin.i_ins))? };
        if api.is_null() || ins.is_null() {
            return None;
        }
        Some(Self { api, ins, is_paused: Arc::default(), metrics: None })
    }

    /// The flag that a pause raises, for the registry.
    pub fn pause_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_paused)
    }

    /// What this host can do; `has_context` tells that it is of 4.1 or newer.
    pub fn abilities(&mut self, has_context: bool) -> Abilities {
        let can_append = Symbols::get().append.is_some();
        let keeps_at_stop = has_context || self.is_from_4_0_3();
        Abilities { can_append, can_count: self.encode().is_some(), keeps_at_stop }
    }

    /// Whether the host is of 4.0.3 or newer: from then on its table of functions is longer, and it
    /// allocates it with its exact size.
    fn is_from_4_0_3(&self) -> bool {
        // SAFETY: `flb_api_create` allocates the table with the process's own malloc, which is the
        // one that is asked (a host that brings its allocator exports it).
        let bytes = unsafe { libc::malloc_usable_size(self.api.cast_mut().cast()) };
        bytes >= abi::FLB_API_BYTES_4_0_3
    }

    /// The value of a property.
    pub fn property(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        // SAFETY: `api` is the host's live table (see `new`).
        let get = unsafe { (*self.api).input_get_property }?;
        // SAFETY: the key ends in NUL and `ins` is the host's live instance. The value belongs to
        // the host and is copied before this returns.
        let value = unsafe {
            let value = get(key.as_ptr(), self.ins);
            (!value.is_null()).then(|| CStr::from_ptr(value))?
        };
        Some(value.to_string_lossy().into_owned())
    }

    /// Whether a line of this level would be printed.
    pub fn prints(&self, level: Level) -> bool {
        // SAFETY: `api` and `ins` are live (see `new`).
        unsafe {
            (*self.api).input_log_check.is_some_and(|check| check(self.ins, level as c_int) != 0)
        }
    }

    /// The instance's name, as the host's metrics spell it.
    pub fn name(&mut self) -> Option<String> {
        let text = self.encode()?;
        let (_, after) = text.split_once("fluentbit_input_records_total{name=\"")?;
        Some(after.split_once('"')?.0.to_owned())
    }

    /// Creates the metrics under the instance's name, on the thread that is initialising it; false
    /// if this host cannot.
    pub fn create_metrics(&mut self, name: &str) -> bool {
        let parts = Symbols::get().measure.zip(self.cmt());
        // SAFETY: `cmt` is the instance's live context, and we are inside its Init (see `new`).
        self.metrics = parts.and_then(|(symbols, cmt)| unsafe { Metrics::new(symbols, cmt, name) });
        self.metrics.is_some()
    }

    /// The instance's metrics context, which lives as long as the instance.
    fn cmt(&self) -> Option<*mut c_void> {
        // SAFETY: `api` and `ins` are live (see `new`).
        let cmt = unsafe { (*self.api).input_get_cmt_instance.map(|get| get(self.ins))? };
        (!cmt.is_null()).then_some(cmt)
    }

    /// The instance's metrics in Prometheus' text form.
    fn encode(&mut self) -> Option<String> {
        let (create, destroy) = Symbols::get().encode?;
        let cmt = self.cmt()?;
        // SAFETY: `cmt` is a live metrics context; its values are read atomically and its set of
        // metrics does not change while the instance runs. The text ends in NUL, belongs to us, and
        // is copied before it is given back.
        unsafe {
            let text = create(cmt, 0);
            if text.is_null() {
                return None;
            }
            let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
            destroy(text);
            Some(copy)
        }
    }
}

impl Host for FfiHost {
    fn counters(&mut self) -> Option<Counters> {
        parse_counters(&self.encode()?)
    }

    fn append(&mut self, tag: Option<&str>, bytes: &[u8]) -> bool {
        let Some(append) = Symbols::get().append else { return false };
        let (tag, tag_len) = tag.map_or((std::ptr::null(), 0), |tag| (tag.as_ptr(), tag.len()));
        let buf = bytes.as_ptr().cast();
        // SAFETY: we are inside a collect callback on the instance's own thread, which is where the
        // host itself appends. Tag and buffer are copied by the host before it returns.
        unsafe { append(self.ins, tag.cast::<c_char>(), tag_len, buf, bytes.len()) == 0 }
    }

    fn measure(&mut self, samples: &[Sample], time_nanos: u64) {
        if let Some(metrics) = &mut self.metrics {
            metrics.set(samples, time_nanos);
        }
    }

    fn print(&mut self, line: &Line) {
        if !self.prints(line.level) {
            return;
        }
        let Ok(text) = CString::new(line.text.replace('\0', " ")) else { return };
        // SAFETY: `api` is live (see `new`).
        let Some(print) = (unsafe { (*self.api).log_print }) else { return };
        // SAFETY: the format takes one string, which ends in NUL; the host copies it.
        unsafe { print(line.level as c_int, c"".as_ptr(), 0, c"%s".as_ptr(), text.as_ptr()) };
    }

    fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Acquire)
    }
}

/// Reads the counters out of Prometheus' text form.
fn parse_counters(text: &str) -> Option<Counters> {
    let value = |name: &str| {
        let line = text.lines().find(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
        })?;
        // Counters are floats there, exact up to 2^53.
        let value: f64 = line.rsplit(' ').next()?.parse().ok()?;
        Some(value as u64)
    };
    Some(Counters {
        records: value("fluentbit_input_records_total")?,
        ring_writes: value("fluentbit_input_ring_buffer_writes_total"),
        ring_failures: value("fluentbit_input_ring_buffer_retry_failures_total"),
    })
}

/// Whether the host has the structures of 4.1 and newer: there, and only there, the slot behind the
/// plain collect callback holds the one with a context.
///
/// # Safety
/// `plugin` is NULL or points to the host's `struct flbgo_input_plugin`.
pub unsafe fn has_context(plugin: *const flbgo_input_plugin) -> bool {
    let ours = super::FLBPluginInputCallbackCtx as *const c_void;
    // SAFETY: by the caller's promise; every host's structure reaches beyond this slot.
    unsafe { plugin.as_ref() }.is_some_and(|plugin| plugin.slot_48 == ours)
}

/// Gives the host what it passes back in every `…Ctx` callback.
///
/// # Safety
/// [`has_context`] was true for `plugin`.
pub unsafe fn set_context(plugin: *const flbgo_input_plugin, remote_context: *mut c_void) {
    // SAFETY: by the caller's promise the context is one of a host from 4.1 on.
    unsafe {
        let context = (*plugin).context.cast::<flb_plugin_input_proxy_context>();
        if let Some(context) = context.as_mut() {
            context.remote_context = remote_context;
        }
    }
}

/// Whether this is the host's main pipeline thread, as with `threaded off`.
pub fn is_on_pipeline() -> bool {
    let mut name = [0_u8; 16];
    // SAFETY: the buffer has the 16 bytes that the call may write, NUL included.
    let status = unsafe {
        libc::pthread_getname_np(libc::pthread_self(), name.as_mut_ptr().cast(), name.len())
    };
    let name = CStr::from_bytes_until_nul(&name);
    status == 0 && name.is_ok_and(|name| name == c"flb-pipeline")
}

/// Runs `body` with all signals blocked, so that threads started in it leave every signal to the
/// host's own.
pub fn with_signals_blocked<T>(body: impl FnOnce() -> T) -> T {
    let _blocked = SignalsBlocked::new();
    body()
}

/// The signal mask that a thread had; it is put back also when a panic passes.
struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    fn new() -> Self {
        // SAFETY: both sets are initialised before they are read.
        unsafe {
            let mut all = std::mem::zeroed();
            let mut before = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self(before)
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled in by the system.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_blocked(signal: c_int) -> bool {
        // SAFETY: the set is initialised before it is read.
        unsafe {
            let mut now = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut now);
            libc::sigismember(&raw const now, signal) == 1
        }
    }

    #[test]
    fn the_hosts_signal_mask_comes_back_even_after_a_panic() {
        with_signals_blocked(|| assert!(is_blocked(libc::SIGTERM) && is_blocked(libc::SIGPIPE)));
        let panicked = std::panic::catch_unwind(|| with_signals_blocked(|| panic!("inside")));
        assert!(panicked.is_err());
        assert!(!is_blocked(libc::SIGTERM) && !is_blocked(libc::SIGPIPE));
    }

    #[test]
    fn counters_are_read_from_the_text_of_old_and_new_hosts() {
        let old = "# HELP fluentbit_input_records_total Number of input records.\n\
                   # TYPE fluentbit_input_records_total counter\n\
                   fluentbit_input_records_total{name=\"trendmicro.0\"} 12345678\n";
        let expected = Counters { records: 12_345_678, ..Counters::default() };
        assert_eq!(parse_counters(old), Some(expected));
        let new = format!(
            "{old}fluentbit_input_ring_buffer_writes_total{{name=\"a b\"}} 7\n\
             fluentbit_input_ring_buffer_retries_total{{name=\"a b\"}} 9\n\
             fluentbit_input_ring_buffer_retry_failures_total{{name=\"a b\"}} 2\n"
        );
        let expected = Counters { ring_writes: Some(7), ring_failures: Some(2), ..expected };
        assert_eq!(parse_counters(&new), Some(expected));
        assert_eq!(parse_counters("fluentbit_input_records_total_other{} 1\n"), None);
    }
}
