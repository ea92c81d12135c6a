//! Fluent Bit's configuration as the host reads it, with the place of every line.
//!
//! A plugin sees only the values of keys that it asks for. This room sees the rest: keys that nobody
//! asks for, keys that the host keeps for itself, other inputs, and the outputs.

mod classic;
mod variables;
mod yaml;

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use in_trendmicro::error::{Error, Result};

use variables::Variables;

/// Included files; the host has the same bound against files that include each other.
const FILES_MAX: usize = 100;
/// The largest file that is read; a configuration of a thousand inputs has a megabyte.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The file, as the user named it.
    pub file: Arc<Path>,
    /// Its line, from 1.
    pub line: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A property.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its key, as the host hands it to plugins: lower case.
    pub key: String,
    /// Its value as it is written.
    pub written: String,
    /// Its value with variables replaced.
    pub value: String,
    /// Where it stands.
    pub at: At,
}

/// What a section is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The host itself.
    Service,
    /// An input.
    Input,
    /// An output.
    Output,
    /// Anything else.
    Other,
}

/// A section with its properties, in their order.
#[derive(Clone, Debug)]
pub struct Section {
    /// What it is for.
    pub kind: Kind,
    /// Where it begins.
    pub at: At,
    /// Its properties.
    pub entries: Vec<Entry>,
}

impl Section {
    /// The first property of that name, which is the one that the host shows a plugin.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key.eq_ignore_ascii_case(key))
    }

    /// Its value, unless it is missing or empty.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.entry(key).map(|entry| entry.value.as_str()).filter(|value| !value.is_empty())
    }
}

/// Something about the files that the host would not take, or would take without a word.
#[derive(Clone, Debug)]
pub struct Note {
    /// Where.
    pub at: At,
    /// What, and what to write instead.
    pub text: String,
    /// Whether the host does not start with it.
    pub is_fatal: bool,
}

/// A whole configuration.
#[derive(Debug, Default)]
pub struct HostConfig {
    /// Its sections, in their order, those of included files in the place of the inclusion.
    pub sections: Vec<Section>,
    /// What is wrong with the files themselves.
    pub notes: Vec<Note>,
}

impl HostConfig {
    /// Reads a file and all that it includes.
    ///
    /// # Errors
    /// When the file cannot be read or is not in one of the host's two formats.
    pub fn read(path: &Path) -> Result<Self> {
        let mut reading = Reading::default();
        reading.file(path, None)?;
        let Reading { sections, mut notes, variables, .. } = reading;
        let sections = sections
            .into_iter()
            .map(|mut section| {
                for entry in &mut section.entries {
                    let (value, unset) = variables.resolve(&entry.written);
                    entry.value = value;
                    notes.extend(unset.into_iter().map(|name| Note {
                        at: entry.at.clone(),
                        text: format!(
                            "{}: ${{{name}}} is not set here, so the host puts nothing in its \
                             place; set it in the environment that fluent-bit starts in",
                            entry.key
                        ),
                        is_fatal: false,
                    }));
                }
                section
            })
            .collect();
        Ok(Self { sections, notes })
    }

    /// The inputs of this plugin.
    pub fn inputs(&self) -> impl Iterator<Item = &Section> {
        let is_ours = |section: &&Section| {
            let name = section.value("name").unwrap_or_default();
            section.kind == Kind::Input && name.eq_ignore_ascii_case("trendmicro")
        };
        self.sections.iter().filter(is_ours)
    }

    /// The outputs.
    pub fn outputs(&self) -> impl Iterator<Item = &Section> {
        self.sections.iter().filter(|section| section.kind == Kind::Output)
    }

    /// A property of the service.
    #[must_use]
    pub fn service(&self, key: &str) -> Option<&str> {
        let services = self.sections.iter().filter(|section| section.kind == Kind::Service);
        services.filter_map(|section| section.value(key)).next()
    }
}

/// The state of reading a configuration's files.
#[derive(Default)]
struct Reading {
    sections: Vec<Section>,
    notes: Vec<Note>,
    variables: Variables,
    files: Vec<PathBuf>,
    /// The folder of the first file, which relative inclusions begin from.
    root: PathBuf,
}

impl Reading {
    /// Reads one file; `from` is the line that includes it.
    fn file(&mut self, path: &Path, from: Option<&At>) -> Result<()> {
        let whence = from.map_or(String::new(), |at| format!("{at}: "));
        let fault = |what: &str| Error::config(format!("{whence}{}: {what}", path.display()));
        let text = text_of(path).map_err(|error| fault("cannot be read").caused_by(error))?;
        if self.files.is_empty() {
            self.root = path.parent().map(Path::to_owned).unwrap_or_default();
        }
        if self.files.len() >= FILES_MAX || self.files.iter().any(|known| known == path) {
            return Err(fault("is included already"));
        }
        self.files.push(path.to_owned());
        let file: Arc<Path> = Arc::from(path);
        let is_yaml = path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml");
        if is_yaml { yaml::read(self, &file, &text) } else { classic::read(self, &file, &text) }
    }

