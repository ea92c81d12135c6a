//! What belongs to the host, to the machine's other users and to other programs stays theirs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::{
    Books, Daemon, Form, Host, Place, assert_no_secrets, config, email, fluent_bit, send_signal,
    simulate, wait, wait_delivered,
};

/// Signals 1 to 64 without SIGKILL, SIGSTOP and the two that the C library keeps for itself.
const ALL_SIGNALS: u64 = !(1 << 8 | 1 << 18 | 1 << 31 | 1 << 32);
/// `O_CLOEXEC` on Linux, as /proc shows it.
const CLOSE_ON_EXEC: u32 = 0o2_000_000;

/// The fields of a status in /proc.
fn fields(path: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// A signal set of each of the plugin's threads, by the thread's name.
fn blocked(pid: u32) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let tasks = tasks.map(|task| fields(&format!("{}/status", task.unwrap().path().display())));
    let of_plugin = tasks.filter(|task| {
        let name = task.get("Name").map_or("", String::as_str);
        name.starts_with("tm-") || name.starts_with("trendmicro")
    });
    let mask = |task: &BTreeMap<String, String>| u64::from_str_radix(&task["SigBlk"], 16).unwrap();
    of_plugin.map(|task| (task["Name"].clone(), mask(&task))).collect()
}

/// What the plugin opens of its own, each with whether a program started by the host inherits it.
fn descriptors(pid: u32) -> Vec<(String, bool)> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let look = |path: PathBuf| {
        let number = path.file_name()?.to_string_lossy().into_owned();
        let what = fs::read_link(&path).ok()?.display().to_string();
        let info = fields(&format!("/proc/{pid}/fdinfo/{number}"));
        let flags = u32::from_str_radix(info.get("flags")?, 8).ok()?;
        let is_ours = ["socket:", "anon_inode:", "state.db"].iter().any(|own| what.contains(own));
        is_ours.then_some((what, flags & CLOSE_ON_EXEC == 0))
    };
    descriptors.filter_map(|entry| look(entry.unwrap().path())).collect()
}

/// The state file and what SQLite keeps beside it, with their modes.
fn modes(place: &Place) -> BTreeMap<String, u32> {
    let entries = fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let states = entries.filter(|path| name(path).starts_with("state.db"));
    states
        .map(|path| (name(&path), path.metadata().unwrap().permissions().mode() & 0o777))
        .collect()
}

/// In a daemon, whose umask is 0: what it makes is nobody else's, its threads take no signal, and
/// what it opens is closed to the programs that the host starts.
#[track_caller]
fn assert_isolated(place: &Place, pid: u32) {
    let modes = modes(place);
    assert!(modes.contains_key("state.db-wal"), "{modes:?}");
    assert!(modes.values().all(|&mode| mode == 0o600), "{modes:?}");
    let blocked = blocked(pid);
    assert!(blocked.len() >= 2, "{blocked:?}");
    for (name, mask) in blocked {
        assert_eq!(mask & ALL_SIGNALS, ALL_SIGNALS, "{name} would take a signal of the host's");
    }
}

#[test]
fn a_daemons_files_signals_and_children_are_left_alone() {
    let (place, sim) = (Place::new(), simulate(email()));
    let daemon = Daemon::start(&place, &config(&sim, &place));
    daemon.wait_delivered(&sim, &place.out());
    assert_isolated(&place, daemon.pid());
    let descriptors = descriptors(daemon.pid());
    for own in ["state.db", "socket:", "anon_inode:"] {
        assert!(descriptors.iter().any(|(what, _)| what.contains(own)), "{own}: {descriptors:?}");
    }
    let inherited: Vec<_> = descriptors.iter().filter(|(_, is_inherited)| *is_inherited).collect();
    assert!(inherited.is_empty(), "{inherited:?}");
    daemon.stop();
    Books::of(&sim, &place.out(), Form::Envelope).assert_exact("as a daemon");
}

