//! A real PostgreSQL server on this machine, if its programs are there: `POSTGRES_BIN`, the `PATH`,
//! or the newest of /usr/lib/postgresql.
//!
//! A shell holds the server and reads from a pipe of this process. When the pipe closes, however the
//! process ends, the shell ends the server.

// Examples share this folder, and a server that does not start is the end of them, too.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// The password of every user. It must never be seen in any text.
pub const PASSWORD: &str = "canary-9b7f-password-of-the-tests";
/// Who owns the databases of the tests.
pub const USER: &str = "app";
/// Starting takes a second or two; other programs share the machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Runs a program until the pipe says something or closes; then ends it, and removes its folder unless
/// it was told to keep it.
const KEEPER: &str = r#"folder="$1"; shift
"$@" >>"$folder/log" 2>&1 </dev/null &
read -r word
kill -CONT $! 2>/dev/null; kill -QUIT $! 2>/dev/null; wait
[ "$word" = keep ] || rm -rf "$folder""#;

/// A server with a folder of its own.
pub struct Server {
    dir: TempDir,
    bin: PathBuf,
    owner: Option<(u32, u32)>,
    port: u16,
    settings: Vec<String>,
    keeper: Option<Child>,
}

impl Server {
    /// The one that all tests of the process share; `None` where there can be none.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        // Nobody drops what is static: the shell removes the folder.
        SHARED.get_or_init(|| Self::start(&[])).as_ref()
    }

    /// One of the test's own, with settings beside the usual ones.
    pub fn start(settings: &[&str]) -> Option<Self> {
        let Some(bin) = programs() else {
            // Not `eprintln!`, which is shown of tests that fail only.
            let said = "\n*** SKIPPED: there is no PostgreSQL on this machine (POSTGRES_BIN) ***\n";
            let _ = std::io::stderr().write_all(said.as_bytes());
            return None;
        };
        let dir = TempDir::with_prefix("tm-pg-").unwrap();
        let owner = unprivileged(dir.path());
        let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { dir, bin, owner, port, settings, keeper: None };
        server.make();
        server.run();
        server.sql("postgres", &format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'"));
        Some(server)
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A file in its folder that it can read and others cannot.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((user, group)) = self.owner {
            chown(&path, Some(user), Some(group)).unwrap();
        }
        path
    }

    fn make(&self) {
        let password = self.write("password", PASSWORD);
        let initdb = self
            .command(self.bin.join("initdb"))
            .args(["--no-sync", "--username=postgres", "--encoding=UTF8", "--locale=C"])
            .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
            .arg(format!("--pwfile={}", password.display()))
            .arg("-D")
            .arg(self.path().join("data"))
            .output()
            .unwrap();
        assert!(initdb.status.success(), "{}", String::from_utf8_lossy(&initdb.stderr));
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }

    /// Starts it, and waits until it answers.
    pub fn run(&mut self) {
        let folder = self.path().display().to_string();
        let mut keeper = self.command("sh");
        keeper.args(["-c", KEEPER, "keeper", &folder]).arg(self.bin.join("postgres"));
        keeper.args(["-D", &format!("{folder}/data"), "-p", &self.port.to_string()]);
        let usual = ["fsync=off", "listen_addresses=127.0.0.1", "max_connections=100"];
        let socket = format!("unix_socket_directories={folder}");
        let settings = self.settings.iter().map(String::as_str);
        for setting in usual.into_iter().chain([socket.as_str()]).chain(settings) {
            keeper.args(["-c", setting]);
        }
        self.keeper = Some(keeper.stdin(Stdio::piped()).spawn().unwrap());
        let begun = Instant::now();
        while self.try_sql("postgres", "SELECT 1").is_err() {
            let log = || fs::read_to_string(self.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "the server does not start\n{}", log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// An empty database of its own for a test.
    pub fn database(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER {USER}"));
        name
    }

    /// The address of a database, over TCP without TLS.
    pub fn address(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs statements as the superuser; returns the rows as texts.
    pub fn sql(&self, database: &str, sql: &str) -> Vec<Vec<String>> {
        self.try_sql(database, sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    fn try_sql(
        &self,
        database: &str,
        sql: &str,
    ) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.path()).port(self.port).user("postgres").dbname(database);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            let mut rows = Vec::new();
            for message in client.simple_query(sql).await? {
                let SimpleQueryMessage::Row(row) = message else { continue };
                let text = |i| row.get(i).unwrap_or("NULL").to_owned();
                rows.push((0..row.len()).map(text).collect());
            }
            Ok(rows)
        })
    }

    /// Its first process, and all that it has started.
    fn processes(&self) -> Vec<u32> {
        let first = fs::read_to_string(self.path().join("data/postmaster.pid")).unwrap();
        let first: u32 = first.lines().next().unwrap().parse().unwrap();
        let parent = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
            line.trim().parse::<u32>().ok()
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let children = all.filter(|&pid| parent(pid) == Some(first));
        [first].into_iter().chain(children.collect::<Vec<u32>>()).collect()
    }

    /// Sends a signal to processes; one that has just ended by itself is none.
    fn signal(&self, signal: &str, processes: &[u32]) {
        for pid in processes.iter().map(u32::to_string) {
            let sent = Command::new("kill").args([format!("-{signal}"), pid.clone()]).output();
            let is_there = Path::new("/proc").join(&pid).exists();
            assert!(sent.unwrap().status.success() || !is_there, "kill -{signal} {pid}");
        }
    }

    /// Lets it stand still: connections are accepted by the system, and nothing is answered.
    pub fn pause(&self) {
        // The first process first, so that it starts no more.
        self.signal("STOP", &self.processes()[..1]);
        self.signal("STOP", &self.processes());
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("CONT", &self.processes());
    }

    /// Ends it as `pg_ctl stop -m immediate` does, as a crash would.
    pub fn stop(&mut self) {
        self.end("QUIT", 1);
    }

    /// Kills all its processes at once.
    pub fn kill(&mut self) {
        self.end("KILL", usize::MAX);
    }

    fn end(&mut self, signal: &str, count: usize) {
        let processes = self.processes();
        self.signal(signal, &processes[..count.min(processes.len())]);
        let mut keeper = self.keeper.take().unwrap();
        keeper.stdin.take().unwrap().write_all(b"keep\n").unwrap();
        keeper.wait().unwrap();
        let begun = Instant::now();
        while processes.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            assert!(begun.elapsed() < PATIENCE, "the server does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a crash would, and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.run();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut keeper) = self.keeper.take() else { return };
        drop(keeper.stdin.take());
        let _ = keeper.wait();
    }
}

/// Where the programs of a server are.
fn programs() -> Option<PathBuf> {
    let has_both =
        |folder: &PathBuf| ["postgres", "initdb"].iter().all(|p| folder.join(p).exists());
    let named = std::env::var_os("POSTGRES_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut installed: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    installed.sort_by_key(|bin| {
        let version = bin.parent().and_then(Path::file_name).and_then(OsStr::to_str);
        std::cmp::Reverse(version.and_then(|version| version.parse::<u32>().ok()))
    });
    named.into_iter().chain(std::env::split_paths(&path)).chain(installed).find(has_both)
}

/// A server refuses to run as root: the user to run as instead, who now owns `dir`.
fn unprivileged(dir: &Path) -> Option<(u32, u32)> {
    if fs::metadata(dir).unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        let mut fields = line.split(':').skip(2).map_while(|field| field.parse::<u32>().ok());
        Some((fields.next()?, fields.next()?))
    };
    let owner = ids("postgres").or_else(|| ids("nobody")).expect("a user who is not root");
    chown(dir, Some(owner.0), Some(owner.1)).unwrap();
    Some(owner)
}
