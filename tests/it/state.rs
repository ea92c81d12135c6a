//! What can become of the state file while the plugin runs, and what the plugin makes of it.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trendmicro_sim::{EmailConfig, Sim};

use crate::support::{Books, Form, Host, Place, config, email, simulate, wait, wait_delivered};

/// A vendor with a steady stream of news.
fn busy() -> Sim {
    simulate(EmailConfig { live_per_second: 30.0, ..email() })
}

/// Runs until `harm` was done to the state file in the midst of live records and `says` was logged;
/// then a restart, and everything must have arrived once.
fn survives(what: &str, harm: impl Fn(&Place), says: &str) {
    let (place, sim) = (Place::new(), busy());
    let config = config(&sim, &place);
    let host = Host::start(&place, &config, &[]);
    wait("some records", || host.log_tail(), || (records(&sim, &place) > 300).then_some(()));
    harm(&place);
    host.wait_log(says);
    let now = records(&sim, &place);
    wait("more records", || host.log_tail(), || (records(&sim, &place) > now + 50).then_some(()));
    host.stop();
    let host = Host::start(&place, &config, &[]);
    std::thread::sleep(Duration::from_secs(2));
    sim.stop_live();
    wait_delivered(&host, &sim, &place.out());
    host.stop();
    Books::of(&sim, &place.out(), Form::Envelope).assert_exact(what);
}

fn records(sim: &Sim, place: &Place) -> usize {
    Books::of(sim, &place.out(), Form::Envelope).by_tag.values().sum()
}

/// The files beside the state file whose names say that they were set aside.
fn set_aside(place: &Place) -> Vec<PathBuf> {
    let all = fs::read_dir(place.path("state.db").parent().unwrap()).unwrap();
    let paths = all.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_string_lossy().contains("state.db.damaged")).collect()
}

#[test]
fn a_state_file_that_is_removed_is_written_anew_and_nothing_comes_twice() {
    survives("removed", |place| fs::remove_file(place.path("state.db")).unwrap(), "written anew");
}

#[test]
fn a_state_file_that_is_replaced_is_set_aside() {
    let replace = |place: &Place| {
        fs::write(place.path("other"), "an older copy, or anything").unwrap();
        fs::rename(place.path("other"), place.path("state.db")).unwrap();
    };
    survives("replaced", replace, "was set aside");
}

/// A damaged file at the start: nothing is known, so everything that the vendor has comes again, and
/// nothing is missed, although the plugin was to look back for no more than a minute.
#[test]
fn a_state_file_that_is_damaged_at_the_start_costs_copies_and_no_record() {
    let (place, sim) = (Place::new(), simulate(email()));
    let config = config(&sim, &place);
    let host = Host::start(&place, &config, &[]);
    let some = || (records(&sim, &place) > 100).then_some(());
    wait("some records", || host.log_tail(), some);
    host.kill();
    damage(&place.path("state.db"));
    let config = config.with(&[("lookback", "1m")]);
    let host = Host::start(&place, &config, &[]);
    host.wait_log("is set aside as");
    wait_delivered(&host, &sim, &place.out());
    host.stop();
    Books::of(&sim, &place.out(), Form::Envelope).assert_complete("after the damage");
    assert_eq!(set_aside(&place).iter().filter(|path| !has_companion_name(path)).count(), 1);
}

fn has_companion_name(path: &Path) -> bool {
    let name = path.to_string_lossy();
    name.ends_with("-wal") || name.ends_with("-journal")
}

/// Overwrites all but the header, whatever SQLite keeps in the file and in its journal.
fn damage(path: &Path) {
    let wal = path.with_file_name("state.db-wal");
    for (path, from) in [(path, 100), (&wal, 0)] {
        let Ok(length) = fs::metadata(path).map(|metadata| metadata.len()) else { continue };
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&vec![0xa5; length.saturating_sub(from) as usize], from).unwrap();
    }
}
