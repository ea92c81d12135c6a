//! The target of the command line's readers of Fluent Bit's configuration. They are in no library, so
//! this file is no part of this one either: the fuzzer's program and a test of the command line
//! include it.

use std::fs;

// Nothing here asks for sections of one kind.
#[allow(dead_code)]
#[path = "../../ctl/src/host/mod.rs"]
mod host;

use host::{HostConfig, Section};

/// Files of a configuration, with a form feed between them; the first byte is even if the first one
/// is classic. The others can be included as `1.conf` or `1.yaml`, and so on. Whatever they are,
/// there is one line about what is wrong, or every property stands in the line that it names.
pub fn host(data: &[u8]) {
    let Some((format, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    // Nothing outside of the directory is read.
    let text = text.replace('/', "|").replace("..", "__");
    let dir = tempfile::tempdir().expect("a directory");
    let mut files = text.split('\u{c}');
    let first = if format % 2 == 0 { "first.conf" } else { "first.yaml" };
    fs::write(dir.path().join(first), files.next().unwrap_or_default()).expect("a file");
    for (number, text) in files.enumerate() {
        for ending in ["conf", "yaml"] {
            let name = format!("{}.{ending}", number + 1);
            fs::write(dir.path().join(name), text).expect("a file");
        }
    }
    match HostConfig::read(&dir.path().join(first)) {
        Ok(config) => config.sections.iter().for_each(check),
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
}

fn check(section: &Section) {
    for entry in &section.entries {
        let text = fs::read_to_string(&entry.at.file).expect("a file that was read");
        let line = text.lines().nth(entry.at.line.wrapping_sub(1));
        if entry.at.file.extension().is_some_and(|ending| ending == "conf") {
            let line = line.unwrap_or_default();
            assert!(line.to_lowercase().contains(&entry.key), "{} is not in {line}", entry.key);
            assert!(line.contains(&entry.written), "{} is not in {line}", entry.written);
        } else {
            // To YAML a carriage return ends a line, too.
            let count = text.split(['\n', '\r']).count();
            assert!((1..=count).contains(&entry.at.line), "there is no line {}", entry.at.line);
        }
    }
}
