//! The host as a library: load, start, reload, look, stop.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::config::{self, Config, ConfigError};
use crate::ffi::{self, Definition, Proxy, Role, process};
use crate::instance::{Generation, Instance};
use crate::options::Options;
use crate::pipeline::{Command, Pipeline};
use crate::report::{InputStatus, Report, Status};
use crate::shared::Shared;
use crate::store::Store;

/// A joined thread is still listed for a moment.
const THREADS_SETTLE: Duration = Duration::from_millis(100);

/// Why a host did not start, or did not reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostError {
    /// The plugin or the exports cannot be loaded.
    Load(String),
    /// The configuration is refused.
    Config(ConfigError),
    /// Storage or log cannot be opened.
    Io(String),
    /// An Init returned 0 or less. A real host exits with 255 here, at a reload as well.
    Init,
    /// The configuration has no `hot_reload on`.
    ReloadNotEnabled,
    /// The new configuration is refused; the old one goes on.
    ReloadHalted(String),
    /// The host has no running configuration any more.
    Stopped,
}

impl fmt::Display for HostError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(text) | Self::Io(text) | Self::ReloadHalted(text) => out.write_str(text),
            Self::Config(error) => error.fmt(out),
            Self::Init => out.write_str("an input failed to initialize"),
            Self::ReloadNotEnabled => out.write_str("[reload] hot reloading is not enabled"),
            Self::Stopped => out.write_str("the host is stopped"),
        }
    }
}

impl std::error::Error for HostError {}

/// A host that has loaded and registered its plugin and has no thread yet: what exists before `-d`
/// forks.
pub struct Loaded {
    shared: Arc<Shared>,
    proxy: Arc<Proxy>,
}

impl Loaded {
    /// dlopen, PreRegister(0), Register.
    pub fn new(options: Options) -> Result<Self, HostError> {
        ffi::install(options.exports).map_err(HostError::Load)?;
        let shared = Shared::new(options).map_err(|error| HostError::Io(error.to_string()))?;
        let shared = Arc::new(shared);
        ffi::add_live_host(&shared);
        let before = process::threads().len();
        let proxy = register(&shared, false)?;
        if process::threads().len() > before {
            shared.violation("threads_before_init", "the plugin started a thread in Register");
        }
        Ok(Self { shared, proxy })
    }

    /// Starts the inputs of `config_text`.
    pub fn start(self, config_text: &str) -> Result<Host, HostError> {
        let threads_before = process::threads().into_iter().map(|(tid, _)| tid).collect();
        let mut host = Host {
            shared: self.shared,
            definition: self.proxy.definition.clone(),
            running: None,
            ended: Vec::new(),
            reloads: 0,
            threads_before,
        };
        let config = config::parse(config_text)
            .and_then(|sections| Config::new(&sections, &self.proxy.definition.name));
        let config = config.map_err(|error| {
            host.shared.log.error(&error.to_string());
            unregister(&host.shared, &self.proxy);
            HostError::Config(error)
        })?;
        host.run(config, self.proxy)?;
        Ok(host)
    }
}

/// Stalls and frees the outputs of a host while [`Host::stop`] or [`Host::reload`] waits for them.
#[derive(Clone)]
pub struct OutputSwitch(Arc<Shared>);

impl OutputSwitch {
    /// Stalls the outputs, or lets them take chunks again at the engine's next flush.
    pub fn stall(&self, stalled: bool) {
        self.0.output_stalled.store(stalled, Ordering::SeqCst);
    }
}

/// A running host.
pub struct Host {
    shared: Arc<Shared>,
    definition: Definition,
    running: Option<Running>,
    ended: Vec<Vec<InputStatus>>,
    reloads: usize,
    threads_before: HashSet<u64>,
}

struct Running {
    config: Config,
    generation: Arc<Generation>,
    instances: Vec<Arc<Instance>>,
    commands: Sender<Command>,
    engine: JoinHandle<()>,
}

