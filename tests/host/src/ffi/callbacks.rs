//! What the plugin calls: properties, log lines, metrics, the append function.
//!
//! The plugin knows only opaque addresses. They are looked up in a table, so a wrong or stale one is
//! counted as a violation and never followed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::ptr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use super::{Library, measured};
use crate::instance::Instance;
use crate::metrics;
use crate::options::Exports;
use crate::shared::Shared;

type Append = extern "C" fn(*mut c_void, *const c_char, usize, *const c_void, usize) -> c_int;
type Encode = extern "C" fn(*mut c_void, c_int, c_int) -> *mut c_char;

unsafe extern "C" {
    fn embedded_host_callbacks(
        property: extern "C" fn(*const c_char, *mut c_void) -> *const c_char,
        metrics: extern "C" fn(*mut c_void) -> *mut c_void,
        log_check: extern "C" fn(*mut c_void, c_int) -> c_int,
        log_line: extern "C" fn(c_int, *const c_char),
    );
}

/// What a host thread is doing; a thread without a role is not the host's.
#[derive(Clone)]
pub struct Role {
    /// The host the thread belongs to.
    pub shared: Arc<Shared>,
    /// The address of the instance whose collect callback runs on this thread right now.
    pub collecting: Option<usize>,
}

thread_local! {
    static ROLE: RefCell<Option<Role>> = const { RefCell::new(None) };
}

static INSTANCES: RwLock<Option<HashMap<usize, Arc<Instance>>>> = RwLock::new(None);
static LIVE_HOSTS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());
static EXPORTS: OnceLock<Result<Exports, String>> = OnceLock::new();

/// Gives this thread its role (or takes it away) and returns the one it had.
pub fn enter(role: Option<Role>) -> Option<Role> {
    ROLE.with(|slot| slot.replace(role))
}

/// The role of this thread.
pub fn role() -> Option<Role> {
    ROLE.try_with(|slot| slot.borrow().clone()).ok().flatten()
}

/// A host that must hear of calls made by threads that belong to no host.
pub fn add_live_host(shared: &Arc<Shared>) {
    let mut hosts = LIVE_HOSTS.lock().unwrap_or_else(PoisonError::into_inner);
    hosts.retain(|host| host.strong_count() > 0);
    hosts.push(Arc::downgrade(shared));
}

/// Makes the instance's addresses known.
pub fn add_instance(instance: &Arc<Instance>) {
    let mut table = INSTANCES.write().unwrap_or_else(PoisonError::into_inner);
    let table = table.get_or_insert_with(HashMap::new);
    table.insert(instance.handle(), Arc::clone(instance));
    table.insert(instance.metrics_handle(), Arc::clone(instance));
}

/// Forgets the instance's addresses: from here on their use is a violation.
pub fn remove_instance(instance: &Instance) {
    let mut table = INSTANCES.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(table) = table.as_mut() {
        table.remove(&instance.handle());
        table.remove(&instance.metrics_handle());
    }
}

/// Loads the library with the exported functions. A process has one symbol table, so the first
/// choice holds for its life.
pub fn install(exports: Exports) -> Result<(), String> {
    // SAFETY: the four functions have the types the C side declares and live for ever.
    unsafe { embedded_host_callbacks(get_property, get_metrics, log_check, log_line) };
    let chosen = EXPORTS.get_or_init(|| load_exports(exports).map(|()| exports));
    match chosen {
        Ok(chosen) if *chosen == exports => Ok(()),
        Ok(chosen) => Err(format!("this process already offers the exports {chosen:?}")),
        Err(error) => Err(error.clone()),
    }
}

fn load_exports(exports: Exports) -> Result<(), String> {
    let path = PathBuf::from(env!("EMBEDDED_HOST_OUT")).join(exports.library_name());
    let library = Library::open(&path, true)?;
    let symbol = library.symbol(c"embedded_host_exports");
    if symbol.is_null() {
        return Err(format!("{} lacks its set-up function", path.display()));
    }
    // SAFETY: exports.c defines this symbol with exactly these function pointers.
    let set_up: extern "C" fn(Append, Encode, measured::Create, measured::Set) =
        unsafe { std::mem::transmute(symbol) };
    set_up(append, encode, measured::create, measured::set);
    Ok(())
}

