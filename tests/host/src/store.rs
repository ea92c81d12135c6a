//! Chunks: where records count, where they survive, and how they leave.
//!
//! An input with filesystem storage writes each buffer's records to its journal before they count, so
//! a killed host loses nothing that was counted. `host.pos` beside the journals says how far they are
//! delivered and how long each output file was then; a host that starts again cuts the files back to
//! that length and delivers the rest, so each journalled record is in the output once.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use crate::config::{Config, OutputSettings, Target};
use crate::instance::{Instance, add};
use crate::record;
use crate::shared::Shared;
use crate::worker;

/// A chunk that has grown beyond this takes no more.
const CHUNK_MAX: usize = 2_048_000;

/// Records of one input and tag that will be delivered together.
struct Chunk {
    input: usize,
    tag: String,
    /// Bytes as handed over: what memory limits are about.
    bytes: usize,
    lines: String,
    records: u64,
    /// After a malformed record nothing in the chunk can be decoded any more.
    poisoned: bool,
}

struct Journal {
    name: String,
    file: File,
}

#[derive(Default)]
struct Inner {
    open: Vec<Chunk>,
    closed: VecDeque<Chunk>,
    journals: Vec<Option<Journal>>,
}

/// The storage layer and the outputs of one configuration.
pub struct Store {
    inner: Mutex<Inner>,
    outputs: Vec<OutputSettings>,
    position: Option<PathBuf>,
    shared: Arc<Shared>,
}

impl Store {
    /// Opens the journals and takes up what an earlier run did not deliver.
    pub fn open(config: &Config, shared: &Arc<Shared>) -> io::Result<Self> {
        let mut store = Self {
            inner: Mutex::default(),
            outputs: config.outputs.clone(),
            position: None,
            shared: Arc::clone(shared),
        };
        let Some(path) = &config.service.storage_path else {
            store.lock().journals = config.inputs.iter().map(|_| None).collect();
            return Ok(store);
        };
        fs::create_dir_all(path)?;
        let position = path.join("host.pos");
        let before = read_position(&position);
        store.cut_outputs(&before)?;
        let mut inner = Inner::default();
        for (index, input) in config.inputs.iter().enumerate() {
            let name = input.alias.as_ref().unwrap_or(&input.name);
            let journal = if input.filesystem {
                let file = path.join(format!("{name}.journal"));
                let delivered = before["journals"][name].as_u64().unwrap_or(0);
                Some(open_journal(&file, name, index, delivered, &mut inner.closed)?)
            } else {
                None
            };
            inner.journals.push(journal);
        }
        store.inner = Mutex::new(inner);
        store.position = Some(position);
        Ok(store)
    }

    /// Cuts what a killed host wrote after it last noted its position.
    fn cut_outputs(&self, before: &Value) -> io::Result<()> {
        let lengths = before["outputs"].as_object().into_iter().flatten();
        for (path, length) in lengths {
            let Ok(file) = OpenOptions::new().write(true).open(path) else { continue };
            let length = length.as_u64().unwrap_or(u64::MAX);
            if file.metadata()?.len() > length {
                file.set_len(length)?;
            }
        }
        Ok(())
    }

    /// Puts a buffer into a chunk: here, and only here, records count. False is the host's -1.
    pub fn append(
        &self,
        instance: &Instance,
        tag: Option<&str>,
        data: &[u8],
        records: u64,
    ) -> bool {
        if instance.is_limit_paused() {
            return false;
        }
        let tag = tag.unwrap_or(&instance.settings.tag);
        let mut inner = self.lock();
        let at = open_chunk(&mut inner, instance.index, tag);
        let decoded = record::decode(data, self.shared.options.abi);
        let mut lines = String::new();
        let poisoned = inner.open[at].poisoned;
        if !poisoned {
            decoded.records.iter().for_each(|record| lines.push_str(&record::line(tag, record)));
        }
        if let Some(Some(journal)) = inner.journals.get_mut(instance.index)
            && let Err(error) = journal.file.write_all(lines.as_bytes())
        {
            self.shared.log.error(&format!("[storage] cannot write {}: {error}", journal.name));
            return false;
        }
        let kept = if poisoned { 0 } else { decoded.records.len() as u64 };
        add(&instance.counters.records_total, records);
        add(&instance.counters.bytes_total, data.len() as u64);
        add(&instance.counters.poisoned_records, records.saturating_sub(kept));
        add(&instance.counters.pending_bytes, data.len() as u64);
        let chunk = &mut inner.open[at];
        chunk.poisoned |= decoded.malformed.is_some();
        chunk.bytes += data.len();
        chunk.records += kept;
        chunk.lines.push_str(&lines);
        drop(inner);
        self.protect(instance, data.len());
        true
    }

