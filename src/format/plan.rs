//! A mapping table, compiled for the events of one stream.
//!
//! The vendor's fields become slots that a record's members are put into, the targets a tree that is
//! written in order; what is the same in every event is encoded here and now.

use std::borrow::Cow;
use std::fmt;

use super::convert;
use super::table::{Changes, Convert, Fill, Literal, Ours, Pick, Row, Texts};
use crate::connector::Stream;
use crate::msgpack;

/// What is known of all events of a stream.
#[derive(Clone, Copy)]
pub struct About<'a> {
    /// Where they come from.
    pub stream: &'a Stream,
    /// The connector's name.
    pub connector: &'a str,
    /// `tenant_name`.
    pub tenant_name: Option<&'a str>,
    /// Whether each says what happened to its record.
    pub has_change: bool,
}

/// Keys are mostly shorter.
const PIECE_BYTES: usize = 32;

/// A compiled table.
#[derive(Default)]
pub struct Plan {
    pub(super) fields: Keys,
    /// So many values of them are kept; an object has a bit for each in 64.
    pub(super) slots: usize,
    /// So many more are needed for the objects in its lists.
    pub(super) room: usize,
    pub(super) nodes: Vec<Node>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a plan of {} fields", self.slots)
    }
}

/// The keys of an object that a plan looks for.
#[derive(Default)]
pub(super) struct Keys {
    /// By their length, which tells most of them apart.
    by_length: Vec<Vec<Key>>,
}

pub(super) struct Key {
    /// As MessagePack.
    name: Vec<u8>,
    ends: Ends,
    /// Where its value is kept; a key that only leads to others has none.
    pub(super) slot: Option<usize>,
    pub(super) inner: Keys,
}

/// A part of what is written: what stands before its value, and where that comes from.
pub(super) struct Node {
    /// The key, mostly. Where an object holds but one member, both their keys.
    pub(super) key: Piece,
    pub(super) what: What,
}

