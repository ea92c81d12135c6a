//! The state file as a file: made so that others cannot read it, known again, and set aside.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// What SQLite writes beside a file.
const COMPANIONS: [&str; 2] = ["-wal", "-journal"];
/// Files that were set aside and that nobody looked at; then it is time that somebody does.
const SET_ASIDE_MAX: u32 = 100;
/// Where SQLite's header holds the mark of the file's owner.
const OWNER_AT: usize = 68;
/// What a file of SQLite's begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Which file lies under a path, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// What lies under `path` now, if something does; a link is itself and not what it leads to.
    pub(super) fn of(path: &Path) -> Option<Self> {
        path.symlink_metadata().ok().as_ref().map(Self::from)
    }
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Makes the file before SQLite does, since SQLite would let others read it; or sees that the one
/// which is there can be written.
///
/// What somebody puts there between the look at the path and this is not followed: the file is made
/// only where nothing stands, and one that stands there has to be what the path itself names.
pub(super) fn create_private(path: &Path) -> Result<Identity> {
    let mut new = OpenOptions::new();
    new.write(true).create_new(true).mode(0o600);
    let opened = new.open(path).or_else(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => OpenOptions::new().write(true).open(path),
        _ => Err(error),
    });
    let metadata = opened.and_then(|file| file.metadata()).map_err(|error| {
        Error::config(format!(
            "db = \"{}\": cannot be opened for writing; legal: a file path whose directory exists \
             and can be written to; write: db: /var/lib/fluent-bit/trendmicro.db",
            path.display()
        ))
        .caused_by(error)
    })?;
    let opened = Identity::from(&metadata);
    if metadata.is_file() && Identity::of(path) == Some(opened) {
        Ok(opened)
    } else {
        Err(replaced(path))
    }
}

/// Another file stands where one was just looked at.
pub(super) fn replaced(path: &Path) -> Error {
    Error::config(format!(
        "db = \"{}\": was replaced while it was opened; legal: a file of this user in a directory \
         that others cannot write; write: db: /var/lib/fluent-bit/trendmicro.db",
        path.display()
    ))
}

/// Whether a file that SQLite cannot read was once ours: its header still says so, or it is nothing
/// but zeros, as a power cut leaves a file whose length alone had reached the disk.
pub(super) fn was_ours(path: &Path, owner: i32) -> bool {
    let mut header = Vec::with_capacity(100);
    let read = File::open(path).and_then(|file| file.take(100).read_to_end(&mut header));
    let owner_seen = header.get(OWNER_AT..OWNER_AT + 4);
    read.is_ok()
        && (header.iter().all(|&byte| byte == 0)
            || (header.starts_with(MAGIC) && owner_seen == Some(&owner.to_be_bytes())))
}

/// Renames a file and what SQLite keeps beside it; returns the new name, or `None` if there was no
/// file.
pub(super) fn set_aside(path: &Path) -> Result<Option<PathBuf>> {
    if Identity::of(path).is_none() {
        return Ok(None);
    }
    let name = |n: u32| {
        let number = if n == 0 { String::new() } else { format!(".{n}") };
        with_suffix(path, &format!(".damaged{number}"))
    };
    let fault = |why: &str| {
        let text = format!("state file \"{}\" is damaged and cannot be set aside", path.display());
        Error::new(ErrorKind::Store, format!("{text}{why}"))
    };
    let free = (0..SET_ASIDE_MAX).map(name).find(|name| Identity::of(name).is_none());
    let free = free.ok_or_else(|| fault(": there are too many of its kind beside it"))?;
    std::fs::rename(path, &free).map_err(|error| fault("").caused_by(error))?;
    for companion in COMPANIONS {
        // What is not there need not be renamed; what stays is nothing to a new file.
        let _ = std::fs::rename(with_suffix(path, companion), with_suffix(&free, companion));
    }
    Ok(Some(free))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// As if somebody had been faster than the look at the path.
    #[test]
    fn what_is_planted_after_the_look_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let foreign = dir.path().join("foreign");
        symlink(&foreign, &path).unwrap();
        create_private(&path).expect_err("a link to nothing");
        assert!(!foreign.exists(), "a file was made where a link led");
        fs::write(&foreign, "somebody's own").unwrap();
        let error = create_private(&path).expect_err("a link to a file").to_string();
        assert!(error.contains("was replaced"), "{error}");
        fs::remove_file(&path).unwrap();

        let made = create_private(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(create_private(&path).unwrap(), made, "one that is there already");
    }
}
