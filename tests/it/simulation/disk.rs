//! The state's disk: what is committed survives a kill, nothing else does.

use std::collections::BTreeMap;
use std::fs;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};

use in_trendmicro::checkpoint::{Change, Saved, Sqlite, Store};
use in_trendmicro::clock::Time;
use in_trendmicro::error::{Error, ErrorKind, Result};
use in_trendmicro::lease::Tenure;
use in_trendmicro::record::Id;
use in_trendmicro::window::Window;
use tempfile::TempDir;

use crate::rig::Kept;

/// Where the state lies.
enum Backend {
    /// A model that saves all changes or none.
    Model(BTreeMap<String, Kept>),
    /// The real file.
    Sqlite { store: Box<Sqlite>, dir: TempDir },
}

/// A disk that outlives the processes which use it.
pub struct Disk {
    backend: Backend,
    /// What was saved since this was last looked at.
    applied: Vec<Change>,
    /// The process dies in the next commit, before or after that is durable.
    pub dies: Option<bool>,
    /// The process has died in a commit.
    pub has_died: bool,
    /// The next commit says that it waits for a disk that does not answer, and hears when it does.
    pub waits: Option<(Sender<()>, Receiver<()>)>,
    pub commits: u64,
}

impl Disk {
    pub fn new(is_sqlite: bool) -> Self {
        let backend =
            if is_sqlite { open(TempDir::new().unwrap()) } else { Backend::Model(BTreeMap::new()) };
        Self { backend, applied: Vec::new(), dies: None, has_died: false, waits: None, commits: 0 }
    }

    /// A new process opens what the last one has left. Of a file that is what lay on the disk when
    /// that process was killed: it closed nothing.
    pub fn reopen(&mut self) {
        (self.dies, self.has_died, self.waits) = (None, false, None);
        let Backend::Sqlite { dir, .. } = &self.backend else { return };
        let copy = TempDir::new().unwrap();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if !path.to_string_lossy().ends_with("-shm") {
                fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        self.backend = open(copy);
    }

    pub fn take_applied(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.applied)
    }

    fn apply(&mut self, changes: &[Change]) -> Result<()> {
        match &mut self.backend {
            Backend::Model(all) => {
                for change in changes {
                    all.entry(change.stream.clone()).or_default().save(change);
                }
            }
            Backend::Sqlite { store, .. } => drop(store.commit(changes)?),
        }
        self.commits += 1;
        self.applied.extend_from_slice(changes);
        Ok(())
    }
}

fn open(dir: TempDir) -> Backend {
    // A kill loses nothing of what the system was given, so there is no need to wait for the disk.
    let store = Sqlite::open(&dir.path().join("state.db"), "OFF").unwrap();
    Backend::Sqlite { store: Box::new(store), dir }
}

/// The disk as a process sees it.
#[derive(Clone)]
pub struct Handle(pub Arc<Mutex<Disk>>);

impl Store for Handle {
    fn load(&mut self, stream: &str) -> Result<Saved> {
        match &mut self.0.lock().unwrap().backend {
            Backend::Sqlite { store, .. } => store.load(stream),
            Backend::Model(all) => Ok(all.entry(stream.to_owned()).or_default().saved()),
        }
    }

    fn recall(
        &mut self,
        stream: &str,
        span: Window,
        count_max: usize,
    ) -> Result<Option<Vec<(Time, Id)>>> {
        match &mut self.0.lock().unwrap().backend {
            Backend::Sqlite { store, .. } => store.recall(stream, span, count_max),
            Backend::Model(all) => {
                Ok(all.entry(stream.to_owned()).or_default().recall(span, count_max))
            }
        }
    }

    fn renew(&mut self, _: &[Change]) -> Result<String> {
        unreachable!("this disk fails, but it damages nothing")
    }

    fn commit(&mut self, changes: &[Change]) -> Result<Vec<Tenure>> {
        let waits = self.0.lock().unwrap().waits.take();
        if let Some((parked, answers)) = waits {
            parked.send(()).unwrap();
            // Whoever does not answer has been killed meanwhile.
            self.0.lock().unwrap().has_died = answers.recv().is_err();
            return Err(Error::new(ErrorKind::Store, "the disk is full"));
        }
        let mut disk = self.0.lock().unwrap();
        let dead = || Err(Error::new(ErrorKind::Store, "the process is dead"));
        if disk.has_died || disk.dies == Some(false) {
            disk.has_died = true;
            return dead();
        }
        disk.apply(changes)?;
        disk.has_died = disk.dies.is_some();
        if disk.has_died { dead() } else { Ok(Vec::new()) }
    }
}
