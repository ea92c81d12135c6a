//! The host's `flb_plugin_proxy`: one loaded plugin, its definition and the struct all instances
//! share.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

use super::Library;
use crate::options::Abi;

unsafe extern "C" {
    fn embedded_host_def_new(size: usize) -> *mut c_void;
    fn embedded_host_def_check(def: *mut c_void, size: usize) -> c_int;
    fn embedded_host_def_read(def: *mut c_void, numbers: *mut c_int, texts: *mut *const c_char);
    fn embedded_host_api_new(from_4_0_3: c_int) -> *mut c_void;
    fn embedded_host_plugin_new(
        from_4_1: c_int,
        name: *const c_char,
        symbols: *const *mut c_void,
    ) -> *mut c_void;
    fn embedded_host_context_new(from_4_1: c_int, proxy: *mut c_void) -> *mut c_void;
    fn embedded_host_init(
        plugin: *mut c_void,
        api: *mut c_void,
        ins: *mut c_void,
        context: *mut c_void,
    ) -> c_int;
    fn embedded_host_collect(
        from_4_1: c_int,
        plugin: *mut c_void,
        context: *mut c_void,
        data: *mut *mut c_void,
        len: *mut usize,
    ) -> c_int;
    fn embedded_host_cleanup(
        from_4_1: c_int,
        plugin: *mut c_void,
        context: *mut c_void,
        data: *mut c_void,
    ) -> c_int;
    fn embedded_host_exit(from_4_1: c_int, plugin: *mut c_void) -> c_int;
    fn embedded_host_call_int(symbol: *mut c_void, argument: c_int) -> c_int;
    fn embedded_host_call_pointer(symbol: *mut c_void, argument: *mut c_void) -> c_int;
    fn embedded_host_call_void(symbol: *mut c_void);
}

/// What `FLBPluginRegister` left in its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The plugin's registered name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// 1 for an input.
    pub kind: i32,
    /// 11 for the Go proxy.
    pub proxy: i32,
    /// Extra flags; an input should leave 0.
    pub flags: i32,
    /// True when bytes after the definition were overwritten.
    pub overrun: bool,
    /// True when `event_type` was set.
    pub event_type: bool,
    /// True when `config_map` was set.
    pub config_map: bool,
}

/// The outcome of one collect callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collected {
    /// What the callback returned.
    pub ret: i32,
    /// The length it set.
    pub len: usize,
    /// What the cleanup callback returned, when it was called.
    pub cleanup: Option<i32>,
}

/// One loading of the plugin. A hot reload makes a second one while the first still runs.
pub struct Proxy {
    library: Library,
    from_4_1: bool,
    def: *mut c_void,
    api: *mut c_void,
    plugin: *mut c_void,
    /// The definition as the plugin filled it.
    pub definition: Definition,
}

// SAFETY: the pointers are to heap memory that lives as long as the process (see `unload`). The host
// itself shares them between its threads without a lock, and so must this copy of it.
unsafe impl Send for Proxy {}
// SAFETY: as above.
unsafe impl Sync for Proxy {}

/// The `flb_plugin_proxy_context` of one instance.
#[derive(Clone, Copy)]
pub struct Context(*mut c_void);

