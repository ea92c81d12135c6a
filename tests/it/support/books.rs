//! The books: what the simulator showed against what the host's outputs hold.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;
use trendmicro_sim::{Sim, canonical};

const SOURCE: &str = "trendmicro_email_security";

/// How records were delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In the envelope, which names the content type.
    Envelope,
    /// As they are; the last part of the tag names the content type.
    Raw,
}

/// Content type and payload, hashed: a hundred thousand payloads need not stay in memory.
type Key = [u8; 32];

/// What two sides agree and disagree about.
#[derive(Debug, Default)]
pub struct Books {
    /// Records in the outputs, each copy counted.
    pub delivered: usize,
    /// Records that the simulator has and the outputs do not.
    pub missing: Vec<String>,
    /// Records that the simulator never had, or that came under the wrong content type.
    pub unexpected: Vec<String>,
    /// The event ids (payloads, where there are none) of second and further copies.
    pub duplicates: Vec<String>,
    /// Event ids that stand for two records, and records with two event ids.
    pub confused: Vec<String>,
    /// Lines of the outputs that are no record; a killed host can leave some.
    pub torn: usize,
    /// Records by tag.
    pub by_tag: HashMap<String, usize>,
}

impl Books {
    /// Compares the multisets of records of `sim` and of all files in `out`.
    pub fn of(sim: &Sim, out: &Path, form: Form) -> Self {
        let mut books = Self::default();
        let mut found: HashMap<Key, (usize, String)> = HashMap::new();
        let mut owners: HashMap<String, Key> = HashMap::new();
        let mut texts: HashMap<Key, String> = HashMap::new();
        books.torn = for_each_delivered(out, |tag, record| {
            books.delivered += 1;
            *books.by_tag.entry(tag.to_owned()).or_default() += 1;
            let (content_type, payload) = match form {
                Form::Envelope => {
                    let class = record["msg_class"].as_str().unwrap_or_default();
                    let class = class.strip_prefix(SOURCE).unwrap_or_default();
                    (class.trim_start_matches('_').to_owned(), &record[SOURCE])
                }
                Form::Raw => (tag.rsplit('.').next().unwrap_or_default().to_owned(), record),
            };
            let text = canonical(payload);
            let key = key(&content_type, &text);
            let id = match form {
                Form::Envelope => record["event_id"].as_str().unwrap_or_default().to_owned(),
                Form::Raw => text.clone(),
            };
            if *owners.entry(id.clone()).or_insert(key) != key {
                books.confused.push(format!("{id} stands for two records"));
            }
            let entry = found.entry(key).or_insert_with(|| (0, id.clone()));
            entry.0 += 1;
            if entry.1 != id {
                books.confused.push(format!("{} and {id} are one record", entry.1));
            }
            if entry.0 > 1 {
                books.duplicates.push(id);
            } else {
                texts.insert(key, format!("{content_type}: {}", cut(&text)));
            }
        });
        sim.for_each_record(|record| {
            let payload = serde_json::from_str(&record.json).expect("the simulator writes JSON");
            let text = canonical(&payload);
            if texts.remove(&key(&record.content_type, &text)).is_none() {
                let (content_type, at) = (&record.content_type, record.gen_time);
                let shown = record.shown;
                let text = cut(&text);
                books.missing.push(format!("{content_type} of {at}, shown {shown} times: {text}"));
            }
        });
        books.unexpected = texts.into_values().collect();
        books
    }

    /// Fails unless everything arrived exactly once and nothing else did.
    #[track_caller]
    pub fn assert_exact(&self, what: &str) {
        self.assert_complete(what);
        assert!(self.duplicates.is_empty(), "{what}: {}", self.describe());
    }

    /// Fails unless everything arrived and nothing else did; copies are allowed.
    #[track_caller]
    pub fn assert_complete(&self, what: &str) {
        let is_right = self.missing.is_empty()
            && self.unexpected.is_empty()
            && self.confused.is_empty()
            && self.torn == 0;
        assert!(is_right, "{what}: {}", self.describe());
        assert!(self.delivered > 0, "{what}: nothing was delivered, so nothing was tested");
    }

    /// The numbers, and the first cases of each.
    pub fn describe(&self) -> String {
        let Self { delivered, missing, unexpected, duplicates, confused, torn, .. } = self;
        let text = format!("{delivered} delivered, {torn} torn lines");
        let lists = [
            ("missing", missing),
            ("unexpected", unexpected),
            ("doubled", duplicates),
            ("confused", confused),
        ];
        describe_cases(text, &lists)
    }
}

