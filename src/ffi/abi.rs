//! The host's structures, as far as every supported host has them.
//!
//! Names are the host's own (`flb_plugin_proxy.h`, `go.h`, `flb_api.h`). Only common prefixes are
//! mirrored: what lies behind them differs between versions, and writing there would overrun what
//! older hosts allocate. A test compares these layouts with those of a C compiler.

use std::ffi::{c_char, c_int, c_void};

/// `FLB_ERROR`: initialising failed.
pub const FLB_ERROR: c_int = 0;
/// `FLB_OK`; a collect that has nothing returns it too, with a length of 0.
pub const FLB_OK: c_int = 1;
/// `FLB_PROXY_INPUT_PLUGIN`
pub const FLB_PROXY_INPUT_PLUGIN: c_int = 1;
/// `FLB_PROXY_GOLANG`: the kind of proxy whose calling convention this is.
pub const FLB_PROXY_GOLANG: c_int = 11;

/// The first 32 bytes of `struct flb_plugin_proxy_def`, which all hosts have.
#[repr(C)]
pub struct flb_plugin_proxy_def {
    /// Kind of plugin.
    pub r#type: c_int,
    /// Kind of proxy.
    pub proxy: c_int,
    /// Flags; always 0.
    pub flags: c_int,
    /// Name of the plugin; the host copies it.
    pub name: *const c_char,
    /// Description; the host keeps the pointer.
    pub description: *const c_char,
}

/// The first 56 bytes of `struct flbgo_input_plugin`, which all hosts have.
#[repr(C)]
pub struct flbgo_input_plugin {
    /// Name of the plugin.
    pub name: *const c_char,
    /// What the host can do for us.
    pub api: *const flb_api,
    /// The input instance, `struct flb_input_instance *`.
    pub i_ins: *mut c_void,
    /// The instance's context; its layout depends on `slot_48`.
    pub context: *mut c_void,
    /// `FLBPluginInit`.
    pub cb_init: *const c_void,
    /// `FLBPluginInputCallback`.
    pub cb_collect: *const c_void,
    /// `FLBPluginInputCallbackCtx` from host 4.1 on, `FLBPluginInputCleanupCallback` before.
    pub slot_48: *const c_void,
}

/// `struct flb_plugin_input_proxy_context` of hosts from 4.1 on.
#[repr(C)]
pub struct flb_plugin_input_proxy_context {
    /// The host's collector.
    pub coll_fd: c_int,
    /// What we get back in every `…Ctx` callback.
    pub remote_context: *mut c_void,
}

/// The first 56 bytes of `struct flb_api`, the same since host 2.0.
#[repr(C)]
pub struct flb_api {
    /// For outputs.
    pub output_get_property: *const c_void,
    /// The value of a key, owned by the host; NULL if absent or empty.
    pub input_get_property:
        Option<unsafe extern "C" fn(key: *const c_char, ins: *mut c_void) -> *const c_char>,
    /// For outputs.
    pub output_get_cmt_instance: *const c_void,
    /// The instance's metrics context, `struct cmt *`.
    pub input_get_cmt_instance: Option<unsafe extern "C" fn(ins: *mut c_void) -> *mut c_void>,
    /// Prints a line, on the host's own threads only.
    pub log_print: Option<
        unsafe extern "C" fn(
            level: c_int,
            file: *const c_char,
            line: c_int,
            format: *const c_char,
            ...
        ),
    >,
    /// Whether the instance's log level lets a line through.
    pub input_log_check: Option<unsafe extern "C" fn(ins: *mut c_void, level: c_int) -> c_int>,
    /// For outputs.
    pub output_log_check: *const c_void,
}

/// The size of `struct flb_api` from host 4.0.3 on; before, it ended with what is mirrored here.
pub const FLB_API_BYTES_4_0_3: usize = 72;

/// `flb_input_log_append`
pub type AppendFn = unsafe extern "C" fn(
    ins: *mut c_void,
    tag: *const c_char,
    tag_len: usize,
    buf: *const c_void,
    buf_size: usize,
) -> c_int;

/// `cmt_encode_prometheus_create`
pub type EncodeFn = unsafe extern "C" fn(cmt: *mut c_void, add_timestamp: c_int) -> *mut c_char;

/// `cmt_counter_create` and `cmt_gauge_create`; all texts are copied.
pub type CreateMetricFn = unsafe extern "C" fn(
    cmt: *mut c_void,
    namespace: *const c_char,
    subsystem: *const c_char,
    name: *const c_char,
    help: *const c_char,
    label_count: c_int,
    label_keys: *const *const c_char,
) -> *mut c_void;

/// `cmt_counter_set` and `cmt_gauge_set`; a set of label values that is new is copied.
pub type SetMetricFn = unsafe extern "C" fn(
    metric: *mut c_void,
    timestamp_nanos: u64,
    value: f64,
    label_count: c_int,
    label_values: *const *const c_char,
) -> c_int;

/// `cmt_encode_prometheus_destroy`
pub type EncodeDestroyFn = unsafe extern "C" fn(text: *mut c_char);
