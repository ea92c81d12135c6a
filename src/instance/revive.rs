//! An instance of which a thread has died: it ends, and begins anew as after a reload.
//!
//! A connector's thread starts its poller again by itself. Without the committer, or without whoever
//! keeps the leases, nobody knows any more what is saved; so everything begins anew from the store.

use std::thread::JoinHandle;
use std::time::Duration;

use super::{Host, Instance};
use crate::clock::monotonic;
use crate::error::Result;

/// From the end to the new beginning, and from one vain attempt to the next.
const RESTART_INTERVAL: Duration = Duration::from_secs(10);

impl Instance {
    /// Ends this instance if one of its threads has died, and puts the one that `again` starts in its
    /// place a little later.
    pub fn revive<H: Host>(&mut self, host: &mut H, again: impl FnOnce(&H) -> Result<Self>) {
        if self.failed_at.is_none() && self.has_failed() {
            self.logger.error(
                "a thread failed inside and everything begins anew; nothing is lost, but what was \
                 not saved comes twice; please report it",
            );
            self.stop(host);
            self.failed_at = Some(monotonic());
        }
        if self.failed_at.is_none_or(|at| at.elapsed() < RESTART_INTERVAL) {
            return;
        }
        match again(host) {
            Ok(instance) => *self = instance,
            Err(error) => {
                self.logger.error(format!("{error}; tried again in a while"));
                self.failed_at = Some(monotonic());
            }
        }
    }

    fn has_failed(&self) -> bool {
        let mut threads = [&self.committer_thread, &self.keep_thread].into_iter().flatten();
        !self.stop.is_raised() && threads.any(JoinHandle::is_finished)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::super::{Parts, spawn};
    use super::*;
    use crate::clock::Stop;
    use crate::error::Error;
    use crate::handover::{Counters, Rule};
    use crate::lease::Warrant;
    use crate::log::{Level, Line, Log, Logger};
    use crate::metrics::Sample;
    use crate::queue::Queue;

    /// A host that takes nothing and keeps what is said.
    #[derive(Default)]
    struct Silent(Vec<String>);

    impl Host for Silent {
        fn counters(&mut self) -> Option<Counters> {
            None
        }

        fn append(&mut self, _: Option<&str>, _: &[u8]) -> bool {
            false
        }

        fn measure(&mut self, _: &[Sample], _: u64) {}

        fn print(&mut self, line: &Line) {
            self.0.push(line.text.clone());
        }

        fn is_paused(&self) -> bool {
            false
        }
    }

    fn instance() -> Instance {
        let log = Log::new(Level::Info);
        Instance::new(Parts {
            logger: Logger::new(Arc::clone(&log), ""),
            log,
            queue: Arc::new(Queue::new(1)),
            rule: Rule::Counter,
            is_append: true,
            keeps_at_stop: true,
            committer: mpsc::channel().0,
            warrant: Warrant::unlimited(),
            stop: Stop::default(),
            streams: Vec::new(),
        })
    }

    fn wait_for(thread: &Option<JoinHandle<()>>) {
        while thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_instance_whose_committer_died_begins_anew() {
        let (mut instance, mut host) = (instance(), Silent::default());
        let unasked = |_: &Silent| -> Result<Instance> { panic!("nothing has failed") };
        instance.revive(&mut host, unasked);
        instance.committer_thread = Some(spawn("tm-commit", || panic!("on purpose")).unwrap());
        wait_for(&instance.committer_thread);
        instance.revive(&mut host, unasked);
        assert!(instance.stop.is_raised(), "what is left of it ends");
        assert!(host.0[0].contains("everything begins anew"), "{:?}", host.0);
        assert!(instance.tick(&mut host).is_none());

        let long_ago = || Some(monotonic() - RESTART_INTERVAL);
        instance.failed_at = long_ago();
        instance.revive(&mut host, |_| Err(Error::config("the disk is gone")));
        instance.revive(&mut host, unasked);
        instance.failed_at = long_ago();
        instance.revive(&mut host, |_| Ok(self::instance()));
        assert!(instance.failed_at.is_none() && !instance.stop.is_raised());
    }
}