/// Adds to `text` how many cases each of the named lists has, and the first of them.
pub fn describe_cases(mut text: String, lists: &[(&str, &Vec<String>)]) -> String {
    for (name, list) in lists {
        let _ = write!(text, "\n{} {name}", list.len());
        for case in list.iter().take(3) {
            let _ = write!(text, "\n    {case}");
        }
    }
    text
}

/// Shows tag and record of every whole line in the files of `out`; returns how many lines are none.
///
/// The embedded host writes `{"tag":…,"time":…,"record":…}`, Fluent Bit `tag: [time, record]`.
pub fn for_each_delivered(out: &Path, mut visit: impl FnMut(&str, &Value)) -> usize {
    let mut torn = 0;
    for path in files(out) {
        let file = File::open(&path).expect("an output file opens");
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            lines.read_until(b'\n', &mut line).expect("an output file is readable");
            // The last line may still be on its way.
            if line.last() != Some(&b'\n') {
                break;
            }
            if let Some((tag, record)) = read_line(&line) {
                visit(&tag, &record);
                continue;
            }
            torn += 1;
            // What a killed Fluent Bit began to write is continued by the line of its successor.
            let text = String::from_utf8_lossy(&line);
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let whole = text.rfind(&format!("{name}: [")).map(|at| &text[at..]);
            if let Some((tag, record)) = whole.and_then(|text| read_line(text.as_bytes())) {
                visit(&tag, &record);
            }
        }
    }
    torn
}

fn read_line(line: &[u8]) -> Option<(String, Value)> {
    if line.starts_with(b"{") {
        let mut row: Value = serde_json::from_slice(line).ok()?;
        return Some((row["tag"].as_str()?.to_owned(), row["record"].take()));
    }
    let text = std::str::from_utf8(line).ok()?;
    let (tag, rest) = text.split_once(": [")?;
    let (_, record) = rest.trim_end().strip_suffix(']')?.split_once(", ")?;
    let record: Value = serde_json::from_str(record).ok()?;
    record.is_object().then(|| (tag.to_owned(), record))
}

fn files(out: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(out).expect("the output directory is there");
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Counts the lines of growing files, reading only what was added.
#[derive(Debug, Default)]
pub struct LineCounter(HashMap<PathBuf, (u64, u64)>);

impl LineCounter {
    pub fn count(&mut self, out: &Path) -> u64 {
        files(out).into_iter().map(|path| self.count_file(path)).sum()
    }

    fn count_file(&mut self, path: PathBuf) -> u64 {
        let Ok(mut file) = File::open(&path) else { return 0 };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let (seen, lines) = self.0.entry(path).or_default();
        if length < *seen {
            // The embedded host cuts back what a killed one wrote without noting it.
            (*seen, *lines) = (0, 0);
        }
        let mut added = Vec::new();
        let _ = file.seek(SeekFrom::Start(*seen)).and_then(|_| file.read_to_end(&mut added));
        *seen += added.len() as u64;
        *lines += added.iter().filter(|byte| **byte == b'\n').count() as u64;
        *lines
    }
}

fn key(content_type: &str, text: &str) -> Key {
    *blake3::hash(format!("{content_type}\n{text}").as_bytes()).as_bytes()
}

fn cut(text: &str) -> String {
    text.chars().take(240).collect()
}

#[test]
fn the_books_see_every_difference() {
    let place = super::Place::new();
    let sim = super::simulate(trendmicro_sim::EmailConfig {
        accepted_backlog: 3,
        blocked_backlog: 2,
        policy_backlog: 2,
        ..super::email()
    });
    let mut lines = Vec::new();
    sim.for_each_record(|record| {
        let payload: Value = serde_json::from_str(&record.json).expect("JSON");
        let class = format!("{SOURCE}_{}", record.content_type);
        let id = lines.len().to_string();
        let event = serde_json::json!({ "msg_class": class, "event_id": id, SOURCE: payload });
        lines.push(format!("t: [1.5, {event}]\n"));
    });
    let books = |lines: &[String]| {
        fs::write(place.out().join("t"), lines.concat()).expect("a file is written");
        Books::of(&sim, &place.out(), Form::Envelope)
    };
    books(&lines).assert_exact("the same on both sides");
    assert_eq!(books(&lines[1..]).missing.len(), 1);
    let mut other = lines.clone();
    other.push(lines[0].clone());
    assert_eq!(books(&other).duplicates, ["0"]);
    other[0] = lines[0].replace("accepted_traffic", "blocked_traffic");
    let wrong = books(&other);
    assert_eq!((wrong.unexpected.len(), wrong.missing.len()), (1, 0));
    other[0] = lines[0].replace("\"event_id\":\"0\"", "\"event_id\":\"1\"");
    assert!(!books(&other).confused.is_empty());
    other[0] = "t: [1.5, {\"a\":\n".to_owned();
    assert_eq!(books(&other).torn, 1);
}
