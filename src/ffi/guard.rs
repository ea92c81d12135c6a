//! The edge that no panic crosses: one that did would end the host's whole process.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, Once};

use crate::clock::lock;

/// Panics that nobody has reported yet; more are not worth keeping.
const LAST_WORDS_MAX: usize = 16;

static LAST_WORDS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Runs `body`; if it panics, returns `fallback`, which must be safe for the host.
pub fn guard<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    let body = AssertUnwindSafe(|| {
        #[cfg(test)]
        tests::panic_if_armed();
        body()
    });
    catch_unwind(body).unwrap_or(fallback)
}

/// Keeps panics off stderr, which in daemon mode may be another file by now; they are reported
/// through the host's log instead. The hook is that of this library's own copy of std.
pub fn keep_last_words() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(note)));
}

/// Takes what panics have left.
pub fn take_last_words() -> Vec<String> {
    std::mem::take(&mut lock(&LAST_WORDS))
}

fn note(info: &PanicHookInfo<'_>) {
    let mut words = lock(&LAST_WORDS);
    if words.len() < LAST_WORDS_MAX {
        let what = info.payload_as_str().unwrap_or("no message");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        words.push(format!("failed inside at {place}: {what}"));
    }
}

#[cfg(test)]
pub mod tests {
    use std::cell::Cell;

    thread_local!(static IS_ARMED: Cell<bool> = const { Cell::new(false) });

    /// The next guarded body on this thread panics.
    pub fn arm() {
        IS_ARMED.set(true);
    }

    pub fn panic_if_armed() {
        assert!(!IS_ARMED.replace(false), "armed by a test");
    }
}
