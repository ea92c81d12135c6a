//! What comes again after a kill, and whether it may: nothing that the state file held.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

/// What the embedded host's journal and the plugin's state file say after each run.
pub struct Watch {
    journal: PathBuf,
    state: PathBuf,
    /// Bytes of the journal that were looked at.
    seen_bytes: u64,
    /// Ids that reached the journal.
    arrived: HashSet<String>,
    /// Ids that the state file has held.
    committed: HashSet<String>,
    /// Copies of what was in the journal already.
    pub duplicates: usize,
    /// The most of them in one run.
    pub duplicates_most: usize,
}

impl Watch {
    /// Looks at a journal and a state file, neither of which need be there yet.
    pub fn new(journal: PathBuf, state: PathBuf) -> Self {
        Self {
            journal,
            state,
            seen_bytes: 0,
            arrived: HashSet::new(),
            committed: HashSet::new(),
            duplicates: 0,
            duplicates_most: 0,
        }
    }

    /// Looks at one run that has ended: what it handed over again must not have been committed
    /// before it began.
    pub fn look(&mut self) {
        let news = self.read_journal();
        let mut of_run = HashSet::new();
        let mut duplicates = 0;
        for line in news.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let row: Value = serde_json::from_slice(line).expect("a whole line of the journal");
            let id = row["record"]["event_id"].as_str().expect("an event id").to_owned();
            assert!(of_run.insert(id.clone()), "{id} was handed over twice in one run");
            assert!(!self.committed.contains(&id), "{id} was committed and came again");
            duplicates += usize::from(!self.arrived.insert(id));
        }
        self.duplicates += duplicates;
        self.duplicates_most = self.duplicates_most.max(duplicates);
        self.committed.extend(committed_ids(&self.state));
        let ahead = self.committed.difference(&self.arrived).next();
        assert_eq!(ahead, None, "committed before the host had it");
    }

    /// The whole lines that were added. One that a kill has cut is dropped by the next run.
    fn read_journal(&mut self) -> Vec<u8> {
        let mut news = Vec::new();
        let Ok(mut journal) = File::open(&self.journal) else { return news };
        let read = journal
            .seek(SeekFrom::Start(self.seen_bytes))
            .and_then(|_| journal.read_to_end(&mut news));
        read.expect("the journal is readable");
        news.truncate(news.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        self.seen_bytes += news.len() as u64;
        news
    }
}

/// The ids in the plugin's ledger, read from a copy: the plugin itself must find what a kill left.
fn committed_ids(state: &Path) -> Vec<String> {
    let dir = TempDir::new().expect("a temporary directory");
    let copy = dir.path().join("state.db");
    if fs::copy(state, &copy).is_err() {
        return Vec::new();
    }
    let _ = fs::copy(state.with_extension("db-wal"), copy.with_extension("db-wal"));
    let connection = Connection::open(&copy).expect("the state file opens");
    let Ok(mut statement) = connection.prepare("SELECT ids FROM in_trendmicro_ledger") else {
        return Vec::new();
    };
    let blobs = statement.query_map([], |row| row.get(0)).expect("the ledger is readable");
    let blobs: Vec<Vec<u8>> = blobs.map(|blob| blob.expect("a row of ids")).collect();
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect();
    blobs.iter().flat_map(|blob| blob.chunks_exact(16)).map(hex).collect()
}
