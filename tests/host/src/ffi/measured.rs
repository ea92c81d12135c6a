//! Metrics that the plugin makes in an instance's context.
//!
//! The host reads the context on another thread without a lock, so what is made after Init, and what
//! is made or set by a thread that is not the host's, is a violation.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::callbacks::{instance_at, role, violation};
use crate::metrics::Family;

pub type Create = extern "C" fn(
    *mut c_void,
    c_int,
    *const *const c_char,
    c_int,
    *const *const c_char,
) -> *mut c_void;
pub type Set = extern "C" fn(*mut c_void, f64, c_int, *const *const c_char) -> c_int;

/// The context and the place in it of each metric that was ever made.
static METRICS: Mutex<Option<HashMap<usize, (usize, usize)>>> = Mutex::new(None);
static NEXT: AtomicUsize = AtomicUsize::new(1);
/// Namespace, subsystem, name and help.
const NAMES: c_int = 4;

pub extern "C" fn create(
    cmt: *mut c_void,
    is_counter: c_int,
    names: *const *const c_char,
    count: c_int,
    keys: *const *const c_char,
) -> *mut c_void {
    let address = cmt.expose_provenance();
    let Some(instance) = instance_at(address) else {
        violation("unknown_instance", "cmt_create");
        return ptr::null_mut();
    };
    // SAFETY: exports.c passes four names, and the plugin as many keys as it says.
    let (names, keys) = unsafe { (texts(names, NAMES), texts(keys, count)) };
    let name = names[..3].join("_");
    if role().is_none() || instance.is_initialised.load(Ordering::SeqCst) {
        violation("metric_after_init", &name);
    }
    let mut families = instance.families.lock().unwrap_or_else(PoisonError::into_inner);
    if names.iter().any(String::is_empty) || families.iter().any(|family| family.name == name) {
        violation("bad_metric", &name);
    }
    let (help, is_counter) = (names[3].clone(), is_counter != 0);
    families.push(Family { name, help, is_counter, keys, series: Vec::new() });
    let id = NEXT.fetch_add(1, Ordering::SeqCst);
    let mut metrics = METRICS.lock().unwrap_or_else(PoisonError::into_inner);
    metrics.get_or_insert_default().insert(id, (address, families.len() - 1));
    ptr::without_provenance_mut(id)
}

pub extern "C" fn set(
    metric: *mut c_void,
    value: f64,
    count: c_int,
    values: *const *const c_char,
) -> c_int {
    let metrics = METRICS.lock().unwrap_or_else(PoisonError::into_inner);
    let place = metrics.as_ref().and_then(|metrics| metrics.get(&metric.addr()).copied());
    drop(metrics);
    let found = place.and_then(|(cmt, index)| Some((instance_at(cmt)?, index)));
    let Some((instance, index)) = found else {
        violation("unknown_metric", "cmt_set");
        return -1;
    };
    // SAFETY: the plugin passes as many values as it says.
    let labels = unsafe { texts(values, count) };
    let mut families = instance.families.lock().unwrap_or_else(PoisonError::into_inner);
    let family = &mut families[index];
    if role().is_none() {
        violation("metrics_from_foreign_thread", &family.name);
    }
    if labels.len() != family.keys.len() {
        violation("bad_labels", &format!("{} {labels:?}", family.name));
        return -1;
    }
    let is_new = family.series.iter().all(|(own, _)| *own != labels);
    if is_new && instance.is_initialised.load(Ordering::SeqCst) {
        violation("series_after_init", &format!("{} {labels:?}", family.name));
    }
    if family.set(&labels, value) {
        return 0;
    }
    violation("counter_fell", &format!("{} {labels:?}", family.name));
    -1
}

/// # Safety
/// `array` holds so many terminated strings.
unsafe fn texts(array: *const *const c_char, count: c_int) -> Vec<String> {
    let text = |index| {
        // SAFETY: by the caller's promise.
        unsafe { CStr::from_ptr(*array.add(index)) }.to_string_lossy().into_owned()
    };
    (0..usize::try_from(count).unwrap_or_default()).map(text).collect()
}
