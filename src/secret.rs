//! Credentials: a type that cannot be printed, and the file that may hold one.

use std::fs;
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
        let meta = fs::metadata(&self.path).map_err(|error| self.fault("cannot be read", error))?;
        self.check(&meta)?;
        let version = Version(meta.mtime(), meta.mtime_nsec(), meta.size(), meta.ino());
        let mut last = lock(&self.last);
        if let Some((seen, secret)) = &*last
            && *seen == version
        {
            return Ok(secret.clone());
        }
        let text = fs::read_to_string(&self.path)
            .map(Zeroizing::new)
            .map_err(|error| self.fault("cannot be read", error))?;
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
        if meta.permissions().mode() & 0o007 != 0 {
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