impl Host {
    /// Loads the plugin and starts the inputs of `config_text`. The calling thread is the host's main
    /// thread: what a real host does there happens here, in [`Host::reload`] and in [`Host::stop`].
    pub fn start(options: Options, config_text: &str) -> Result<Self, HostError> {
        Loaded::new(options)?.start(config_text)
    }

    /// A hot reload. After [`HostError::ReloadHalted`] and [`HostError::ReloadNotEnabled`] the old
    /// configuration runs on; after any other error nothing runs.
    pub fn reload(&mut self, config_text: &str) -> Result<(), HostError> {
        let running = self.running.as_ref().ok_or(HostError::Stopped)?;
        if !running.config.service.hot_reload {
            self.shared.log.warn("[reload] hot reloading is not enabled");
            return Err(HostError::ReloadNotEnabled);
        }
        // Both marks stay when the reload is halted, so a later stop waits without end and tells the
        // plugin it is a reload.
        if running.config.service.reload_waits {
            running.generation.grace.store(-1, Ordering::SeqCst);
        }
        running.generation.stopped_by_reload.store(true, Ordering::SeqCst);
        let sections =
            config::parse(config_text).map_err(|error| self.halted(error.to_string()))?;
        let proxy = register(&self.shared, true).map_err(|error| self.halted(error.to_string()))?;
        let config = match Config::new(&sections, &proxy.definition.name) {
            Ok(config) => config,
            Err(error) => {
                unregister(&self.shared, &proxy);
                return Err(self.halted(error.to_string()));
            }
        };
        self.shared.log.info("[reload] stop everything of the old context");
        self.end();
        self.shared.log.info("[reload] start everything");
        self.run(config, proxy)?;
        self.reloads += 1;
        Ok(())
    }

    fn halted(&self, error: String) -> HostError {
        self.shared.log.error(&error);
        self.shared.log.error("[reload] reloaded config is invalid. Reloading is halted");
        HostError::ReloadHalted(error)
    }

    /// The switch that works from another thread while this host is being stopped or reloaded.
    pub fn output_switch(&self) -> OutputSwitch {
        OutputSwitch(Arc::clone(&self.shared))
    }

    /// Stalls the outputs, or lets them take chunks again at once.
    pub fn stall_output(&self, stalled: bool) {
        self.shared.output_stalled.store(stalled, Ordering::SeqCst);
        if !stalled {
            self.order(Command::Flush);
        }
    }

    /// Pauses an input as its memory limit would, whatever its memory.
    pub fn pause(&self, input: usize) {
        self.order(Command::Pause(input));
    }

    /// Lifts such a pause.
    pub fn resume(&self, input: usize) {
        self.order(Command::Resume(input));
    }

    /// Changes the size of all rings.
    pub fn set_ring_slots(&self, slots: usize) {
        for instance in self.running.iter().flat_map(|running| &running.instances) {
            instance.set_ring_slots(slots);
        }
    }

    /// The host at this moment.
    pub fn status(&self) -> Status {
        let instances = self.running.iter().flat_map(|running| &running.instances);
        Status {
            inputs: instances.map(|instance| instance.status()).collect(),
            violations: self.shared.violations(),
            calls: self.shared.calls(),
            log: self.shared.log.lines(),
            reloads: self.reloads,
            output_stalled: self.shared.is_output_stalled(),
        }
    }

    /// A clean stop, as SIGTERM makes one.
    pub fn stop(mut self) -> Report {
        self.end();
        let threads_left = self.threads_left();
        Report {
            generations: std::mem::take(&mut self.ended),
            violations: self.shared.violations(),
            calls: self.shared.calls(),
            log: self.shared.log.lines(),
            definition: self.definition.clone(),
            threads_left,
        }
    }

    fn order(&self, command: Command) {
        if let Some(running) = &self.running {
            let _ = running.commands.send(command);
        }
    }

