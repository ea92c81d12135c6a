//! Several hosts with one database, on one virtual clock: the leases, the fencing and the shared
//! budget, between hosts that are killed, frozen, cut off, stopped and started at random.

mod database;
mod node;
mod watch;
mod world;

pub use world::World;

/// How many seeds a run takes unless the environment says otherwise.
pub const SEEDS: u64 = 500;
