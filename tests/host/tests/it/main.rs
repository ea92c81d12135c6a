//! The host against its probe plugin: in this process for what a library user sees, as a program for
//! what ends a process.
#![allow(clippy::unwrap_used)] // Helpers of tests fail a test by panicking, too.

mod library;
mod program;
