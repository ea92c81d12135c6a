//! The YAML format. The host takes every scalar as text, whatever YAML would make of it.

use std::path::Path;
use std::sync::Arc;

use in_trendmicro::error::{Error, Result};
use saphyr_parser::{Event, Parser};

use super::{At, Entry, Kind, Reading, Section};

/// What the host takes as a map or list below an input, and keeps for itself.
const STRUCTURED: &[&str] = &["processors", "routes"];

/// Maps and lists within each other; the host itself takes no more than six.
const DEPTH_MAX: usize = 64;

/// A value with the line it begins in.
struct Node {
    line: usize,
    value: Value,
}

enum Value {
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn list(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    fn map(&self) -> &[(String, Node)] {
        match &self.value {
            Value::Map(pairs) => pairs,
            _ => &[],
        }
    }
}

/// Reads one file's text.
pub(super) fn read(reading: &mut Reading, file: &Arc<Path>, text: &str) -> Result<()> {
    let at = |line| At { file: Arc::clone(file), line };
    let root = Tree { parser: Parser::new_from_str(text), file, depth: 0 }.root()?;
    if !matches!(root.value, Value::Map(_)) {
        return Err(Error::config(format!(
            "{}: not a map with pipeline or service",
            at(root.line)
        )));
    }
    // Variables first: the host replaces them when everything is read.
    for (_, node) in root.map().iter().filter(|(key, _)| key == "env") {
        variables(reading, node, &at);
    }
    for (key, node) in root.map() {
        match key.as_str() {
            "includes" => {
                let folder = file.parent().map(Path::to_owned).unwrap_or_default();
                for item in node.list() {
                    let path = item.text().unwrap_or_default();
                    reading.include(path, &folder, &at(item.line))?;
                }
            }
            "service" => section(reading, Kind::Service, node, &at),
            "pipeline" => pipeline(reading, node, &at),
            _ => {}
        }
    }
    Ok(())
}

/// A map of names and values, or a list of maps with `name`, and `value` or `uri`.
fn variables(reading: &mut Reading, node: &Node, at: &dyn Fn(usize) -> At) {
    let mut set = |name: &str, value: &str, line| {
        if !reading.variables.set(name, value) {
            reading.note(&at(line), true, format!("{name}: its file cannot be read"));
        }
    };
    for (name, value) in node.map() {
        set(name, value.text().unwrap_or_default(), value.line);
    }
    for item in node.list() {
        let get = |key: &str| item.map().iter().find(|(k, _)| k == key)?.1.text();
        if let (Some(name), Some(value)) = (get("name"), get("uri").or(get("value"))) {
            set(name, value, item.line);
        }
    }
}

fn pipeline(reading: &mut Reading, node: &Node, at: &dyn Fn(usize) -> At) {
    for (key, list) in node.map() {
        let kind = match key.as_str() {
            "inputs" => Kind::Input,
            "outputs" => Kind::Output,
            _ => Kind::Other,
        };
        list.list().iter().for_each(|item| section(reading, kind, item, at));
    }
}

fn section(reading: &mut Reading, kind: Kind, node: &Node, at: &dyn Fn(usize) -> At) {
    let mut entries = Vec::new();
    for (key, value) in node.map() {
        let place = at(value.line);
        let Some(text) = value.text() else {
            if kind == Kind::Input && !STRUCTURED.contains(&key.as_str()) {
                let text = format!(
                    "{key}: a map or list, which the host does not take; write plain lines, such \
                     as {key}.region: eu"
                );
                reading.note(&place, true, text);
            }
            continue;
        };
        let (key, written) = (snake_case(key), text.trim_end().to_owned());
        entries.push(Entry { key, value: written.clone(), written, at: place });
    }
    reading.sections.push(Section { kind, at: at(node.line), entries });
}

/// The host writes `camelCase` anew as `camel_case`, if it begins small and has no underscore.
fn snake_case(key: &str) -> String {
    if key.contains('_') || !key.starts_with(|c: char| c.is_ascii_lowercase()) {
        return key.to_lowercase();
    }
    let mut out = String::new();
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Builds nodes from the parser's events.
struct Tree<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    file: &'a Path,
    depth: usize,
}

impl<'a> Tree<'a> {
    fn next(&mut self) -> Result<(Event<'a>, usize)> {
        let event = self.parser.next_event().transpose().map_err(|error| {
            let line = error.marker().line();
            Error::config(format!("{}:{line}: {}", self.file.display(), error.info()))
        })?;
        let (event, span) = event.unwrap_or((Event::StreamEnd, Default::default()));
        Ok((event, span.start.line()))
    }

    /// The first document.
    fn root(mut self) -> Result<Node> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_), _) => {}
                (Event::StreamEnd | Event::DocumentEnd, line) => {
                    return Ok(Node { line, value: Value::Map(Vec::new()) });
                }
                (event, line) => return self.node(event, line),
            }
        }
    }

    /// The value that begins with `event`.
    fn node(&mut self, event: Event<'a>, line: usize) -> Result<Node> {
        if self.depth >= DEPTH_MAX {
            let text = format!("maps and lists are nested more than {DEPTH_MAX} times");
            return Err(self.refused(line, &text));
        }
        self.depth += 1;
        let node = self.node_within(event, line);
        self.depth -= 1;
        node
    }

    fn node_within(&mut self, event: Event<'a>, line: usize) -> Result<Node> {
        let value = match event {
            Event::Scalar(text, ..) => Value::Text(text.into_owned()),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break Value::List(items),
                        (event, line) => items.push(self.node(event, line)?),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut pairs = Vec::new();
                loop {
                    match self.next()? {
                        (Event::MappingEnd, _) => break Value::Map(pairs),
                        (Event::Scalar(key, ..), line) => {
                            let (event, _) = self.next()?;
                            // A property is looked for where its key stands.
                            pairs.push((key.into_owned(), self.node(event, line)?));
                        }
                        (_, line) => return Err(self.refused(line, "a key that is no text")),
                    }
                }
            }
            _ => {
                return Err(self.refused(line, "anchors and aliases, which the host does not read"));
            }
        };
        Ok(Node { line, value })
    }

    fn refused(&self, line: usize, what: &str) -> Error {
        Error::config(format!("{}:{line}: {what}", self.file.display()))
    }
}