    /// Pauses an input whose memory chunks have reached the limit.
    fn protect(&self, instance: &Instance, written: usize) {
        let Some(limit) = instance.settings.mem_buf_limit else { return };
        let pending = instance.counters.pending_bytes.load(Ordering::SeqCst);
        if instance.settings.filesystem || pending < limit as u64 || instance.is_limit_paused() {
            return;
        }
        self.shared.log.warn(&format!(
            "[input] {} paused (mem buf overlimit - event of size {written}B exceeded limit \
             {limit} to {pending}B)",
            instance.label()
        ));
        worker::pause(instance);
        instance.limit_paused.store(true, Ordering::SeqCst);
    }

    /// Hands every chunk to the outputs, unless they are stalled.
    pub fn flush(&self, instances: &[Arc<Instance>]) {
        let mut inner = self.lock();
        let open = std::mem::take(&mut inner.open);
        inner.closed.extend(open);
        if self.shared.is_output_stalled() || inner.closed.is_empty() {
            return;
        }
        while let Some(chunk) = inner.closed.pop_front() {
            let instance = instances.get(chunk.input);
            match self.deliver(&chunk) {
                Ok(0) => count(instance, |c| &c.unrouted_records, chunk.records),
                Ok(_) => count(instance, |c| &c.delivered_records, chunk.records),
                Err(error) => {
                    self.shared.log.error(&format!("[output] delivery failed: {error}"));
                    inner.closed.push_front(chunk);
                    break;
                }
            }
            if let Some(instance) = instance {
                instance.counters.pending_bytes.fetch_sub(chunk.bytes as u64, Ordering::SeqCst);
            }
        }
        if inner.closed.is_empty()
            && let Err(error) = self.note_position(&inner)
        {
            self.shared.log.error(&format!("[storage] cannot note the position: {error}"));
        }
        drop(inner);
        instances.iter().for_each(|instance| set_limits(instance));
    }

    /// Chunks that wait, open or handed to a stalled output.
    pub fn pending(&self) -> usize {
        let inner = self.lock();
        inner.open.len() + inner.closed.len()
    }

    /// Chunks the outputs have been given but did not take.
    pub fn running_tasks(&self) -> usize {
        self.lock().closed.len()
    }

    /// Drops what is in memory at the end.
    pub fn close(&self, instances: &[Arc<Instance>]) {
        let mut inner = self.lock();
        let open = std::mem::take(&mut inner.open);
        for chunk in open.iter().chain(&inner.closed) {
            let filesystem = inner.journals.get(chunk.input).is_some_and(Option::is_some);
            if !filesystem {
                let instance = instances.get(chunk.input);
                count(instance, |c| &c.dropped_at_exit_records, chunk.records);
            }
        }
        inner.closed.clear();
    }

    /// Writes a chunk to every output that wants its tag and returns how many do.
    fn deliver(&self, chunk: &Chunk) -> io::Result<usize> {
        let mut taken = 0;
        for output in &self.outputs {
            let wanted = output.pattern.as_deref().is_some_and(|p| matches_tag(p, &chunk.tag));
            if !wanted {
                continue;
            }
            taken += 1;
            match &output.target {
                Target::Null => {}
                Target::Stdout if !self.shared.options.stdout_output => {}
                Target::Stdout => {
                    let text: String =
                        chunk.lines.lines().filter_map(record::stdout_line).collect();
                    io::stdout().lock().write_all(text.as_bytes())?;
                }
                Target::File(dir, file) => {
                    let path = dir.join(file.as_deref().unwrap_or(&chunk.tag));
                    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
                    file.write_all(chunk.lines.as_bytes())?;
                }
            }
        }
        Ok(taken)
    }

