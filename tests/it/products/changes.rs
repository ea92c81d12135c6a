//! Inventories by their changes, with `emit: changes`: whoever replays what was delivered has the
//! inventory as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use trendmicro_sim::{Fault, FaultKind, Mutation, Sim, When, canonical};

use super::account::for_each_event;
use super::around;
use super::inventories::{both, simulate};
use crate::support::{Config, Host, Place, wait};

const CONTENT_TYPES: [&str; 3] = ["agents", "servers", "computers"];
const KILLS: usize = 12;
const SEED: u64 = 0x6368_616e_6765;

/// Content type and name of an entity.
type Entity = (String, String);

/// One event: what happened to whom.
type News = (String, Entity);

/// The vendor's side: which entities are gone. The simulator's ledger does not tell, since it keeps
/// what it has ever shown.
#[derive(Default)]
struct Model(BTreeSet<Entity>);

impl Model {
    /// Changes each inventory; returns what is to be told of that.
    fn mutate(&mut self, sim: &Sim, mutation: Mutation) -> BTreeSet<News> {
        let mut expected = BTreeSet::new();
        for content_type in CONTENT_TYPES {
            let mutated = sim.mutate(content_type, mutation).expect("an inventory");
            let entity = |name: String| (content_type.to_owned(), name);
            self.0.extend(mutated.removed.iter().cloned().map(entity));
            let lists = [
                ("added", mutated.added),
                ("removed", mutated.removed),
                ("changed", mutated.changed),
            ];
            for (change, names) in lists {
                expected.extend(names.into_iter().map(|name| (change.to_owned(), entity(name))));
            }
        }
        expected
    }

    /// The inventory as it is. Later states of an entity stand behind earlier ones.
    fn present(&self, sim: &Sim) -> BTreeMap<Entity, String> {
        let mut present = BTreeMap::new();
        sim.for_each_record(|record| {
            let payload: Value = serde_json::from_str(&record.json).expect("JSON");
            let id = payload["ID"].as_u64().map(|id| id.to_string());
            let name = || payload["entity_id"].as_str().unwrap_or_default().to_owned();
            let entity = (record.content_type.clone(), id.unwrap_or_else(name));
            present.insert(entity, canonical(&payload));
        });
        present.retain(|entity, _| !self.0.contains(entity));
        present
    }
}

/// What was delivered, in its order.
fn news(place: &Place) -> Vec<News> {
    let mut news = Vec::new();
    for_each_event(&place.out(), |event| {
        let entity = (event.content_type(), event.entity());
        news.push((event.text("change").to_owned(), entity));
    });
    news
}

/// The inventory as a receiver has it.
fn replayed(place: &Place) -> BTreeMap<Entity, String> {
    let mut replayed = BTreeMap::new();
    for_each_event(&place.out(), |event| {
        let entity = (event.content_type(), event.entity());
        match event.text("change") {
            "removed" => {
                let members = event.payload().as_object().map(serde_json::Map::len);
                assert_eq!(members, Some(1), "more than its name: {}", event.payload());
                replayed.remove(&entity);
            }
            "added" | "changed" => {
                replayed.insert(entity, canonical(event.payload()));
            }
            other => panic!("change is \"{other}\": {}", event.record),
        }
    });
    replayed
}

fn config(sim: &Sim, place: &Place) -> Config {
    let changes = [("interval", "1s"), ("emit", "changes")];
    around(sim, place, both(sim, place)).with(&changes)
}

fn wait_replayed(host: &Host, sim: &Sim, place: &Place, model: &Model) {
    let explain = || {
        let (present, replayed) = (model.present(sim), replayed(place));
        let differs = |(entity, text): &(&Entity, &String)| present.get(*entity) != Some(*text);
        let stale: Vec<_> = replayed.iter().filter(differs).map(|(entity, _)| entity).collect();
        let absent = |entity: &&Entity| !replayed.contains_key(*entity);
        let missing: Vec<_> = present.keys().filter(absent).collect();
        format!("stale {stale:?}\nmissing {missing:?}\n{}", host.log_tail())
    };
    let is_same = || (replayed(place) == model.present(sim)).then_some(());
    wait("the replayed changes to be the inventory", explain, is_same);
}

/// Waits for so many whole sweeps of each inventory from now on.
fn wait_sweeps(host: &Host, sim: &Sim, sweeps: usize) {
    let count = |content_type: &str| {
        let all = sim.sweeps();
        let own = all.iter().filter(|sweep| sweep.content_type == content_type);
        // A sweep of computers ends with an empty page.
        own.filter(|sweep| content_type != "computers" || sweep.entities == 0).count()
    };
    // The one that is under way may have begun before.
    let wanted = CONTENT_TYPES.map(|content_type| count(content_type) + sweeps + 1);
    let is_enough = || CONTENT_TYPES.iter().zip(wanted).all(|(it, wanted)| count(it) >= wanted);
    wait("more sweeps", || host.log_tail(), || is_enough().then_some(()));
}

/// What was told since the first `told` is what was expected, each once.
fn assert_told(place: &Place, told: usize, expected: BTreeSet<News>) {
    let mut fresh = news(place)[told..].to_vec();
    fresh.sort();
    assert_eq!(fresh, expected.into_iter().collect::<Vec<_>>());
}