/// The instance that an address the plugin holds belongs to.
pub(super) fn instance_at(address: usize) -> Option<Arc<Instance>> {
    let table = INSTANCES.read().unwrap_or_else(PoisonError::into_inner);
    table.as_ref()?.get(&address).cloned()
}

/// Counts a violation on the host of this thread, or on the youngest one alive.
pub(super) fn violation(name: &str, detail: &str) {
    if let Some(role) = role() {
        role.shared.violation(name, detail);
    } else if let Some(shared) = youngest_host() {
        shared.violation(name, detail);
    }
}

fn youngest_host() -> Option<Arc<Shared>> {
    let hosts = LIVE_HOSTS.lock().unwrap_or_else(PoisonError::into_inner);
    hosts.iter().rev().find_map(Weak::upgrade)
}

extern "C" fn get_property(key: *const c_char, ins: *mut c_void) -> *const c_char {
    let Some(instance) = instance_at(ins.expose_provenance()) else {
        violation("unknown_instance", "input_get_property");
        return ptr::null();
    };
    if key.is_null() {
        return ptr::null();
    }
    // SAFETY: the plugin passes a terminated string, as the function's contract demands.
    let key = unsafe { CStr::from_ptr(key) }.to_string_lossy();
    instance.property(&key).map_or(ptr::null(), CStr::as_ptr)
}

extern "C" fn get_metrics(ins: *mut c_void) -> *mut c_void {
    if let Some(instance) = instance_at(ins.expose_provenance()) {
        return ptr::with_exposed_provenance_mut(instance.metrics_handle());
    }
    violation("unknown_instance", "input_get_cmt_instance");
    ptr::null_mut()
}

extern "C" fn log_check(ins: *mut c_void, level: c_int) -> c_int {
    if let Some(instance) = instance_at(ins.expose_provenance()) {
        return c_int::from(level <= instance.settings.log_level);
    }
    violation("unknown_instance", "input_log_check");
    0
}

extern "C" fn log_line(level: c_int, text: *const c_char) {
    // SAFETY: the C side passes its own terminated buffer.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    if let Some(role) = role() {
        role.shared.log.line(level, &text);
    } else {
        // The real host writes such a line to stderr, past its log file.
        violation("foreign_thread_log_lines", &text);
        eprintln!("{text}");
    }
}

extern "C" fn append(
    ins: *mut c_void,
    tag: *const c_char,
    tag_len: usize,
    data: *const c_void,
    len: usize,
) -> c_int {
    let address = ins.expose_provenance();
    match role() {
        None => violation("append_from_foreign_thread", "flb_input_log_append"),
        Some(role) if role.collecting != Some(address) => {
            violation("append_outside_collect", "flb_input_log_append");
        }
        Some(_) => {}
    }
    let Some(instance) = instance_at(address) else {
        violation("unknown_instance", "flb_input_log_append");
        return -1;
    };
    if data.is_null() || len == 0 {
        violation("empty_append", "flb_input_log_append");
        return -1;
    }
    let tag = if tag.is_null() || tag_len == 0 {
        None
    } else {
        // SAFETY: the plugin passes `tag_len` readable bytes.
        let bytes = unsafe { std::slice::from_raw_parts(tag.cast::<u8>(), tag_len) };
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    // SAFETY: the plugin passes `len` readable bytes that stay during the call.
    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) };
    if instance.append(tag.as_deref(), bytes) { 0 } else { -1 }
}

extern "C" fn encode(cmt: *mut c_void, format: c_int, add_timestamp: c_int) -> *mut c_char {
    let Some(instance) = instance_at(cmt.expose_provenance()) else {
        violation("unknown_instance", "cmt_encode");
        return ptr::null_mut();
    };
    if role().is_none() {
        violation("metrics_from_foreign_thread", "cmt_encode");
    }
    let text = metrics::text(&instance, format == 1, add_timestamp != 0);
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: strdup copies a terminated string; the C side frees the copy.
    unsafe { libc::strdup(text.as_ptr()) }
}
