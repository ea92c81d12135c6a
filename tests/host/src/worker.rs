//! The callbacks of one instance, in the host's order, and the thread they run on.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::ffi::process::name_thread;
use crate::ffi::{self, Role};
use crate::instance::{Instance, add, raise};
use crate::mailbox::{Event, Message};
use crate::report::Counts;

/// A threaded input from Init to Exit. `ready` is told whether Init succeeded.
pub fn run(instance: &Arc<Instance>, ready: &Sender<bool>) {
    // The pool of an input has one worker, number 0.
    name_thread(&format!("flb-in-{}-w0", instance.settings.name));
    ffi::enter(Some(Role { shared: Arc::clone(&instance.shared), collecting: None }));
    let ok = init(instance);
    let _ = ready.send(ok);
    if !ok {
        return;
    }
    loop {
        match instance.mailbox.wait() {
            Event::Tick => collect(instance),
            Event::Message(Message::Start) => {
                instance.mailbox.start_collector();
                pre_run(instance);
            }
            Event::Message(Message::Pause) => pause_callback(instance),
            Event::Message(Message::Resume) => resume_callback(instance),
            Event::Message(Message::Exit) => return exit(instance),
            Event::Message(Message::Abandon) => return,
        }
    }
}

/// Init, with the shared state overwritten first as the host does.
pub fn init(instance: &Arc<Instance>) -> bool {
    let generation = &instance.generation;
    ffi::add_instance(instance);
    *generation.last_initialised.lock().unwrap_or_else(PoisonError::into_inner) =
        Arc::downgrade(instance);
    instance.shared.call("init", &instance.settings.name);
    add(&instance.counters.init_calls, 1);
    let begun = Instant::now();
    let ret = generation.proxy.init(instance.handle(), instance.context);
    raise(&instance.counters.init_ms, millis(begun));
    instance.is_initialised.store(true, Ordering::SeqCst);
    if ret > 0 {
        return true;
    }
    let name = &generation.proxy.definition.name;
    let log = &instance.shared.log;
    log.error(&format!("[go proxy]: plugin '{name}' failed to initialize"));
    log.error("Could not initialize proxy for threaded input plugin");
    log.error(&format!("failed initialize input {}", instance.label()));
    false
}

/// PreRun, for plugins that have it.
pub fn pre_run(instance: &Instance) {
    let hot = instance.generation.hot_reload;
    instance.shared.call(format!("pre_run({})", i32::from(hot)), &instance.settings.name);
    if instance.generation.proxy.pre_run(hot) {
        add(&instance.counters.pre_run_calls, 1);
    }
}

/// One expiry of the collector.
pub fn collect(instance: &Instance) {
    add(&instance.counters.collect_calls, 1);
    let before = instance.counters.read();
    let paused = instance.gauge_paused.load(Ordering::SeqCst);
    let begun = Instant::now();
    let done = with_collecting(instance, Some(instance.handle()), || {
        let append = |data: &[u8]| instance.append_collected(data);
        instance.generation.proxy.collect(instance.context, append)
    });
    let elapsed = millis(begun);
    let after = instance.counters.read();
    let appending = after.append_micros.saturating_sub(before.append_micros) / 1000;
    raise(&instance.counters.collect_longest_ms, elapsed);
    raise(&instance.counters.collect_own_longest_ms, elapsed.saturating_sub(appending));
    let appends = |counts: &Counts| counts.handed_over_appends + counts.refused_appends;
    if paused && appends(&after) > appends(&before) {
        // The host stops the wrong collector, so a plugin must honour a pause by itself.
        instance.shared.violation("handed_over_while_paused", &instance.settings.name);
    }
    if done.cleanup.is_some() {
        add(&instance.counters.cleanup_calls, 1);
    }
    let name = &instance.settings.name;
    if done.ret == -1 {
        instance.shared.violation("collect_returned_error", name);
        instance.shared.log.error("[plugin_proxy] errno=0: Success");
    } else if done.len > 0 && done.cleanup.is_none() {
        instance.shared.violation("collect_returned_null", name);
    }
}

/// Asks the instance to pause, unless the engine holds it paused already.
pub fn pause(instance: &Instance) {
    if instance.is_limit_paused() {
        return;
    }
    if instance.settings.threaded {
        instance.mailbox.push(Message::Pause);
    } else {
        instance.shared.log.info(&format!("[input] pausing {}", instance.label()));
        pause_callback(instance);
    }
}

/// Asks the instance to resume.
pub fn resume(instance: &Instance) {
    if instance.settings.threaded {
        instance.mailbox.push(Message::Resume);
    } else {
        instance.shared.log.info(&format!("[input] resume {}", instance.label()));
        resume_callback(instance);
    }
}

/// Without a thread of its own an instance can be paused in the middle of its collect: the append
/// that crosses the memory limit calls Pause before it returns.
pub fn pause_callback(instance: &Instance) {
    instance.shared.call("pause", &instance.settings.name);
    let called = with_collecting(instance, None, || instance.generation.proxy.pause());
    if called {
        add(&instance.counters.pause_calls, 1);
    }
    if let Some(last) = last_initialised(instance) {
        last.mailbox.stop_collector();
    }
    instance.gauge_paused.store(true, Ordering::SeqCst);
}

/// The counterpart, with the same wrong instance.
pub fn resume_callback(instance: &Instance) {
    instance.shared.call("resume", &instance.settings.name);
    let called = with_collecting(instance, None, || instance.generation.proxy.resume());
    if called {
        add(&instance.counters.resume_calls, 1);
    }
    if let Some(last) = last_initialised(instance) {
        let active = instance.generation.ingestion_active.load(Ordering::SeqCst);
        if last.mailbox.is_collecting() {
            instance.shared.log.error(&format!(
                "[input] cannot resume collector {}:0, already running",
                last.settings.name
            ));
        } else if active {
            last.mailbox.start_collector();
        }
    }
    instance.gauge_paused.store(false, Ordering::SeqCst);
}

fn last_initialised(instance: &Instance) -> Option<Arc<Instance>> {
    let last = &instance.generation.last_initialised;
    last.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
}

/// PreExit and Exit.
pub fn exit(instance: &Instance) {
    let by_reload = instance.generation.stopped_by_reload.load(Ordering::SeqCst);
    instance.shared.call(format!("pre_exit({})", i32::from(by_reload)), &instance.settings.name);
    if instance.generation.proxy.pre_exit(by_reload) {
        add(&instance.counters.pre_exit_calls, 1);
    }
    instance.shared.call("exit", &instance.settings.name);
    add(&instance.counters.exit_calls, 1);
    let begun = Instant::now();
    instance.generation.proxy.exit();
    raise(&instance.counters.exit_ms, millis(begun));
    ffi::remove_instance(instance);
}

/// Runs `call` while this thread counts as collecting for that instance, or as not collecting.
fn with_collecting<T>(
    instance: &Instance,
    collecting: Option<usize>,
    call: impl FnOnce() -> T,
) -> T {
    let before = ffi::enter(Some(Role { shared: Arc::clone(&instance.shared), collecting }));
    let result = call();
    ffi::enter(before);
    result
}

fn millis(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}
