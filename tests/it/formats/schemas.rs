//! JSON Schemas of every format and product under `docs/schemas`: made of the tables and of what is
//! published about ECS and OCSF, so a target that neither has, or of another type, shows here.

use std::collections::BTreeMap;
use std::fs;

use in_trendmicro::config::{EcsMapping, Format};
use in_trendmicro::connector::PRODUCTS;
use in_trendmicro::envelope::Style;
use in_trendmicro::format::table::{Convert, Fill, Literal, Row};
use in_trendmicro::format::{self, ecs, ocsf};
use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::golden::FORMATS;
use super::{PAGES, assert_file, events, every_stream, fixture, root};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
/// The schema calls this one a list; Sekoia.io's page, and who reads its records, have one text.
const PLAIN: &str = "email.from.address";
/// OCSF's pattern of a mail address.
const EMAIL: &str = "^[a-zA-Z0-9!#$%&'*+-/=?^_`{|}~.]+@[a-zA-Z0-9-]+\\.[a-zA-Z0-9-.]+$";
/// What ECS allows in fields that classify.
const ALLOWED: &[(&str, &[&str])] = &[
    ("event.kind", &["alert", "asset", "enrichment", "event", "metric", "state", "signal"]),
    ("event.category", &["email", "file", "host", "malware"]),
    ("event.type", &["change", "end", "info", "start"]),
    ("event.outcome", &["failure", "success", "unknown"]),
    ("host.os.type", &["linux", "macos", "unix", "windows", "ios", "android"]),
];

