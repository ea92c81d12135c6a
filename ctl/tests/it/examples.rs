//! The examples for several hosts: every YAML document can be read, and every property is legal.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use in_trendmicro::config::options::OPTIONS;
use in_trendmicro::config::{Config, Db};
use saphyr_parser::{Event, Parser, StrInput};

use crate::support::Place;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shared");
/// Properties of Fluent Bit's own.
const HOSTS_OWN: &[&str] = &["name", "tag", "storage.type", "storage.pause_on_chunks_overlimit"];

enum Node {
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(members) = self else { return None };
        members.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }
}

fn next<'a>(parser: &mut Parser<'a, StrInput<'a>>) -> Event<'a> {
    parser.next().unwrap().unwrap().0
}

fn node<'a>(first: Event<'a>, parser: &mut Parser<'a, StrInput<'a>>) -> Node {
    match first {
        Event::Scalar(text, ..) => Node::Text(text.into_owned()),
        Event::SequenceStart(..) => {
            let mut list = Vec::new();
            loop {
                match next(parser) {
                    Event::SequenceEnd => return Node::List(list),
                    event => list.push(node(event, parser)),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut members: Vec<(String, Node)> = Vec::new();
            loop {
                let key = match next(parser) {
                    Event::MappingEnd => return Node::Map(members),
                    event => node(event, parser).text().to_owned(),
                };
                assert!(members.iter().all(|(name, _)| *name != key), "{key} comes twice");
                let event = next(parser);
                members.push((key, node(event, parser)));
            }
        }
        other => panic!("{other:?}"),
    }
}

fn documents(text: &str) -> Vec<Node> {
    let mut parser = Parser::new_from_str(text);
    let mut found = Vec::new();
    loop {
        match next(&mut parser) {
            Event::StreamEnd => return found,
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            event => found.push(node(event, &mut parser)),
        }
    }
}

/// Reads a configuration as the plugin does; its files are another machine's.
fn assert_legal(config: &Node, place: &Place) {
    let inputs = config.get("pipeline").and_then(|pipeline| pipeline.get("inputs")).unwrap();
    let Node::List(inputs) = inputs else { panic!("inputs are a list") };
    assert_eq!(inputs.len(), 1);
    let Node::Map(members) = &inputs[0] else { panic!("an input is a map") };
    let connectors = inputs[0].get("connectors").unwrap().text().to_owned();
    let names: Vec<&str> = connectors.split(',').map(str::trim).collect();
    let mut properties = HashMap::new();
    for (key, value) in members {
        let own = names.iter().find_map(|name| key.strip_prefix(&format!("{name}.")));
        let plain = own.unwrap_or(key);
        let is_known = OPTIONS.iter().any(|option| option.name == plain);
        assert!(is_known || HOSTS_OWN.contains(&plain), "{key} is no property");
        let value = match plain {
            // An authority's certificate is looked at when a connection is made.
            "api_key_file" | "db_password_file" | "db_ca_file" => {
                let path = place.write(&key.replace('.', "-"), "a secret of the tests\n");
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
                path.display().to_string()
            }
            _ => value.text().to_owned(),
        };
        properties.insert(key.as_str(), value);
    }
    let config = Config::read(&|key: &str| properties.get(key).cloned()).unwrap();
    assert_eq!(config.connectors.len(), names.len());
    assert!(matches!(config.db, Some(Db::Server(_))), "hosts share a database");
}

fn read(name: &str) -> Vec<Node> {
    documents(&fs::read_to_string(Path::new(EXAMPLES).join(name)).unwrap())
}

#[test]
fn the_configuration_of_several_hosts_is_legal() {
    let found = read("fluent-bit.yaml");
    assert_legal(&found[0], &Place::new());
}

#[test]
fn the_manifests_can_be_read_and_their_configuration_is_legal() {
    let found = read("kubernetes.yaml");
    let kinds: Vec<&str> = found.iter().map(|node| node.get("kind").unwrap().text()).collect();
    assert_eq!(kinds, ["Secret", "ConfigMap", "StatefulSet", "PodDisruptionBudget"]);
    for document in &found {
        assert!(document.get("apiVersion").is_some());
        assert_eq!(document.get("metadata").unwrap().get("name").unwrap().text(), "trendmicro");
    }
    let config = found[1].get("data").unwrap().get("fluent-bit.yaml").unwrap().text();
    let config = documents(config).remove(0);
    assert_legal(&config, &Place::new());
    let grace = number(config.get("service").unwrap().get("grace").unwrap());
    assert_pods(&found[2], "2", grace);
    let instead = read("kubernetes-deployment.yaml");
    assert_eq!(instead[0].get("kind").unwrap().text(), "Deployment");
    assert_pods(&instead[0], "2", grace);
    let database = read("postgres.yaml");
    let kinds: Vec<&str> = database.iter().map(|node| node.get("kind").unwrap().text()).collect();
    assert_eq!(kinds, ["Secret", "Service", "StatefulSet"]);
    assert_pods(&database[2], "1", grace);
}

fn number(node: &Node) -> u32 {
    node.text().parse().unwrap()
}

/// So many pods, with time for a stop that may take `grace` seconds.
fn assert_pods(document: &Node, replicas: &str, grace: u32) {
    let spec = document.get("spec").unwrap();
    assert_eq!(spec.get("replicas").unwrap().text(), replicas);
    let pod = spec.get("template").unwrap().get("spec").unwrap();
    let patience = number(pod.get("terminationGracePeriodSeconds").unwrap());
    assert!(patience > grace, "a stop must have its time");
}
