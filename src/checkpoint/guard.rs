//! Whether a state file may be opened: who can write beside it could have put something else there.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The file itself, and what SQLite keeps beside it and believes.
const ENDINGS: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Passes a state file that is not there yet, or that is a plain file of this user or of root which
/// nobody else can write; the same goes for what SQLite keeps beside it.
///
/// A link is refused even if it leads to such a file: followed, it would have a file made or changed
/// wherever somebody else wanted it.
///
/// # Errors
/// When one of the files is something else.
pub fn check(path: &Path) -> Result<()> {
    let user = user();
    for ending in ENDINGS {
        let mut name = OsString::from(path);
        name.push(ending);
        let file = PathBuf::from(name);
        // What cannot be looked at cannot be opened either, and opening it says why.
        let Ok(meta) = fs::symlink_metadata(&file) else { continue };
        if let Some(why) = flaw(&meta, user) {
            return Err(Error::config(format!(
                "db = \"{}\": {} {why}; legal: a file of this user in a directory that others cannot \
                 write; write: db: /var/lib/fluent-bit/trendmicro.db",
                path.display(),
                file.display()
            )));
        }
    }
    Ok(())
}

fn flaw(meta: &Metadata, user: Option<u32>) -> Option<&'static str> {
    if meta.is_symlink() {
        return Some("is a symbolic link");
    }
    if !meta.is_file() {
        return Some("is not a file");
    }
    if user.is_some_and(|user| ![user, 0].contains(&meta.uid())) {
        return Some("belongs to another user");
    }
    (meta.mode() & 0o002 != 0).then_some("can be written by others")
}

/// The user whose rights this process has; `None` where the system does not tell.
fn user() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn only_a_plain_file_of_our_own_passes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let refused = || check(&path).unwrap_err().to_string();
        check(&path).expect("what is not there yet");
        fs::write(&path, "").unwrap();
        check(&path).expect("a plain file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(refused().contains("can be written by others"));
        fs::remove_file(&path).unwrap();

        let foreign = dir.path().join("foreign");
        symlink(&foreign, &path).unwrap();
        assert!(refused().contains("is a symbolic link"), "a link to nothing");
        fs::write(&foreign, "").unwrap();
        assert!(refused().contains("is a symbolic link"), "a link to a file");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(refused().contains("is not a file"));
        fs::remove_dir(&path).unwrap();

        for ending in ["-wal", "-shm", "-journal"] {
            let beside = dir.path().join(format!("state.db{ending}"));
            symlink(&foreign, &beside).unwrap();
            assert!(refused().contains(&format!("state.db{ending} is a symbolic link")));
            fs::remove_file(&beside).unwrap();
        }
        check(&path).expect("nothing there any more");
    }

    #[test]
    fn another_users_file_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        fs::write(&path, "").unwrap();
        let meta = fs::metadata(&path).unwrap();
        let own = user().unwrap();
        assert_eq!(meta.uid(), own);
        assert_eq!(flaw(&meta, Some(own)), None);
        assert_eq!(flaw(&meta, None), None);
        // Only root can give a file away; for everybody else it is enough to be somebody else.
        if chown(&path, Some(own + 1), None).is_ok() {
            let given = fs::metadata(&path).unwrap();
            assert_eq!(flaw(&given, Some(own)), Some("belongs to another user"));
            assert!(check(&path).is_err());
        } else {
            assert_eq!(flaw(&meta, Some(own + 1)), Some("belongs to another user"));
        }
    }
}
