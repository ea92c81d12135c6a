//! The fuzz targets over their corpora: what the fuzzer once found is looked at by every test run.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// A corpus of a few files tests a reader's main ways.
const FILES_MIN: usize = 5;

#[test]
fn every_corpus_passes_its_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (name, target) in targets::TARGETS {
        let folder = fs::read_dir(fuzz.join("corpus").join(name)).unwrap();
        let files: Vec<_> = folder.map(|file| file.unwrap().path()).collect();
        assert!(files.len() >= FILES_MIN, "{name} has {} files", files.len());
        for path in files {
            let data = fs::read(&path).unwrap();
            let result = std::panic::catch_unwind(|| target(&data));
            assert!(result.is_ok(), "{} fails, see above", path.display());
        }
    }
}

/// Each target has its program for the fuzzer, and each program its target.
#[test]
fn every_target_has_its_program() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let programs = fs::read_dir(fuzz).unwrap().map(|file| file.unwrap().path());
    let mut programs: Vec<_> =
        programs.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    programs.sort();
    let mut names: Vec<_> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    // That of the command line's readers; its corpus is tested there.
    names.push("host".to_owned());
    names.sort();
    assert_eq!(programs, names);
}
