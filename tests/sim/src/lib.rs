//! A simulator of Trend Micro's polling APIs, written from the vendor reference alone.
//!
//! It shares no type with the plugin that it tests, so that a misreading on either side shows.
//! It is honest by default: every record it generates is in its [`Ledger`], with the exact text
//! and the number of times it was handed out, so a test can tell loss and duplication. What can
//! go wrong on the way is asked for with [`Faults`].
//!
//! ```no_run
//! let sim = trendmicro_sim::Sim::builder().seed(1).start()?;
//! println!("{} serves {} records", sim.url(), sim.counts().visible);
//! # std::io::Result::Ok(())
//! ```

mod apex_central;
mod canonical;
mod clock;
mod cloud_app_security;
mod control;
mod email_security;
mod fault;
mod http;
mod inventory;
mod json;
mod ledger;
mod rate;
mod rng;
mod server;
mod token;
mod window;
mod workload_security;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

pub use apex_central::ApexConfig;
pub use canonical::canonical;
pub use clock::Clock;
pub use cloud_app_security::{CloudAppConfig, FilterTime, LinkEnd, LinkForm};
pub use email_security::{EmailConfig, Ending};
pub use fault::{Fault, FaultKind, Faults, When};
pub use inventory::{Mutated, Mutation, Sweep};
pub use ledger::{Count, Counts, Ledger, LedgerRecord, RequestLog};
pub use rate::{Rate, RateRule};
pub use window::{Lateness, OldStart, Order};
pub use workload_security::{KeyStyle, WorkloadConfig};

use apex_central::ApexCentral;
use cloud_app_security::CloudAppSecurity;
use email_security::EmailSecurity;
use server::{Api, Shared};
use workload_security::WorkloadSecurity;

/// A running simulator; dropping it stops it.
pub struct Sim {
    url: String,
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// Says what is simulated, and starts it.
#[derive(Debug, Clone)]
pub struct Builder {
    seed: u64,
    listen: String,
    clock: Clock,
    email: Option<EmailConfig>,
    cloud_app: Option<CloudAppConfig>,
    apex: Option<ApexConfig>,
    workload: Option<WorkloadConfig>,
    faults: Vec<Fault>,
}

impl Builder {
    /// Everything drawn is drawn from this.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The address to listen on; port 0 takes a free one.
    pub fn listen(mut self, address: &str) -> Self {
        self.listen = address.to_string();
        self
    }

    /// The time to live by; the system's unless said otherwise.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Configures Email Security.
    pub fn email(mut self, config: EmailConfig) -> Self {
        self.email = Some(config);
        self
    }

    /// Leaves Email Security out.
    pub fn without_email(mut self) -> Self {
        self.email = None;
        self
    }

    /// Adds Cloud App Security.
    pub fn cloud_app(mut self, config: CloudAppConfig) -> Self {
        self.cloud_app = Some(config);
        self
    }

    /// Adds Apex Central.
    pub fn apex(mut self, config: ApexConfig) -> Self {
        self.apex = Some(config);
        self
    }

    /// Adds Workload Security.
    pub fn workload(mut self, config: WorkloadConfig) -> Self {
        self.workload = Some(config);
        self
    }

    /// A fault in force from the first request.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Starts to listen.
    pub fn start(self) -> io::Result<Sim> {
        let listener = TcpListener::bind(&self.listen)?;
        let address = listener.local_addr()?;
        let faults = Faults::new(self.seed);
        for fault in self.faults {
            faults.add(fault);
        }
        let (seed, now_ms) = (self.seed, self.clock.now_ms());
        let mut apis: Vec<Box<dyn Api>> = Vec::new();
        if let Some(config) = self.email {
            apis.push(Box::new(EmailSecurity::new(config, seed, now_ms)));
        }
        if let Some(config) = self.cloud_app {
            apis.push(Box::new(CloudAppSecurity::new(config, seed, now_ms)));
        }
        if let Some(config) = self.apex {
            apis.push(Box::new(ApexCentral::new(config, seed, now_ms)));
        }
        // Last, since its base path may be a part of another's.
        if let Some(config) = self.workload {
            apis.push(Box::new(WorkloadSecurity::new(config, seed, now_ms)));
        }
        let shared = Arc::new(Shared::new(apis, faults, self.clock));
        let for_acceptor = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || server::accept(&listener, &for_acceptor));
        Ok(Sim { url: format!("http://{address}"), address, shared, acceptor: Some(acceptor) })
    }
}

impl Sim {
    /// An honest simulator of Email Security, on a free port of this machine. The other APIs are
    /// there once they are configured.
    pub fn builder() -> Builder {
        Builder {
            seed: 1,
            listen: "127.0.0.1:0".to_string(),
            clock: Clock::system(),
            email: Some(EmailConfig::default()),
            cloud_app: None,
            apex: None,
            workload: None,
            faults: Vec::new(),
        }
    }

    /// Where it listens, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The time it lives by.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Every record that is visible now. For big runs see [`Sim::for_each_record`].
    pub fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        self.for_each_record(|record| ledger.records.push(record.clone()));
        ledger
    }

    /// Shows every record that is visible now, one at a time.
    pub fn for_each_record(&self, mut visit: impl FnMut(&LedgerRecord)) {
        control::visit(&self.shared, &mut visit);
    }

    /// How many records are visible and how many were shown.
    pub fn counts(&self) -> Counts {
        control::counts(&self.shared)
    }

    /// The faults in force.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// The last 100,000 requests to the APIs, oldest first.
    pub fn requests(&self) -> Vec<RequestLog> {
        self.shared.requests.all()
    }

    /// Lets entities of an inventory come, go and change: of `agents`, `servers` or `computers`.
    /// `None` when there is no such inventory.
    pub fn mutate(&self, content_type: &str, mutation: Mutation) -> Option<Mutated> {
        control::mutate(&self.shared, content_type, mutation)
    }

    /// The last 10,000 answers with entities of each inventory, oldest first. What a fault made
    /// unreadable is not among them; what a client did not read to its end is.
    pub fn sweeps(&self) -> Vec<Sweep> {
        self.shared.apis.iter().flat_map(|api| api.sweeps()).collect()
    }

    /// Shows the entities of an answer as it had them, one at a time.
    pub fn for_each_in_sweep(&self, sweep: &Sweep, mut visit: impl FnMut(&LedgerRecord)) {
        self.shared.apis.iter().for_each(|api| api.visit_sweep(sweep, &mut visit));
    }

    /// How the clients kept to the rate limits, per API that may have one.
    pub fn rates(&self) -> Vec<Rate> {
        self.shared.apis.iter().filter_map(|api| api.rate()).collect()
    }

    /// Requests refused by any rate limit.
    pub fn rate_violations(&self) -> u64 {
        self.rates().iter().map(|rate| rate.violations).sum()
    }

    /// Generates no more live records; late ones still become visible.
    pub fn stop_live(&self) {
        control::stop_live(&self.shared);
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.shared.stop.set();
        // The acceptor looks at the stop when a connection arrives, so here is one.
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        drop(TcpStream::connect(address));
        if let Some(acceptor) = self.acceptor.take() {
            // A panic there has been reported already.
            let _ = acceptor.join();
        }
        self.shared.drain();
    }
}

/// Locks; a thread that panicked has failed its own test and must not fail the others.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
