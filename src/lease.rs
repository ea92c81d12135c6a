//! Who runs what, where several hosts share one state: the lease of each connector, and how the
//! connectors are spread.
//!
//! A lease is the right to run one connector. It has an *epoch*, which grows with every new holder;
//! whatever is saved is saved under an epoch, and the store refuses one that is no longer the
//! lease's. So a host that was paused, cut off or slow can do no harm, whatever it believes.
//!
//! A host holds its leases for as long as it says often enough that it lives. All times by which that
//! is judged are the database's; a host's own clock only tells it how long ago it last said so.

/// A host, for as long as its process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Which process, and which of its inputs; never the same twice.
    pub id: String,
    /// What people call the host.
    pub name: String,
    /// The connectors that it is able to run, by their leases' names.
    pub connectors: Vec<String>,
}

/// The right to run a connector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// The connector.
    pub connector: String,
    /// The id of the member that holds it; `None` if nobody does.
    pub holder: Option<String>,
    /// How often it has been taken.
    pub epoch: u64,
}

/// Who lives, and who runs what, as one look at the database shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roll {
    /// Members that have said lately that they live.
    pub members: Vec<Member>,
    /// All leases, those of dead members too.
    pub leases: Vec<Lease>,
}
