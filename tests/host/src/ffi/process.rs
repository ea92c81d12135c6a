//! Process facts the standard library does not give: the clock timers are aligned to, thread names,
//! the fork of daemon mode.

use std::ffi::CString;
use std::time::Duration;
use std::{fs, io};

/// CLOCK_MONOTONIC in nanoseconds. The host's timers fire on its whole seconds, and `Instant` does
/// not show where those are.
pub fn monotonic_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
        .as_nanos()
        .try_into()
        .unwrap_or(u64::MAX)
}

/// Names the calling thread; the kernel cuts at 15 bytes, as it does for the host.
pub fn name_thread(name: &str) {
    if let Ok(name) = CString::new(name) {
        // SAFETY: PR_SET_NAME reads a terminated string.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
}

/// The name of the calling thread as the kernel has it.
pub fn thread_name() -> String {
    // SAFETY: gettid has no precondition.
    let tid = unsafe { libc::gettid() };
    task_name(&tid.to_string())
}

fn task_name(tid: &str) -> String {
    fs::read_to_string(format!("/proc/self/task/{tid}/comm"))
        .map(|name| name.trim_end().to_owned())
        .unwrap_or_default()
}

/// Every thread of the process: id and name.
pub fn threads() -> Vec<(u64, String)> {
    let Ok(entries) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let tid = entry.file_name().into_string().ok()?;
            Some((tid.parse().ok()?, task_name(&tid)))
        })
        .collect()
}

/// Ends the process the way `exit(3)` does: handlers and destructors of loaded libraries run.
pub fn exit_with_destructors(code: i32) -> ! {
    // SAFETY: exit has no precondition.
    unsafe { libc::exit(code) }
}

/// The read end that shows what the plugin wrote to descriptor 1 or 2 of a daemon.
pub struct StdioTrap;

impl StdioTrap {
    /// How many bytes were written since the last call.
    pub fn written(&self) -> usize {
        let mut total = 0;
        let mut buffer = [0_u8; 4096];
        loop {
            // SAFETY: the buffer has the length given; descriptor 0 is the pipe's non-blocking end.
            let got = unsafe { libc::read(0, buffer.as_mut_ptr().cast(), buffer.len()) };
            match usize::try_from(got) {
                Ok(got) if got > 0 => total += got,
                _ => return total,
            }
        }
    }
}

/// Becomes a daemon as `-d` does: the parent leaves through `exit`, the child gets a session of its
/// own, `/` as working directory and descriptors 0 to 2 that belong to something else (a pipe here,
/// an epoll instance there).
pub fn daemonize() -> io::Result<StdioTrap> {
    // SAFETY: the caller has no other thread yet.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid > 0 {
        exit_with_destructors(0);
    }
    std::env::set_current_dir("/")?;
    let mut ends = [0; 2];
    // SAFETY: plain system calls on descriptors of this process; nothing uses 0 to 2 any more.
    let ok = unsafe {
        libc::umask(0);
        libc::setsid();
        libc::close(0);
        libc::close(1);
        libc::close(2);
        libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK) == 0 && libc::dup(ends[1]) == 2
    };
    if ok && ends == [0, 1] { Ok(StdioTrap) } else { Err(io::Error::other("stdio was not free")) }
}