    fn run(&mut self, config: Config, proxy: Arc<Proxy>) -> Result<(), HostError> {
        let store = Store::open(&config, &self.shared);
        let store = Arc::new(store.map_err(|error| HostError::Io(error.to_string()))?);
        let generation = Arc::new(Generation {
            proxy: Arc::clone(&proxy),
            last_initialised: Mutex::new(Weak::new()),
            ingestion_active: AtomicBool::new(true),
            stopped_by_reload: AtomicBool::new(false),
            grace: AtomicI64::new(config.service.grace),
            hot_reload: config.service.hot_reload,
        });
        for output in config.outputs.iter().filter(|output| output.pattern.is_none()) {
            self.shared.log.warn(&format!("[output] {:?} has no match rule", output.target));
        }
        let (commands, orders) = channel();
        let inputs = config.inputs.iter().cloned().enumerate();
        let instances: Vec<_> = inputs
            .map(|(index, settings)| {
                let engine = commands.clone();
                Instance::new(index, settings, &self.shared, &generation, &store, engine)
            })
            .collect();
        let pipeline = Pipeline {
            shared: Arc::clone(&self.shared),
            generation: Arc::clone(&generation),
            instances: instances.clone(),
            store,
            commands: orders,
            flush: config.service.flush.unwrap_or(self.shared.options.flush),
        };
        let (ready, started) = channel();
        let engine = thread::Builder::new()
            .spawn(move || pipeline.run(&ready))
            .map_err(|error| HostError::Io(error.to_string()))?;
        if started.recv() != Ok(true) {
            let _ = engine.join();
            self.ended.push(instances.iter().map(|instance| instance.status()).collect());
            unregister(&self.shared, &proxy);
            return Err(HostError::Init);
        }
        self.running = Some(Running { config, generation, instances, commands, engine });
        Ok(())
    }

    fn end(&mut self) {
        let Some(running) = self.running.take() else { return };
        let _ = running.commands.send(Command::Stop);
        if running.engine.join().is_err() {
            self.shared.violation("host_thread_panicked", "flb-pipeline");
        }
        let statuses = running.instances.iter().map(|instance| instance.status()).collect();
        self.ended.push(statuses);
        unregister(&self.shared, &running.generation.proxy);
    }

    fn threads_left(&self) -> Vec<String> {
        let deadline = Instant::now() + THREADS_SETTLE;
        loop {
            let left: Vec<String> = process::threads()
                .into_iter()
                .filter(|(tid, _)| !self.threads_before.contains(tid))
                .map(|(_, name)| name)
                .collect();
            if left.is_empty() || Instant::now() >= deadline {
                return left;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end();
    }
}

fn register(shared: &Arc<Shared>, hot: bool) -> Result<Arc<Proxy>, HostError> {
    let options = &shared.options;
    let size = options.def_size.unwrap_or(options.abi.def_size());
    shared.call(format!("pre_register({})", i32::from(hot)), "");
    shared.call("register", "");
    let before = ffi::enter(Some(Role { shared: Arc::clone(shared), collecting: None }));
    let proxy = Proxy::load(&options.plugin, options.abi, size, hot);
    ffi::enter(before);
    let proxy = proxy.map_err(|error| {
        shared.log.error(&error);
        HostError::Load(error)
    })?;
    if proxy.definition.overrun {
        shared.violation("definition_overrun", "written past the end of flb_plugin_proxy_def");
    }
    if proxy.definition.flags != 0 {
        shared.violation("definition_flags", &proxy.definition.flags.to_string());
    }
    Ok(Arc::new(proxy))
}

fn unregister(shared: &Arc<Shared>, proxy: &Proxy) {
    shared.call("unregister", "");
    let before = ffi::enter(Some(Role { shared: Arc::clone(shared), collecting: None }));
    proxy.unload();
    ffi::enter(before);
}