/// What a node writes.
pub(super) enum What {
    /// So many members that are the same in every event. They are the key.
    Fixed(usize),
    /// An object; its header, still open, is the key's last byte.
    Branch(Vec<Node>),
    /// The text in a slot, as it stands: most members are.
    Text(usize),
    /// What the text in a slot is converted to, if it is one.
    OfText(usize, &'static Convert),
    /// The first of these slots that can be converted.
    From(Box<[usize]>, &'static Convert),
    Ours(Ours),
    ByChange(&'static Changes),
    Time(usize),
    Each(usize, Box<Plan>),
    List(Box<[TextsOf]>),
    FirstList(Box<[TextsOf]>),
    Related(Box<[TextsOf]>),
    /// The members that found no home.
    Rest,
}

/// The texts of the value in a slot.
pub(super) struct TextsOf {
    pub(super) slot: usize,
    pub(super) pick: Pick,
    /// The key of the member that has them, as MessagePack; empty if the value itself has.
    pub(super) member: Vec<u8>,
}

/// A few bytes that are written often. They are filled up to whole blocks, which are copied without
/// a call.
#[derive(PartialEq)]
pub(super) struct Piece {
    first: [u8; PIECE_BYTES],
    more: Box<[[u8; PIECE_BYTES]]>,
    length: usize,
}

impl Piece {
    fn new(bytes: &[u8]) -> Self {
        let mut filled = bytes.to_vec();
        filled.resize(bytes.len().next_multiple_of(PIECE_BYTES).max(PIECE_BYTES), 0);
        let mut blocks = filled.as_chunks().0.to_vec();
        Self { first: blocks.remove(0), more: blocks.into(), length: bytes.len() }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    #[inline(always)]
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.length;
        out.extend_from_slice(&self.first);
        if self.length > PIECE_BYTES {
            self.more.iter().for_each(|block| out.extend_from_slice(block));
        }
        out.truncate(end);
    }
}

impl Plan {
    /// Compiles the rows; targets with the same beginning come to lie in one object, in the order in
    /// which they first appear.
    #[must_use]
    pub fn new(rows: impl IntoIterator<Item = &'static Row>, about: Option<About<'_>>) -> Self {
        let mut plan = Self::default();
        for Row(target, fill) in rows {
            let (path, name) = target.rsplit_once('.').unwrap_or(("", target));
            let Some(node) = plan.node(name, fill, about) else { continue };
            let path = path.split('.').filter(|key| !key.is_empty());
            branch(&mut plan.nodes, path).push(node);
        }
        rest_comes_last(&mut plan.nodes);
        plan.nodes = compact(plan.nodes);
        plan
    }

    fn node(&mut self, name: &str, fill: &'static Fill, about: Option<About<'_>>) -> Option<Node> {
        let mut key = Vec::new();
        msgpack::string(&mut key, name);
        let fixed = |value: &Literal| {
            let mut bytes = key.clone();
            let is_there = convert::literal(value, &mut bytes);
            is_there.then(|| Node { key: Piece::new(&bytes), what: What::Fixed(1) })
        };
        let what = match fill {
            Fill::Rest => What::Rest,
            Fill::Fixed(literal) => return fixed(literal),
            Fill::ByChange(changes) if about.is_none_or(|about| !about.has_change) => {
                return fixed(&changes.none);
            }
            Fill::Ours(ours) => match about.and_then(|about| constant(*ours, about)) {
                Some(Some(text)) => {
                    msgpack::string(&mut key, &text);
                    What::Fixed(1)
                }
                Some(None) => return None,
                None => What::Ours(*ours),
            },
            Fill::ByChange(changes) => What::ByChange(changes),
            Fill::Time(path) => What::Time(self.slot(path)),
            Fill::From(paths, Convert::Each(rows)) => {
                let plan = Self::new(*rows, None);
                self.room = self.room.max(plan.slots + plan.room);
                What::Each(self.slot(paths.first()?), Box::new(plan))
            }
            Fill::From([path], Convert::Text) => What::Text(self.slot(path)),
            Fill::From([path], convert) if convert::is_of_text(convert) => {
                What::OfText(self.slot(path), convert)
            }
            Fill::From(paths, convert) => {
                What::From(paths.iter().map(|path| self.slot(path)).collect(), convert)
            }
            Fill::List(texts) => What::List(self.slots_of(texts)),
            Fill::FirstList(texts) => What::FirstList(self.slots_of(texts)),
            Fill::Related(texts) => What::Related(self.slots_of(texts)),
        };
        Some(Node { key: Piece::new(&key), what })
    }

    fn slots_of(&mut self, texts: &'static [Texts]) -> Box<[TextsOf]> {
        let texts_of = |&Texts(path, name, pick): &Texts| {
            let mut member = Vec::new();
            if !name.is_empty() {
                msgpack::string(&mut member, name);
            }
            TextsOf { slot: self.slot(path), pick, member }
        };
        texts.iter().map(texts_of).collect()
    }

    /// Where the value at `path` is kept.
    fn slot(&mut self, path: &'static str) -> usize {
        let mut keys = &mut self.fields;
        let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
        for name in parents.split('.').filter(|name| !name.is_empty()) {
            keys = &mut keys.entry(name).inner;
        }
        let slots = &mut self.slots;
        *keys.entry(last).slot.get_or_insert_with(|| {
            *slots += 1;
            *slots - 1
        })
    }
}

/// A text that all events of a stream share: `Some(None)` if it is not set, `None` if each event has
/// its own.
fn constant<'a>(ours: Ours, about: About<'a>) -> Option<Option<Cow<'a, str>>> {
    let About { stream, connector, tenant_name, has_change } = about;
    Some(match ours {
        Ours::Tenant => tenant_name.map(Cow::from),
        Ours::Connector => Some(connector.into()),
        Ours::MsgClass => Some(stream.msg_class.as_str().into()),
        Ours::Source => Some(stream.shape.source.into()),
        Ours::Dataset => Some(format!("{}.{}", stream.shape.source, stream.content_type).into()),
        Ours::Member(name) => {
            let member = stream.members.iter().find(|(key, _)| *key == name);
            member.map(|&(_, value)| value.into())
        }
        Ours::Change if !has_change => None,
        _ => return None,
    })
}

/// The nodes at the end of a path of branches, which are made if they are missing.
fn branch<'a, 'p>(
    nodes: &'a mut Vec<Node>,
    mut path: impl Iterator<Item = &'p str>,
) -> &'a mut Vec<Node> {
    let Some(name) = path.next() else { return nodes };
    let (name, is_list) = name.strip_suffix("[]").map_or((name, false), |name| (name, true));
    let mut key = Vec::new();
    msgpack::string(&mut key, name);
    if is_list {
        msgpack::array(&mut key, 1);
    }
    let key = Piece::new(&key);
    let is_it = |node: &Node| matches!(node.what, What::Branch(_)) && node.key == key;
    let at = nodes.iter().position(is_it).unwrap_or(nodes.len());
    if at == nodes.len() {
        nodes.push(Node { key, what: What::Branch(Vec::new()) });
    }
    match &mut nodes[at].what {
        What::Branch(nodes) => branch(nodes, path),
        _ => unreachable!("a branch was found or made there"),
    }
}

