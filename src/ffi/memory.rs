//! Memory from the host's allocator, aligned as Rust wants it.
//!
//! Fluent Bit's own builds bring a jemalloc with a quantum of 8 bytes, whose `malloc` may return
//! addresses that are no multiple of 16. Rust's standard allocator believes that `malloc` aligns to
//! 16 on this machine and uses it for all that wants no more; an aligned load of such memory crashes
//! the host.

use std::alloc::{GlobalAlloc, Layout, System};

/// What every `malloc` aligns to.
const MALLOC_ALIGN: usize = 8;
/// From here on the standard allocator asks for the alignment by name.
const NAMED_ALIGN: usize = 32;

struct Aligned;

#[global_allocator]
static ALIGNED: Aligned = Aligned;

/// The same layout, with an alignment that is asked for by name if `malloc` does not give it.
fn named(layout: Layout) -> Layout {
    if layout.align() <= MALLOC_ALIGN {
        return layout;
    }
    layout.align_to(NAMED_ALIGN).unwrap_or(layout)
}

// SAFETY: all calls go to the standard allocator with a layout that is a function of the given one,
// of the same size and at least its alignment.
unsafe impl GlobalAlloc for Aligned {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller's promise.
        unsafe { System.alloc(named(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller's promise.
        unsafe { System.alloc_zeroed(named(layout)) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: by the caller's promise; it was allocated with the same function of its layout.
        unsafe { System.dealloc(pointer, named(layout)) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: by the caller's promise; it was allocated with the same function of its layout.
        unsafe { System.realloc(pointer, named(layout), size) }
    }
}