    /// Everything in the journals is delivered; notes that, and how long the files are.
    fn note_position(&self, inner: &Inner) -> io::Result<()> {
        let Some(position) = &self.position else { return Ok(()) };
        let mut journals = read_position(position)["journals"].take();
        if !journals.is_object() {
            journals = Value::Object(Map::new());
        }
        for journal in inner.journals.iter().flatten() {
            journals[&journal.name] = json!(journal.file.metadata()?.len());
        }
        let mut outputs = Map::new();
        for output in &self.outputs {
            // A file named after the tag can have any name, so only named files are cut back.
            if let Target::File(dir, Some(name)) = &output.target
                && let Ok(path) = fs::canonicalize(dir.join(name))
            {
                outputs.insert(path.display().to_string(), json!(fs::metadata(&path)?.len()));
            }
        }
        let temporary = position.with_extension("tmp");
        let text = json!({ "journals": journals, "outputs": outputs }).to_string();
        fs::write(&temporary, text)?;
        fs::rename(&temporary, position)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resumes an input whose memory is free again.
fn set_limits(instance: &Instance) {
    let Some(limit) = instance.settings.mem_buf_limit else { return };
    let pending = instance.counters.pending_bytes.load(Ordering::SeqCst);
    let active = instance.generation.ingestion_active.load(Ordering::SeqCst);
    let held = instance.pause_forced.load(Ordering::SeqCst);
    if pending >= limit as u64 || !active || held || !instance.is_limit_paused() {
        return;
    }
    instance.limit_paused.store(false, Ordering::SeqCst);
    worker::resume(instance);
    instance.shared.log.info(&format!(
        "[input] {} resume (mem buf overlimit - buf size {pending}B now below limit {limit}B)",
        instance.label()
    ));
}

type Pick = fn(&crate::report::Counters) -> &std::sync::atomic::AtomicU64;

fn count(instance: Option<&Arc<Instance>>, pick: Pick, records: u64) {
    if let Some(instance) = instance {
        add(pick(&instance.counters), records);
    }
}

fn open_chunk(inner: &mut Inner, input: usize, tag: &str) -> usize {
    let found = inner.open.iter().position(|chunk| chunk.input == input && chunk.tag == tag);
    if let Some(at) = found {
        if inner.open[at].bytes <= CHUNK_MAX {
            return at;
        }
        let full = inner.open.remove(at);
        inner.closed.push_back(full);
    }
    inner.open.push(Chunk {
        input,
        tag: tag.to_owned(),
        bytes: 0,
        lines: String::new(),
        records: 0,
        poisoned: false,
    });
    inner.open.len() - 1
}

/// Opens a journal and queues what is behind its delivered part. A line without its end belongs to a
/// write that was killed; its records never counted.
fn open_journal(
    path: &Path,
    name: &str,
    input: usize,
    delivered: u64,
    backlog: &mut VecDeque<Chunk>,
) -> io::Result<Journal> {
    let bytes = fs::read(path).unwrap_or_default();
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    if whole < bytes.len() {
        file.set_len(whole as u64)?;
    }
    let start = usize::try_from(delivered).unwrap_or(usize::MAX).min(whole);
    let text = String::from_utf8_lossy(&bytes[start..whole]);
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).unwrap_or_default();
        let tag = row["tag"].as_str().unwrap_or(name);
        if backlog.back().is_none_or(|chunk| chunk.input != input || chunk.tag != tag) {
            backlog.push_back(Chunk {
                input,
                tag: tag.to_owned(),
                bytes: 0,
                lines: String::new(),
                records: 0,
                poisoned: true,
            });
        }
        if let Some(chunk) = backlog.back_mut() {
            chunk.lines.push_str(line);
            chunk.lines.push('\n');
            chunk.records += 1;
        }
    }
    Ok(Journal { name: name.to_owned(), file })
}

fn read_position(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_else(|_| json!({}))
}

/// The host's routing pattern: `*` stands for any text.
fn matches_tag(pattern: &str, tag: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == tag };
    let Some(rest) = tag.strip_prefix(before) else { return false };
    (0..=rest.len())
        .filter(|at| rest.is_char_boundary(*at))
        .any(|at| matches_tag(after, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::matches_tag;

    #[test]
    fn patterns() {
        for (pattern, tag, expected) in [
            ("*", "a.b", true),
            ("a.*", "a.b", true),
            ("*.b", "a.b", true),
            ("a*c", "abd", false),
            ("a", "a.b", false),
        ] {
            assert_eq!(matches_tag(pattern, tag), expected, "{pattern} {tag}");
        }
    }
}