// SAFETY: the memory is never freed and belongs to the plugin between Init and Exit.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Proxy {
    /// dlopen, `FLBPluginPreRegister`, `FLBPluginRegister`, look-up of the input's callbacks.
    pub fn load(path: &Path, abi: Abi, def_size: usize, hot: bool) -> Result<Self, String> {
        let library = Library::open(path, false).map_err(|error| {
            format!("[proxy] error opening plugin {}: '{error}'", path.display())
        })?;
        let pre_register = library.symbol(c"FLBPluginPreRegister");
        if !pre_register.is_null() {
            // SAFETY: the ABI gives this symbol the type `int (int)`.
            let ret = unsafe { embedded_host_call_int(pre_register, c_int::from(hot)) };
            if ret == -1 {
                return Err("FLBPluginPreRegister returned -1".to_owned());
            }
        }
        let register = library.symbol(c"FLBPluginRegister");
        if register.is_null() {
            return Err("the plugin exports no FLBPluginRegister".to_owned());
        }
        // SAFETY: plain allocation.
        let def = unsafe { embedded_host_def_new(def_size) };
        // SAFETY: the ABI gives this symbol the type `int (struct flb_plugin_proxy_def *)`.
        if unsafe { embedded_host_call_pointer(register, def) } == -1 {
            return Err("FLBPluginRegister returned -1".to_owned());
        }
        let definition = read_definition(def, def_size);
        if definition.kind != 1 || definition.proxy != 11 {
            return Err(format!(
                "the plugin registered type {} and proxy {}, not an input of the Go proxy",
                definition.kind, definition.proxy
            ));
        }
        Self::link(library, abi, def, definition)
    }

    fn link(
        library: Library,
        abi: Abi,
        def: *mut c_void,
        definition: Definition,
    ) -> Result<Self, String> {
        let symbols = [
            library.symbol(c"FLBPluginInit"),
            library.symbol(c"FLBPluginInputCallback"),
            library.symbol(c"FLBPluginInputCallbackCtx"),
            library.symbol(c"FLBPluginInputCleanupCallback"),
            library.symbol(c"FLBPluginInputCleanupCallbackCtx"),
            library.symbol(c"FLBPluginExit"),
        ];
        let from_4_1 = abi != Abi::Before41;
        let collects = !symbols[1].is_null() || (from_4_1 && !symbols[2].is_null());
        if symbols[0].is_null() || !collects {
            return Err("[go proxy]: could not load FLBPluginInit or the collect symbol".to_owned());
        }
        let name = CString::new(definition.name.as_str()).map_err(|error| error.to_string())?;
        // SAFETY: `symbols` has the six entries the function copies; `name` is copied.
        let plugin = unsafe {
            embedded_host_plugin_new(c_int::from(from_4_1), name.as_ptr(), symbols.as_ptr())
        };
        // SAFETY: plain allocation. The last hosts before 4.1 already had the long form.
        let api = unsafe { embedded_host_api_new(c_int::from(from_4_1)) };
        Ok(Self { library, from_4_1, def, api, plugin, definition })
    }

    /// The context of a new instance, all zero but for the back pointer.
    pub fn new_context(&self) -> Context {
        // SAFETY: plain allocation; the back pointer is opaque to the plugin.
        Context(unsafe { embedded_host_context_new(c_int::from(self.from_4_1), self.def) })
    }

    /// `FLBPluginInit`, after overwriting the shared struct for this instance.
    pub fn init(&self, ins: usize, context: Context) -> i32 {
        // SAFETY: all four pointers are live; the struct is this proxy's own.
        unsafe {
            embedded_host_init(
                self.plugin,
                self.api,
                ptr::with_exposed_provenance_mut(ins),
                context.0,
            )
        }
    }

    /// Collect, `append` of what came, cleanup: in the host's order and with its conditions.
    pub fn collect(&self, context: Context, append: impl FnOnce(&[u8])) -> Collected {
        let form = c_int::from(self.from_4_1);
        let mut data: *mut c_void = ptr::null_mut();
        let mut len = 0;
        // SAFETY: the context is this instance's, the out-pointers are valid for the call.
        let ret = unsafe {
            embedded_host_collect(form, self.plugin, context.0, &raw mut data, &raw mut len)
        };
        if len == 0 || ret == -1 || data.is_null() {
            return Collected { ret, len, cleanup: None };
        }
        // SAFETY: the plugin hands over `len` readable bytes that stay until the cleanup below.
        append(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) });
        // SAFETY: `data` is what this collect returned, handed back once.
        let cleanup = unsafe { embedded_host_cleanup(form, self.plugin, context.0, data) };
        Collected { ret, len, cleanup: Some(cleanup) }
    }

    /// `FLBPluginInputPreRun`; false when the plugin has none.
    pub fn pre_run(&self, hot_reload: bool) -> bool {
        self.call_int(c"FLBPluginInputPreRun", hot_reload)
    }

    /// `FLBPluginInputPreExit`; false when the plugin has none.
    pub fn pre_exit(&self, by_reload: bool) -> bool {
        self.call_int(c"FLBPluginInputPreExit", by_reload)
    }

    /// `FLBPluginInputPause`; false when the plugin has none.
    pub fn pause(&self) -> bool {
        self.call_void(c"FLBPluginInputPause")
    }

    /// `FLBPluginInputResume`; false when the plugin has none.
    pub fn resume(&self) -> bool {
        self.call_void(c"FLBPluginInputResume")
    }

    /// `FLBPluginExit`.
    pub fn exit(&self) -> i32 {
        // SAFETY: the struct is this proxy's own.
        unsafe { embedded_host_exit(c_int::from(self.from_4_1), self.plugin) }
    }

    /// `FLBPluginUnregister` and dlclose; false when the plugin has no such symbol.
    ///
    /// The real host frees the structs as well. Here they stay, so that a plugin thread that still
    /// uses them is seen and counted instead of crashing the judge.
    pub fn unload(&self) -> bool {
        let symbol = self.library.symbol(c"FLBPluginUnregister");
        if !symbol.is_null() {
            // SAFETY: the ABI gives this symbol one pointer to the definition.
            unsafe { embedded_host_call_pointer(symbol, self.def) };
        }
        self.library.close();
        !symbol.is_null()
    }

    fn call_int(&self, name: &CStr, argument: bool) -> bool {
        let symbol = self.library.symbol(name);
        if !symbol.is_null() {
            // SAFETY: the ABI gives these symbols one int argument.
            unsafe { embedded_host_call_int(symbol, c_int::from(argument)) };
        }
        !symbol.is_null()
    }

    fn call_void(&self, name: &CStr) -> bool {
        let symbol = self.library.symbol(name);
        if !symbol.is_null() {
            // SAFETY: the ABI gives these symbols no argument.
            unsafe { embedded_host_call_void(symbol) };
        }
        !symbol.is_null()
    }
}

fn read_definition(def: *mut c_void, size: usize) -> Definition {
    let mut numbers = [0; 3];
    let mut texts = [ptr::null(); 2];
    // SAFETY: the definition is live, the arrays have the lengths the function writes.
    unsafe { embedded_host_def_read(def, numbers.as_mut_ptr(), texts.as_mut_ptr()) };
    // SAFETY: the definition was allocated with this size.
    let found = unsafe { embedded_host_def_check(def, size) };
    let text = |pointer: *const c_char| {
        if pointer.is_null() {
            return String::new();
        }
        // SAFETY: the plugin must store terminated strings that live as long as it is loaded.
        unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
    };
    Definition {
        name: text(texts[0]),
        description: text(texts[1]),
        kind: numbers[0],
        proxy: numbers[1],
        flags: numbers[2],
        overrun: found & 1 != 0,
        event_type: found & 2 != 0,
        config_map: found & 4 != 0,
    }
}