/// The schema of a format and product.
pub fn validator(format: &str, product: &str) -> Validator {
    let load = |format: &str| -> Value {
        let path = root(&format!("docs/schemas/{format}-{product}.json"));
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let mut schema = load(format);
    if format == "envelope" {
        // The vendor's record lies in a file of its own.
        schema["$defs"]["record"] = load("raw");
        let around = schema["properties"].as_object_mut().unwrap();
        let source = around.values_mut().find(|member| member.get("$ref").is_some()).unwrap();
        *source = json!({ "$ref": "#/$defs/record" });
    }
    jsonschema::options().should_validate_formats(true).build(&schema).expect("a JSON Schema")
}

pub fn assert_valid(validator: &Validator, event: &Value) {
    let errors: Vec<String> = validator
        .iter_errors(event)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}\n{event:#}");
}

fn pretty(schema: &Value) -> String {
    serde_json::to_string_pretty(schema).unwrap() + "\n"
}

#[test]
fn every_golden_event_keeps_to_its_schema() {
    if super::updates() {
        return;
    }
    for page in PAGES {
        let (product, _) = page.split_once('.').unwrap();
        for (name, format) in FORMATS {
            let validator = validator(name, product);
            for tenant_name in [None, Some("acme".to_owned())] {
                let style = Style { tenant_name, ..Style::of(*format) };
                let text = fixture(&format!("{page}.page.json"));
                events(page, &text, &style).iter().for_each(|it| assert_valid(&validator, it));
            }
        }
        for (name, _) in FORMATS {
            let path = root(&format!("tests/fixtures/formats/{page}.changes.{name}.json"));
            let Ok(text) = fs::read_to_string(path) else { continue };
            let told: Vec<Value> = serde_json::from_str(&text).unwrap();
            told.iter().for_each(|event| assert_valid(&validator(name, product), event));
        }
    }
}

/// A schema that takes everything would find nothing.
#[test]
fn schemas_refuse_what_is_wrong() {
    let page = "email_security.accepted_traffic";
    let text = fixture(&format!("{page}.page.json"));
    for (name, format) in FORMATS {
        let validator = validator(name, "email_security");
        let event = &events(page, &text, &Style::of(*format))[0];
        let wrong: &[(&str, Value)] = match *name {
            "envelope" => &[("/event_id", json!("x")), ("/msg_class", json!("x"))],
            "raw" => &[("/size", json!("x")), ("/headerTo", json!("x"))],
            "ecs" => &[
                ("/event/kind", json!("x")),
                ("/source/ip", json!("x")),
                ("/@timestamp", json!("x")),
                ("/email/to/address", json!("x")),
                ("/email", json!({ "from_address": "x" })),
            ],
            _ => &[
                ("/time", json!("x")),
                ("/class_uid", json!(1)),
                ("/severity_id", json!(7)),
                ("/email", json!({})),
                ("/metadata/product", json!({ "x": 1 })),
            ],
        };
        for (path, value) in wrong {
            let mut event = event.clone();
            *event.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value.clone();
            assert!(!validator.is_valid(&event), "{name} {path}");
        }
    }
}

#[test]
fn the_schemas_are_those_of_the_tables() {
    for product in PRODUCTS {
        let write = |format: &str, schema: &Value| {
            assert_file(&format!("docs/schemas/{format}-{}.json", product.name), &pretty(schema));
        };
        write("envelope", &envelope(product.name));
        write("ecs", &of_ecs(product.name));
        write("ocsf", &of_ocsf(product.name));
    }
}

fn envelope(product: &str) -> Value {
    let (mut classes, mut category, mut source) = (Vec::new(), "", "");
    let mut members: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    every_stream(|of, stream| {
        if of == product {
            classes.push(stream.msg_class.clone());
            (category, source) = (stream.category, stream.shape.source);
            stream.members.iter().for_each(|(key, value)| {
                let values = members.entry(key).or_default();
                if !values.contains(value) {
                    values.push(value);
                }
            });
        }
    });
    classes.dedup();
    let mut properties = json!({
        "msg_class": { "enum": classes },
        "msg_origin": { "const": {
            "source": source, "vendor": "trendmicro", "category": category
        } },
        "tenant_name": { "type": "string" },
        "connector": { "type": "string" },
        "event_id": { "type": "string", "pattern": "^[0-9a-f]{32}$" },
        "change": { "enum": ["added", "changed", "removed"] },
    });
    for (key, values) in members {
        properties[key] = json!({ "enum": values });
    }
    properties[source] = json!({ "$ref": format!("raw-{product}.json") });
    json!({
        "$schema": DRAFT,
        "title": format!("{product}, format envelope"),
        "type": "object",
        "properties": properties,
        "required": ["msg_class", "msg_origin", "connector", "event_id", source],
        "additionalProperties": false,
    })
}

/// Every row of every stream of a product.
fn rows(product: &str, format: Format) -> Vec<&'static Row> {
    let mut rows: Vec<&'static Row> = Vec::new();
    every_stream(|of, stream| {
        if of == product {
            let tables = format::tables(format, EcsMapping::Full, &stream.shape).unwrap();
            for row in tables.into_iter().flatten() {
                if !rows.iter().any(|known| std::ptr::eq(*known, row)) {
                    rows.push(row);
                }
            }
        }
    });
    rows
}

fn is_list(fill: &Fill) -> bool {
    let is = |literal: &Literal| matches!(literal, Literal::Texts(_) | Literal::Numbers(_));
    match fill {
        Fill::List(_) | Fill::FirstList(_) | Fill::Related(_) => true,
        Fill::From(_, Convert::Each(_)) => true,
        Fill::Fixed(literal) | Fill::From(_, Convert::Classify(_, literal)) => is(literal),
        Fill::ByChange(changes) => is(&changes.none),
        _ => false,
    }
}

/// What the published list says of a field: its type, and whether it is a list.
fn ecs_field(facts: &str, name: &str) -> (String, bool) {
    let words = facts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = words.into_iter().find(|words| words[0] == name);
    let line = line.unwrap_or_else(|| panic!("ECS has no field {name}"));
    (line[1].to_owned(), line.get(2) == Some(&"array"))
}