/// The same of a real Fluent Bit with `-d`, which the environment names as `FLUENT_BIT`. Its own
/// descriptors are its own matter.
#[test]
fn a_real_daemon_is_left_alone_too() {
    if fluent_bit().is_none() {
        return;
    }
    let (place, sim) = (Place::new(), simulate(email()));
    let (log, out) = (place.text("d.log"), place.out());
    let config = config(&sim, &place).service("daemon", "on").service("log_file", &log);
    let config = config.service("flush", "1").file_per_tag().classic();
    let parent = Host::start_real(&place, "daemon.conf", &config).unwrap();
    assert_eq!(parent.wait_end().code, Some(0));
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let marker = place.text("daemon.conf");
    let find = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        ids.find(|id| {
            let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&marker)
        })
    };
    let pid = wait("the daemon", said, find);
    let books = || Books::of(&sim, &out, Form::Envelope);
    wait("a daemon's records", said, || books().missing.is_empty().then_some(()));
    assert_isolated(&place, pid);
    send_signal(pid, "TERM");
    let ended = || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(());
    wait("the daemon's end", said, ended);
    books().assert_exact("as a daemon of a real host");
    assert_no_secrets(&said());
}

/// Somebody who can write in the state file's directory has put something else there.
#[test]
fn what_stands_in_the_place_of_a_state_file_is_left_as_it_is() {
    type Attack = fn(&Place);
    fn plant(place: &Place, name: &str) {
        let foreign = place.path("foreign");
        fs::write(&foreign, "somebody's own").unwrap();
        symlink(&foreign, place.path(name)).unwrap();
    }
    let attacks: Vec<(&str, Attack)> = vec![
        ("is a symbolic link", |place| plant(place, "state.db")),
        ("state.db-wal is a symbolic link", |place| plant(place, "state.db-wal")),
        ("state.db-journal is a symbolic link", |place| plant(place, "state.db-journal")),
        ("is a symbolic link", |place| {
            symlink(place.path("nothing"), place.path("state.db")).unwrap();
        }),
        ("can be written by others", |place| {
            fs::write(place.path("state.db"), "").unwrap();
            let open = fs::Permissions::from_mode(0o666);
            fs::set_permissions(place.path("state.db"), open).unwrap();
        }),
        ("not a state file", |place| {
            fs::write(place.path("state.db"), "somebody's own text, no database").unwrap();
        }),
    ];
    let sim = simulate(email());
    for (says, attack) in attacks {
        let place = Place::new();
        attack(&place);
        let ending = Host::start(&place, &config(&sim, &place), &[]).wait_end();
        assert_eq!(ending.code, Some(255), "{}", ending.log);
        let lines: Vec<_> = ending.log.lines().filter(|line| line.contains(says)).collect();
        assert_eq!(lines.len(), 1, "{says}\n{}", ending.log);
        for part in ["[error]", "db = ", "legal: ", "write: "] {
            assert!(lines[0].contains(part), "{part} in: {}", lines[0]);
        }
        let foreign = fs::read_to_string(place.path("foreign"));
        assert!(foreign.is_err() || foreign.unwrap() == "somebody's own", "{says}");
        assert!(!place.path("nothing").exists(), "a file was made where a link led");
    }
    assert!(sim.requests().is_empty(), "nothing is collected without a state file");
}

/// A key file that others can read is refused before anything is sent.
#[test]
fn a_key_that_others_can_read_is_not_used() {
    let (place, sim) = (Place::new(), simulate(email()));
    let path = place.path("key");
    fs::write(&path, crate::support::KEY).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut config = config(&sim, &place);
    let inputs = std::mem::take(&mut config.inputs);
    config.inputs = inputs.into_iter().map(|input| input.without("api_key")).collect();
    let config = config.with(&[("api_key_file", &path.display().to_string())]);
    let ending = Host::start(&place, &config, &[]).wait_end();
    assert_eq!(ending.code, Some(255), "{}", ending.log);
    assert!(ending.log.contains("can be read by others"), "{}", ending.log);
    assert!(sim.requests().is_empty());

    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let host = Host::start(&place, &config, &[]);
    wait_delivered(&host, &sim, &place.out());
    // Opened to others while it runs, it is used no more, and one line says why.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let line = host.wait_log("the API key is not to be had");
    assert!(line.contains("can be read by others") && line.contains("chmod 600"), "{line}");
    host.stop();
}