    /// Reads what an inclusion names; it may hold a pattern.
    fn include(&mut self, pattern: &str, folder: &Path, at: &At) -> Result<()> {
        let path = if Path::new(pattern).is_absolute() {
            PathBuf::from(pattern)
        } else {
            folder.join(pattern)
        };
        if !pattern.contains(['*', '?', '[']) {
            return self.file(&path, Some(at));
        }
        let found = glob::glob(&path.to_string_lossy())
            .map_err(|error| Error::config(format!("{at}: {pattern}")).caused_by(error))?;
        for path in found.flatten() {
            self.file(&path, Some(at))?;
        }
        Ok(())
    }

    fn note(&mut self, at: &At, is_fatal: bool, text: String) {
        self.notes.push(Note { at: at.clone(), text, is_fatal });
    }
}

/// What a file holds. A device has no end, and a pipe may never begin, so neither is read.
fn text_of(path: &Path) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = String::new();
    let length = File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<HostConfig> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        HostConfig::read(&dir.path().join(files[0].0))
    }

    fn shown(config: &HostConfig) -> Vec<String> {
        let entry = |entry: &Entry| {
            let name = entry.at.file.file_name().unwrap().to_string_lossy().into_owned();
            format!("{name}:{} {}={}", entry.at.line, entry.key, entry.value)
        };
        config.inputs().flat_map(|section| section.entries.iter().map(entry)).collect()
    }

    #[test]
    fn both_formats_give_the_same_with_places_variables_and_inclusions() {
        let yaml = read(&[
            (
                "a.yaml",
                "env:\n  REGION: eu\nincludes:\n  - more*.yaml\nservice:\n  flush: 1\n",
            ),
            (
                "more1.yaml",
                "pipeline:\n  inputs:\n    - name: trendmicro\n      # a comment\n      \
                 region: ${REGION}\n      baseUrl: 'a: b # c'\n      rate_limit: 5\n  outputs:\n    \
                 - name: stdout\n      match: '*'\n",
            ),
        ])
        .unwrap();
        let classic = read(&[
            ("a.conf", "@SET REGION=eu\n[SERVICE]\n    Flush 1\n@INCLUDE b.conf\n"),
            (
                "b.conf",
                "[INPUT]\n    Name trendmicro\n    # a comment\n\n    Region ${REGION}\n    \
                 base_url   a: b # c\n    rate_limit 5\n[OUTPUT]\n    Name stdout\n    Match *\n",
            ),
        ])
        .unwrap();
        assert_eq!(
            shown(&yaml),
            [
                "more1.yaml:3 name=trendmicro",
                "more1.yaml:5 region=eu",
                "more1.yaml:6 base_url=a: b # c",
                "more1.yaml:7 rate_limit=5"
            ]
        );
        let bare = |line: &String| line.split_once(' ').unwrap().1.to_owned();
        let values = |config| shown(config).iter().map(bare).collect::<Vec<_>>();
        assert_eq!(values(&yaml), values(&classic));
        assert_eq!(shown(&classic)[1], "b.conf:5 region=eu");
        for config in [yaml, classic] {
            assert_eq!(config.service("FLUSH"), Some("1"));
            assert_eq!(config.outputs().count(), 1);
            assert!(config.notes.is_empty(), "{:?}", config.notes);
        }
    }

    #[test]
    fn what_the_host_would_not_take_is_told_with_its_line() {
        let error = |files: &[(&str, &str)]| read(files).map(drop).unwrap_err().to_string();
        for (files, expected) in [
            (vec![("a.yaml", "pipeline:\n  inputs:\n  - name: 'x\n")], "a.yaml:3"),
            (vec![("a.conf", "[INPUT\n")], "a.conf:1"),
            (vec![("a.conf", "[INPUT]\n    Name\n")], "a.conf:2"),
            (vec![("a.conf", "[SERVICE]\n    flush 1\n@INCLUDE no.conf\n")], "a.conf:3"),
            (vec![("a.conf", "@INCLUDE a.conf\n")], "is included already"),
            (vec![("a.yaml", "- 1\n")], "a.yaml:1"),
            (vec![("a.conf", "@INCLUDE /dev/zero\n")], "it is not a file"),
            (vec![("a.yaml", &"[".repeat(100_000))], "a.yaml:1"),
            (vec![("a.yaml", &format!("a: {}", "[".repeat(70)))], "nested more than"),
            (vec![("a.yaml", &"- ".repeat(100_000))], "nested more than"),
            // What stands behind such a key may be the key itself.
            (vec![("a.conf", "[INPUT]\n    api_key=s3cret\n")], "write: api_key VALUE"),
            (vec![("a.conf", "[INPUT]\n    api_key:s3cret\n")], "write: api_key VALUE"),
        ] {
            let error = error(&files);
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        let large = "#".repeat(FILE_BYTES_MAX as usize + 1);
        assert!(error(&[("a.conf", &large)]).contains("it is larger than"));
        let nested = read(&[(
            "a.yaml",
            "pipeline:\n  inputs:\n  - name: trendmicro\n    mail:\n      a: 1\n",
        )]);
        let notes = nested.unwrap().notes;
        assert!(notes[0].is_fatal && notes[0].at.line == 4, "{notes:?}");
        let unset = read(&[("a.conf", "[INPUT]\n  Name trendmicro\n  api_key ${NOT_SET_HERE}\n")]);
        let notes = unset.unwrap().notes;
        assert!(!notes[0].is_fatal && notes[0].text.contains("${NOT_SET_HERE}"), "{notes:?}");
    }
}