fn of_ecs(product: &str) -> Value {
    let facts = fixture(&format!("ecs-{}.txt", ecs::VERSION));
    let mut schema = json!({ "type": "object", "properties": {}, "additionalProperties": false });
    for Row(target, fill) in rows(product, Format::Ecs) {
        if target.starts_with("trendmicro.") {
            continue;
        }
        let name = target.replace("[]", "");
        if let Some(label) = name.strip_prefix("labels.") {
            // Labels have names of their own, and are texts.
            assert_eq!(ecs_field(&facts, "labels").0, "object");
            put(&mut schema, &format!("labels.{label}"), json!({ "type": "string" }));
            continue;
        }
        if let Fill::From(_, Convert::Each(inner)) = fill {
            assert_eq!(ecs_field(&facts, &name), ("nested".to_owned(), true));
            for Row(member, fill) in *inner {
                let leaf = ecs_leaf(&facts, &format!("{name}.{member}"), fill);
                put(&mut schema, &format!("{target}[].{member}"), leaf);
            }
            continue;
        }
        put(&mut schema, target, ecs_leaf(&facts, &name, fill));
    }
    schema["properties"]["trendmicro"] = json!({ "type": "object" });
    schema["required"] = json!(["@timestamp", "ecs", "event", "message", "observer"]);
    titled(schema, format!("{product}, format ecs, Elastic Common Schema {}", ecs::VERSION))
}

