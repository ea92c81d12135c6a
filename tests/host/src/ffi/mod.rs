//! The one door to the C side: loading the plugin, calling it, being called by it.
//!
//! Everything above this folder is safe Rust; it sees a [`Proxy`] with one method per callback.
#![allow(unsafe_code)] // Loading a C library and calling through its pointers cannot be done without.

mod callbacks;
mod measured;
pub mod process;
mod proxy;

use std::ffi::{CStr, CString, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};

pub use callbacks::{Role, add_instance, add_live_host, enter, install, remove_instance};
pub use proxy::{Context, Definition, Proxy};

unsafe extern "C" {
    fn embedded_host_layout(index: usize, name: *mut *const c_char, value: *mut usize) -> usize;
}

/// Size and field offsets of every mirrored struct, as the C compiler lays them out; a size has the
/// struct's bare name, an offset `struct.field`.
pub fn layouts() -> Vec<(String, usize)> {
    let mut rows = Vec::new();
    let mut name: *const c_char = ptr::null();
    let mut value = 0;
    loop {
        // SAFETY: both out-pointers are valid for the call, which writes them only below the count.
        let count = unsafe { embedded_host_layout(rows.len(), &raw mut name, &raw mut value) };
        if rows.len() >= count {
            return rows;
        }
        // SAFETY: the row exists, so `name` points to a string literal of the C file.
        let text = unsafe { CStr::from_ptr(name) };
        rows.push((text.to_string_lossy().into_owned(), value));
    }
}

/// A loaded shared object.
pub struct Library {
    handle: NonNull<c_void>,
}

// SAFETY: a handle of dlopen may be used from any thread.
unsafe impl Send for Library {}
// SAFETY: as above; dlsym is thread-safe.
unsafe impl Sync for Library {}

impl Library {
    /// Opens `path` as the host opens a plugin, lazily and locally, or for everybody.
    pub fn open(path: &Path, global: bool) -> Result<Self, String> {
        let text = c_path(path.as_os_str())?;
        let flags = if global { libc::RTLD_NOW | libc::RTLD_GLOBAL } else { libc::RTLD_LAZY };
        // SAFETY: `text` is a terminated string that outlives the call.
        let handle = unsafe { libc::dlopen(text.as_ptr(), flags) };
        NonNull::new(handle).map(|handle| Self { handle }).ok_or_else(last_error)
    }

    fn symbol(&self, name: &CStr) -> *mut c_void {
        // SAFETY: the handle is open, the name is terminated.
        unsafe { libc::dlsym(self.handle.as_ptr(), name.as_ptr()) }
    }

    fn close(&self) {
        // SAFETY: the handle came from dlopen and its owner calls this once, at the end.
        unsafe { libc::dlclose(self.handle.as_ptr()) };
    }
}

fn c_path(path: &OsStr) -> Result<CString, String> {
    CString::new(path.as_bytes()).map_err(|_| "path contains a NUL byte".to_owned())
}

fn last_error() -> String {
    // SAFETY: dlerror returns NULL or a terminated string that stays until the next dl call.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "unknown error of the dynamic linker".to_owned();
    }
    // SAFETY: checked for NULL above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
