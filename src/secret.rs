//! Credentials: a type that cannot be printed, and the file that may hold one.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use zeroize::Zeroizing;

use crate::clock::lock;
use crate::error::{Error, Result};

/// A key is a line of text; a longer file is a mistake worth naming.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// A secret text: no `Debug`, no `Display`, wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes `text` as a secret.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// The text itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Whether others than a file's owner and group can read it, which a key must not allow.
#[must_use]
pub fn others_can_read(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| is_open_to_others(&meta))
}

fn is_open_to_others(meta: &fs::Metadata) -> bool {
    meta.permissions().mode() & 0o007 != 0
}

/// Where a credential comes from.
pub enum Credential {
    /// Written in the configuration.
    Inline(Secret),
    /// In a file, read again whenever the file changes.
    File(SecretFile),
}

impl Credential {
    /// The credential as of now.
    ///
    /// # Errors
    /// When the file cannot be read, is empty, or can be read by others.
    pub fn get(&self) -> Result<Secret> {
        match self {
            Self::Inline(secret) => Ok(secret.clone()),
            Self::File(file) => file.get(),
        }
    }
}

/// A file that holds a secret.
pub struct SecretFile {
    path: PathBuf,
    last: Mutex<Option<(Version, Secret)>>,
}

/// What tells one version of a file from the next: modification time, size and inode.
#[derive(PartialEq)]
struct Version(i64, i64, u64, u64);

impl SecretFile {
    /// A secret in the file at `path`; nothing is read yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), last: Mutex::new(None) }
    }

    /// The secret, read again if the file has changed since the last call.
    fn get(&self) -> Result<Secret> {
        let unreadable = |error| self.fault("cannot be read", error);
        // Before it is opened, since opening a pipe would wait for its other end.
        self.check(&fs::metadata(&self.path).map_err(unreadable)?)?;
        let mut file = File::open(&self.path).map_err(unreadable)?;
        // And after it, since another file may have taken its place.
        let meta = file.metadata().map_err(unreadable)?;
        self.check(&meta)?;
        let version = Version(meta.mtime(), meta.mtime_nsec(), meta.size(), meta.ino());
        let mut last = lock(&self.last);
        if let Some((seen, secret)) = &*last
            && *seen == version
        {
            return Ok(secret.clone());
        }
        let mut text = Zeroizing::new(String::with_capacity(SECRET_BYTES_MAX as usize));
        file.by_ref().take(SECRET_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
        let secret = Secret::new(text.trim());
        if secret.expose().is_empty() {
            return Err(self.fault("is empty", "write the key into it, and nothing else"));
        }
        *last = Some((version, secret.clone()));
        Ok(secret)
    }

    fn check(&self, meta: &fs::Metadata) -> Result<()> {
        if !meta.is_file() {
            return Err(self.fault("is not a file", "name the file that holds the key"));
        }
        if is_open_to_others(meta) {
            let cure = format!("chmod 600 {} cures that", self.path.display());
            return Err(self.fault("can be read by others", cure));
        }
        if meta.len() > SECRET_BYTES_MAX {
            return Err(self.fault("is too large for a key", format!("{} bytes", meta.len())));
        }
        Ok(())
    }

    fn fault(&self, what: &str, why: impl ToString) -> Error {
        Error::config(format!("file \"{}\" {what}", self.path.display())).caused_by(why.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// What the allocator has taken back is read through the kernel, which may look anywhere.
    #[test]
    fn a_secret_is_wiped_when_it_is_dropped() {
        let text = "a secret of the tests ".repeat(100);
        let secret = Secret::new(&text);
        let (at, length) = (secret.expose().as_ptr() as u64, text.len());
        // Nothing is allocated in between: it could be given the very memory that is looked at.
        let memory = File::open("/proc/self/mem").unwrap();
        let mut seen = vec![0; length];
        let mut look = || {
            // Memory that was given back altogether cannot be read any more, and holds nothing.
            let read = std::os::unix::fs::FileExt::read_exact_at(&memory, &mut seen, at);
            let found = seen.windows(6).filter(|bytes| bytes == b"secret").count();
            if read.is_ok() { found } else { 0 }
        };
        assert_eq!(look(), 100);
        drop(secret);
        assert_eq!(look(), 0);
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        for path in [path.as_path(), dir.path(), Path::new("/dev/zero")] {
            let error = Credential::File(SecretFile::new(path)).get().err().unwrap();
            assert!(error.to_string().contains("is not a file"), "{error}");
        }
    }

    #[test]
    fn a_file_is_read_again_when_it_changes_and_refused_when_others_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let credential = Credential::File(SecretFile::new(&path));
        assert!(credential.get().is_err_and(|e| e.to_string().contains("cannot be read")));
        write(&path, "one\n", 0o600);
        assert_eq!(credential.get().unwrap().expose(), "one");
        write(&path, "second\n", 0o640);
        assert_eq!(credential.get().unwrap().expose(), "second");
        write(&path, "third", 0o644);
        let error = credential.get().err().unwrap().to_string();
        assert!(error.contains("can be read by others") && error.contains("chmod 600"), "{error}");
        assert!(!error.contains("third"));
        write(&path, " \n", 0o600);
        assert!(credential.get().is_err_and(|e| e.to_string().contains("is empty")));
    }
}