#[test]
fn each_change_is_told_once_and_nothing_else_is() {
    let (place, sim) = (Place::new(), simulate());
    let mut model = Model::default();
    let host = Host::start(&place, &config(&sim, &place), &[]);
    wait_replayed(&host, &sim, &place, &model);
    let first = news(&place);
    assert_eq!(first.len() as u64, sim.counts().visible);
    assert!(first.iter().all(|(change, _)| change == "added"), "{first:?}");
    for _ in 0..3 {
        let told = news(&place).len();
        let expected = model.mutate(&sim, Mutation { add: 3, remove: 2, change: 4 });
        assert_eq!(expected.len(), 27);
        wait_sweeps(&host, &sim, 2);
        wait_replayed(&host, &sim, &place, &model);
        assert_told(&place, told, expected);
    }
    host.stop();
}

/// A tick of the host may take longer than from one sweep to the next.
#[test]
fn what_is_on_its_way_is_not_told_again() {
    let (place, sim) = (Place::new(), simulate());
    let mut model = Model::default();
    let host = Host::start(&place, &config(&sim, &place), &["--tick-ms", "1500"]);
    wait_replayed(&host, &sim, &place, &model);
    wait_sweeps(&host, &sim, 1);
    let told = news(&place).len();
    let expected = model.mutate(&sim, Mutation { add: 3, remove: 4, change: 5 });
    wait_sweeps(&host, &sim, 2);
    wait_replayed(&host, &sim, &place, &model);
    assert_told(&place, told, expected);
    host.stop();
}

#[test]
fn a_sweep_that_is_cut_off_tells_of_no_removals() {
    let (place, sim) = (Place::new(), simulate());
    let mut model = Model::default();
    let slow = FaultKind::Slow { delay: Duration::from_millis(100) };
    sim.faults().add(Fault::new("", When::Always, slow));
    let host = Host::start(&place, &config(&sim, &place), &[]);
    wait_replayed(&host, &sim, &place, &model);
    let told = news(&place).len();
    // From the second page on, and for the lists of Apex Central at once.
    let is_begun = || {
        let requests = sim.requests();
        let last = requests.iter().rfind(|request| request.route.contains("computers"));
        last.is_some_and(|last| last.token.as_deref() == Some("0")).then_some(())
    };
    wait("a sweep of computers to begin", || host.log_tail(), is_begun);
    let cuts = ["/WebApp/", "/api/computers"]
        .map(|route| sim.faults().add(Fault::new(route, When::Always, FaultKind::TruncatedJson)));
    let wait_struck = |times| {
        let is_struck = || cuts.iter().all(|&cut| sim.faults().fired(cut) >= times);
        wait("failures", || host.log_tail(), || is_struck().then_some(()));
    };
    // No answer from before the cut is under way any more.
    wait_struck(1);
    let expected = model.mutate(&sim, Mutation { add: 0, remove: 5, change: 5 });
    wait_struck(4);
    let removed = |(change, _): &News| change == "removed";
    assert!(!news(&place)[told..].iter().any(removed), "removed by a sweep that was cut off");
    sim.faults().clear();
    wait_replayed(&host, &sim, &place, &model);
    host.stop();
    assert_told(&place, told, expected);
}

#[test]
fn a_restart_tells_only_what_is_different() {
    let (place, sim) = (Place::new(), simulate());
    let mut model = Model::default();
    let config = config(&sim, &place);
    let mut told = 0;
    let mut expected = BTreeSet::new();
    for run in 0..3 {
        let host = Host::start(&place, &config, &[]);
        wait_sweeps(&host, &sim, 2);
        wait_replayed(&host, &sim, &place, &model);
        host.stop();
        if run > 0 {
            assert_told(&place, told, expected);
        }
        told = news(&place).len();
        // The last restart finds nothing new.
        expected = match run {
            0 => model.mutate(&sim, Mutation { add: 4, remove: 3, change: 2 }),
            _ => BTreeSet::new(),
        };
    }
}

/// What the receiver has and the state file does not: it must not stay with the receiver for ever.
#[test]
fn what_was_told_and_not_committed_is_corrected() {
    let (place, sim) = (Place::new(), simulate());
    let mut model = Model::default();
    let config = config(&sim, &place);
    // Nothing is confirmed before the next tick.
    let host = Host::start(&place, &config, &["--tick-ms", "4000"]);
    wait_replayed(&host, &sim, &place, &model);
    host.kill();
    model.mutate(&sim, Mutation { add: 0, remove: 5, change: 5 });
    let host = Host::start(&place, &config, &[]);
    wait_sweeps(&host, &sim, 2);
    wait_replayed(&host, &sim, &place, &model);
    host.stop();
}

#[test]
fn kill_9_at_any_moment_leaves_the_inventory_as_it_is() {
    let (place, sim) = (Place::new(), simulate());
    let mut model = Model::default();
    let config = config(&sim, &place)
        .service("storage.path", &place.text("storage"))
        .with(&[("storage.type", "filesystem")]);
    let mut random = fastrand::Rng::with_seed(SEED);
    for kill in 0..KILLS {
        let host = Host::start(&place, &config, &[]);
        if kill == 0 {
            // Before the host has noted a position it cannot tell what it has delivered itself.
            let noted = || place.path("storage/host.pos").exists().then_some(());
            wait("the host's position", || host.log_tail(), noted);
        }
        host.wait_log("records are appended");
        sleep(Duration::from_millis(random.u64(0..500)));
        model.mutate(&sim, Mutation { add: 6, remove: 3, change: 6 });
        sleep(Duration::from_millis(random.u64(0..1500)));
        host.kill();
        model.mutate(&sim, Mutation { add: 2, remove: 5, change: 2 });
    }
    let host = Host::start(&place, &config, &[]);
    wait_sweeps(&host, &sim, 2);
    wait_replayed(&host, &sim, &place, &model);
    host.stop();
}
