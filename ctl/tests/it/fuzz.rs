//! The fuzz target of the configuration's readers over its corpus.

use std::fs;
use std::path::Path;

#[path = "../../../fuzz/src/host.rs"]
mod target;

/// A corpus of a few files tests a reader's main ways.
const FILES_MIN: usize = 5;

#[test]
fn the_corpus_passes_the_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/host");
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= FILES_MIN, "{} files", files.len());
    for path in files {
        let data = fs::read(&path).unwrap();
        let result = std::panic::catch_unwind(|| target::host(&data));
        assert!(result.is_ok(), "{} fails, see above", path.display());
    }
}
