//! A small disk for the state file, which a test can fill and write-protect.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Room for the state file, its log and some more.
const DISK_BYTES: usize = 32 << 20;
const BALLAST: &str = "ballast";

/// A directory, on a disk of its own where this machine lets us mount one.
pub struct Disk {
    path: PathBuf,
    is_mounted: bool,
}

impl Disk {
    /// Makes the directory, and mounts a disk there if that is allowed.
    pub fn new(path: PathBuf) -> Self {
        fs::create_dir(&path).expect("a directory for a disk");
        let size = format!("size={DISK_BYTES}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path);
        let is_mounted = succeeds(mount);
        Self { path, is_mounted }
    }

    /// Whether it is one of its own; else it can be neither filled nor protected.
    pub fn is_mounted(&self) -> bool {
        self.is_mounted
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves no room.
    pub fn fill(&self) {
        assert!(self.is_mounted, "only a disk of its own can be filled");
        let mut ballast = File::create(self.path.join(BALLAST)).expect("a file as ballast");
        let piece = [0; 4096];
        // Until the disk says that it is full.
        for _ in 0..=DISK_BYTES / piece.len() {
            if ballast.write_all(&piece).is_err() {
                return;
            }
        }
        panic!("{} takes more than it has room for", self.path.display());
    }

    /// Makes room again.
    pub fn clear(&self) {
        let _ = fs::remove_file(self.path.join(BALLAST));
    }

    /// Forbids writing, or allows it again; nothing on it may be open for writing.
    pub fn protect(&self, is_protected: bool) {
        assert!(self.is_mounted, "only a disk of its own can be protected");
        let how = if is_protected { "remount,ro" } else { "remount,rw" };
        let mut mount = Command::new("mount");
        mount.args(["-o", how]).arg(&self.path);
        assert!(succeeds(mount), "{} cannot be mounted with {how}", self.path.display());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            let mut unmount = Command::new("umount");
            unmount.arg("--lazy").arg(&self.path);
            succeeds(unmount);
        }
    }
}

fn succeeds(mut command: Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