/// What is left is known when all else is written. Returns whether the rest is among the nodes.
fn rest_comes_last(nodes: &mut [Node]) -> bool {
    let holds_rest = |node: &mut Node| match &mut node.what {
        What::Rest => true,
        What::Branch(nodes) => rest_comes_last(nodes),
        _ => false,
    };
    let Some(at) = nodes.iter_mut().position(holds_rest) else { return false };
    nodes[at..].rotate_left(1);
    true
}

/// Makes one piece of constants that stand side by side, and of what can only be written together.
fn compact(nodes: Vec<Node>) -> Vec<Node> {
    let mut compacted: Vec<Node> = Vec::new();
    for mut node in nodes {
        if let What::Branch(inner) = node.what {
            node = Node::of_branch(&node.key, compact(inner));
        }
        match (compacted.last_mut(), &node.what) {
            (Some(Node { key, what: What::Fixed(count) }), What::Fixed(more)) => {
                *key = Piece::new(&[key.bytes(), node.key.bytes()].concat());
                *count += more;
            }
            _ => compacted.push(node),
        }
    }
    compacted
}

impl Node {
    /// An object. One with constants alone is a constant; one that is there if, and only if, its one
    /// member is, is written with that.
    fn of_branch(key: &Piece, mut nodes: Vec<Self>) -> Self {
        let mut bytes = key.bytes();
        let (count, is_one) = match nodes.as_slice() {
            [Self { what: What::Fixed(count), .. }] => (*count, true),
            [only] => (1, only.what.is_member()),
            _ => (0, false),
        };
        let what = match nodes.pop() {
            Some(only) if is_one => {
                msgpack::map(&mut bytes, count);
                bytes.extend(only.key.bytes());
                if matches!(only.what, What::Fixed(_)) { What::Fixed(1) } else { only.what }
            }
            last => {
                nodes.extend(last);
                msgpack::open(&mut bytes);
                What::Branch(nodes)
            }
        };
        Self { key: Piece::new(&bytes), what }
    }
}

impl What {
    /// Whether it is one member that comes out of the record, or nothing.
    fn is_member(&self) -> bool {
        match self {
            Self::Fixed(_) | Self::Rest => false,
            // These know a value for what the record does not say.
            Self::From(_, Convert::Classify(..) | Convert::ClassifyStart(..)) => false,
            _ => true,
        }
    }
}

/// The first and the last eight bytes of a key: all of a short one.
type Ends = (u64, u64);

/// Up to this length, the ends are the whole key.
const ENDS_BYTES: usize = 16;

#[inline]
fn ends(key: &[u8]) -> Ends {
    if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk()) {
        return (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
    }
    if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk()) {
        return (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into());
    }
    (key.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)), 0)
}

impl Keys {
    fn entry(&mut self, name: &str) -> &mut Key {
        let mut key = Vec::new();
        msgpack::string(&mut key, name);
        if self.by_length.len() <= key.len() {
            self.by_length.resize_with(key.len() + 1, Vec::new);
        }
        let keys = &mut self.by_length[key.len()];
        let at = keys.iter().position(|known| known.name == key).unwrap_or_else(|| {
            let ends = ends(&key);
            keys.push(Key { name: key, ends, slot: None, inner: Self::default() });
            keys.len() - 1
        });
        &mut keys[at]
    }

    /// The key that is this MessagePack.
    #[inline(always)]
    pub(super) fn find(&self, name: &[u8]) -> Option<&Key> {
        let ends = ends(name);
        let is_it = |key: &&Key| key.ends == ends && (name.len() <= ENDS_BYTES || key.name == name);
        self.by_length.get(name.len())?.iter().find(is_it)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_length.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EcsMapping, Format};
    use crate::connector::{PRODUCTS, Settings};

    #[test]
    fn no_table_asks_for_more_fields_than_an_object_has_bits() {
        let settings = Settings { authority: "localhost".to_owned(), ..Settings::default() };
        let mut most = 0;
        for product in PRODUCTS {
            for stream in (product.connect)(&settings).streams() {
                for format in [Format::Ecs, Format::Ocsf] {
                    let tables = crate::format::tables(format, EcsMapping::Full, &stream.shape);
                    let rows = tables.into_iter().flatten().flatten();
                    // Those of objects in lists are fewer than all together.
                    let plan = Plan::new(rows, None);
                    most = most.max(plan.slots + plan.room);
                }
            }
        }
        assert!((1..=64).contains(&most), "{most}");
    }
}