fn ecs_leaf(facts: &str, name: &str, fill: &Fill) -> Value {
    let (kind, wants_list) = ecs_field(facts, name);
    assert!(is_list(fill) == wants_list || name == PLAIN, "{name} is a list or not");
    let mut leaf = match kind.as_str() {
        "keyword" | "match_only_text" | "wildcard" => json!({ "type": "string" }),
        "date" => json!({ "type": "string", "format": "date-time" }),
        "ip" => json!({ "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] }),
        "long" => json!({ "type": "integer", "maximum": i64::MAX }),
        "boolean" => json!({ "type": "boolean" }),
        other => panic!("{name} has type {other}"),
    };
    if let Some((_, allowed)) = ALLOWED.iter().find(|(field, _)| *field == name) {
        leaf["enum"] = json!(allowed);
    }
    if is_list(fill) { json!({ "type": "array", "items": leaf, "minItems": 1 }) } else { leaf }
}

/// Puts a leaf at the end of a target's path.
fn put(schema: &mut Value, target: &str, leaf: Value) {
    let Some((name, rest)) = target.split_once('.') else {
        schema["properties"][target] = leaf;
        return;
    };
    let object = json!({ "type": "object", "properties": {}, "additionalProperties": false });
    let (name, is_list) = name.strip_suffix("[]").map_or((name, false), |name| (name, true));
    let inner = &mut schema["properties"][name];
    if inner.is_null() {
        *inner = if is_list { json!({ "type": "array", "items": object }) } else { object };
    }
    put(if is_list { &mut inner["items"] } else { inner }, rest, leaf);
}

fn titled(schema: Value, title: String) -> Value {
    let mut out = Map::new();
    out.insert("$schema".to_owned(), json!(DRAFT));
    out.insert("title".to_owned(), json!(title));
    out.extend(schema.as_object().unwrap().clone());
    Value::Object(out)
}

fn of_ocsf(product: &str) -> Value {
    let facts: Value =
        serde_json::from_str(&fixture(&format!("ocsf-{}.json", ocsf::VERSION))).unwrap();
    let mut classes: Vec<&str> = Vec::new();
    let mut class = "";
    for Row(target, fill) in rows(product, Format::Ocsf) {
        if let ("class_uid", Fill::Fixed(Literal::Number(uid))) = (*target, fill) {
            class = match uid {
                4009 => "email_activity",
                2004 => "detection_finding",
                5001 => "inventory_info",
                other => panic!("{other} is no class of ours"),
            };
            if !classes.contains(&class) {
                classes.push(class);
            }
        }
        assert_is_published(&facts, class, target, fill);
    }
    let mut defs = Map::new();
    classes.iter().for_each(|class| define(&facts, class, &mut defs));
    for class in &classes {
        let uid = match *class {
            "email_activity" => 4009,
            "detection_finding" => 2004,
            _ => 5001,
        };
        defs[*class]["properties"]["class_uid"] = json!({ "const": uid });
        defs[*class]["properties"]["category_uid"] = json!({ "const": uid / 1000 });
        let activities = defs[*class]["properties"]["activity_id"]["enum"].as_array().unwrap();
        let types = activities.iter().map(|id| uid * 100 + id.as_u64().unwrap());
        defs[*class]["properties"]["type_uid"] = json!({ "enum": types.collect::<Vec<_>>() });
    }
    let class = |name: &str| json!({ "$ref": format!("#/$defs/{name}") });
    let title = format!("{product}, format ocsf, OCSF {}", ocsf::VERSION);
    let schema = match classes.as_slice() {
        [only] => json!({ "$ref": class(only)["$ref"], "$defs": defs }),
        [one, other] => json!({
            "if": { "properties": { "class_uid": defs[*one]["properties"]["class_uid"] } },
            "then": class(one),
            "else": class(other),
            "$defs": defs,
        }),
        more => panic!("{more:?}"),
    };
    titled(schema, title)
}

/// Every step of a target is an attribute of the object before it, and a list where that is one.
fn assert_is_published(facts: &Value, class: &str, target: &str, fill: &Fill) {
    // The rows before the class are of another one; each is looked at with its own.
    let mut object = if class.is_empty() { "email_activity" } else { class };
    for name in target.split('.') {
        if object == "object" || name == "*" {
            return;
        }
        let (name, is_one) = name.strip_suffix("[]").map_or((name, false), |name| (name, true));
        let known = ["email_activity", "detection_finding", "inventory_info"];
        let of = |object: &str| facts["types"][object].get(name).cloned();
        // Rows that classes share stand with the first of them.
        let attribute = of(object).or_else(|| known.iter().find_map(|class| of(class)));
        let attribute = attribute.unwrap_or_else(|| panic!("OCSF's {object} has no {name}"));
        let is_last = target.ends_with(name);
        let wants_list = attribute["list"] == json!(true);
        let wraps = matches!(fill, Fill::From(_, Convert::Wrapped(..)));
        assert!(
            is_one == wants_list || (is_last && (is_list(fill) || wraps) == wants_list),
            "{target} of {object} is a list or not"
        );
        object = facts["types"]
            .as_object()
            .unwrap()
            .get_key_value(attribute["type"].as_str().unwrap())
            .map_or("object", |(name, _)| name);
    }
}

/// The schema of an object, and of all that it refers to.
fn define(facts: &Value, object: &str, defs: &mut Map<String, Value>) {
    if defs.contains_key(object) {
        return;
    }
    defs.insert(object.to_owned(), Value::Null);
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, fact) in facts["types"][object].as_object().unwrap() {
        if name == "$at_least_one" {
            continue;
        }
        let kind = fact["type"].as_str().unwrap();
        let mut leaf = match kind {
            "string_t" | "hostname_t" | "url_t" | "uuid_t" | "file_hash_t" => {
                json!({ "type": "string" })
            }
            // The published pattern, and the addresses with a quoted or international local part
            // that it forgets.
            "email_t" => json!({
                "type": "string",
                "pattern": format!(
                    "{EMAIL}|^(\"[^\"]*\"|[^\\s<>\"@]+)@[a-zA-Z0-9-]+\\.[a-zA-Z0-9-.]+$"
                ),
            }),
            "ip_t" => {
                json!({ "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] })
            }
            "mac_t" => json!({
                "type": "string", "pattern": "^([0-9A-Fa-f]{2}[:-]){5}([0-9A-Fa-f]{2})$"
            }),
            "integer_t" | "long_t" | "timestamp_t" => {
                json!({ "type": "integer", "maximum": i64::MAX })
            }
            "port_t" => json!({ "type": "integer", "minimum": 0, "maximum": 65535 }),
            "boolean_t" => json!({ "type": "boolean" }),
            "object" => json!({ "type": "object" }),
            other => {
                define(facts, other, defs);
                json!({ "$ref": format!("#/$defs/{other}") })
            }
        };
        if let Some(values) = fact.get("enum") {
            leaf["enum"] = values.clone();
        }
        if fact["list"] == json!(true) {
            leaf = json!({ "type": "array", "items": leaf, "minItems": 1 });
        }
        if fact["required"] == json!(true) {
            required.push(name.clone());
        }
        properties.insert(name.clone(), leaf);
    }
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    if let Some(one) = facts["types"][object].get("$at_least_one") {
        let any = one.as_array().unwrap().iter().map(|name| json!({ "required": [name] }));
        schema["anyOf"] = any.collect();
    }
    defs[object] = schema;
}
