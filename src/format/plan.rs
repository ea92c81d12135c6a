//! A mapping table, compiled for the events of one stream.
//!
//! The vendor's fields become slots that a record's members are put into, the targets a tree that is
//! written in order; what is the same in every event is encoded here and now.

use std::borrow::Cow;
use std::fmt;

use super::convert;
use super::table::{Changes, Convert, Fill, Literal, Ours, Row, Texts};
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
pub struct Plan {
    pub(super) fields: Keys,
    pub(super) slots: usize,
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
    /// By the length of the name, which tells most keys apart.
    by_length: Vec<Vec<Key>>,
}

pub(super) struct Key {
    name: &'static str,
    ends: Ends,
    /// Where its value is kept; a key that only leads to others has none.
    pub(super) slot: Option<usize>,
    pub(super) inner: Keys,
}

/// A part of what is written.
pub(super) enum Node {
    /// Members that are the same in every event.
    Fixed { bytes: Piece, count: usize },
    /// An object, or a list of one object, with its key.
    Branch { key: Piece, is_list: bool, nodes: Vec<Node> },
    /// A member that is the text in a slot, as it stands: most members are.
    Text { key: Piece, slot: usize },
    /// Any other member.
    Leaf { key: Piece, leaf: Leaf },
    /// The members that found no home.
    Rest,
}

/// A few bytes that are written often. They are filled up to whole blocks, which are copied without
/// a call.
#[derive(PartialEq)]
pub(super) struct Piece {
    first: [u8; PIECE_BYTES],
    more: Vec<[u8; PIECE_BYTES]>,
    length: usize,
}

impl Piece {
    fn new(bytes: &[u8]) -> Self {
        let mut filled = bytes.to_vec();
        filled.resize(bytes.len().next_multiple_of(PIECE_BYTES).max(PIECE_BYTES), 0);
        let mut blocks = filled.as_chunks().0.to_vec();
        Self { first: blocks.remove(0), more: blocks, length: bytes.len() }
    }

    #[inline]
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.length;
        out.extend_from_slice(&self.first);
        self.more.iter().for_each(|block| out.extend_from_slice(block));
        out.truncate(end);
    }
}

pub(super) enum Leaf {
    Ours(Ours),
    ByChange(&'static Changes),
    Time(usize),
    From(Vec<usize>, &'static Convert),
    Each(usize, Plan),
    List(Vec<(usize, &'static Texts)>),
    FirstList(Vec<(usize, &'static Texts)>),
    Related(Vec<(usize, &'static Texts)>),
}

impl Plan {
    /// Compiles the rows; targets with the same beginning come to lie in one object, in the order in
    /// which they first appear.
    #[must_use]
    pub fn new(rows: impl IntoIterator<Item = &'static Row>, about: Option<About<'_>>) -> Self {
        let mut plan = Self { fields: Keys::default(), slots: 0, nodes: Vec::new() };
        for Row(target, fill) in rows {
            let (path, name) = target.rsplit_once('.').unwrap_or(("", target));
            let Some(node) = plan.node(name, fill, about) else { continue };
            let path = path.split('.').filter(|key| !key.is_empty());
            branch(&mut plan.nodes, path).push(node);
        }
        rest_comes_last(&mut plan.nodes);
        join_constants(&mut plan.nodes);
        plan
    }

    fn node(&mut self, name: &str, fill: &'static Fill, about: Option<About<'_>>) -> Option<Node> {
        let mut key = Vec::new();
        msgpack::string(&mut key, name);
        let fixed = |value: &Literal| {
            let mut bytes = key.clone();
            let is_there = convert::literal(value, &mut bytes);
            is_there.then(|| Node::Fixed { bytes: Piece::new(&bytes), count: 1 })
        };
        let leaf = match fill {
            Fill::Rest => return Some(Node::Rest),
            Fill::Fixed(literal) => return fixed(literal),
            Fill::ByChange(changes) if about.is_none_or(|about| !about.has_change) => {
                return fixed(&changes.none);
            }
            Fill::Ours(ours) => match about.and_then(|about| constant(*ours, about)) {
                Some(Some(text)) => {
                    let mut bytes = key;
                    msgpack::string(&mut bytes, &text);
                    return Some(Node::Fixed { bytes: Piece::new(&bytes), count: 1 });
                }
                Some(None) => return None,
                None => Leaf::Ours(*ours),
            },
            Fill::ByChange(changes) => Leaf::ByChange(changes),
            Fill::Time(path) => Leaf::Time(self.slot(path)),
            Fill::From(paths, Convert::Each(rows)) => {
                Leaf::Each(self.slot(paths.first()?), Self::new(*rows, None))
            }
            Fill::From([path], Convert::Text) => {
                return Some(Node::Text { key: Piece::new(&key), slot: self.slot(path) });
            }
            Fill::From(paths, convert) => {
                Leaf::From(paths.iter().map(|path| self.slot(path)).collect(), convert)
            }
            Fill::List(texts) => Leaf::List(self.slots_of(texts)),
            Fill::FirstList(texts) => Leaf::FirstList(self.slots_of(texts)),
            Fill::Related(texts) => Leaf::Related(self.slots_of(texts)),
        };
        Some(Node::Leaf { key: Piece::new(&key), leaf })
    }

    fn slots_of(&mut self, texts: &'static [Texts]) -> Vec<(usize, &'static Texts)> {
        texts.iter().map(|texts| (self.slot(texts.0), texts)).collect()
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
    let mut wanted = Vec::new();
    msgpack::string(&mut wanted, name);
    let wanted = Piece::new(&wanted);
    let is_it = |node: &Node| matches!(node, Node::Branch { key, .. } if *key == wanted);
    let at = nodes.iter().position(is_it).unwrap_or_else(|| {
        nodes.push(Node::Branch { key: wanted, is_list, nodes: Vec::new() });
        nodes.len() - 1
    });
    match &mut nodes[at] {
        Node::Branch { nodes, .. } => branch(nodes, path),
        _ => unreachable!("a branch was found or made there"),
    }
}

/// What is left is known when all else is written. Returns whether the rest is among the nodes.
fn rest_comes_last(nodes: &mut [Node]) -> bool {
    let holds_rest = |node: &mut Node| match node {
        Node::Rest => true,
        Node::Branch { nodes, .. } => rest_comes_last(nodes),
        Node::Fixed { .. } | Node::Text { .. } | Node::Leaf { .. } => false,
    };
    let Some(at) = nodes.iter_mut().position(holds_rest) else { return false };
    nodes[at..].rotate_left(1);
    true
}

/// Makes one piece of constants that stand side by side, and of objects that hold nothing else.
fn join_constants(nodes: &mut Vec<Node>) {
    let mut joined: Vec<Node> = Vec::new();
    for mut node in nodes.drain(..) {
        if let Node::Branch { nodes, .. } = &mut node {
            join_constants(nodes);
        }
        match (joined.last_mut(), node.constant()) {
            (Some(Node::Fixed { bytes, count }), Some((more, others))) => {
                let mut both = Vec::new();
                bytes.write(&mut both);
                *bytes = Piece::new(&[both, more].concat());
                *count += others;
            }
            (_, Some((bytes, count))) => {
                joined.push(Node::Fixed { bytes: Piece::new(&bytes), count });
            }
            (_, None) => joined.push(node),
        }
    }
    *nodes = joined;
}

impl Node {
    /// The members that it comes to in every event, and how many they are.
    fn constant(&self) -> Option<(Vec<u8>, usize)> {
        let mut out = Vec::new();
        let (key, is_list, inner, inner_count) = match self {
            Self::Fixed { bytes, count } => {
                bytes.write(&mut out);
                return Some((out, *count));
            }
            Self::Branch { key, is_list, nodes } => match nodes.as_slice() {
                [Self::Fixed { bytes, count }] => (key, *is_list, bytes, *count),
                _ => return None,
            },
            Self::Text { .. } | Self::Leaf { .. } | Self::Rest => return None,
        };
        key.write(&mut out);
        if is_list {
            msgpack::array(&mut out, 1);
        }
        msgpack::map(&mut out, inner_count);
        inner.write(&mut out);
        Some((out, 1))
    }

    /// Whether it is the same in every event.
    pub(super) fn is_fixed(&self) -> bool {
        match self {
            Self::Fixed { .. } => true,
            Self::Branch { nodes, .. } => nodes.iter().all(Self::is_fixed),
            Self::Text { .. } | Self::Leaf { .. } | Self::Rest => false,
        }
    }
}

/// The first and the last eight bytes of a name: all of a short one.
type Ends = (u64, u64);

/// Up to this length, the ends are the whole name.
const ENDS_BYTES: usize = 16;

#[inline]
fn ends(name: &[u8]) -> Ends {
    match (name.first_chunk(), name.last_chunk()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (name.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)), 0),
    }
}

impl Keys {
    fn entry(&mut self, name: &'static str) -> &mut Key {
        if self.by_length.len() <= name.len() {
            self.by_length.resize_with(name.len() + 1, Vec::new);
        }
        let keys = &mut self.by_length[name.len()];
        let at = keys.iter().position(|key| key.name == name).unwrap_or_else(|| {
            let ends = ends(name.as_bytes());
            keys.push(Key { name, ends, slot: None, inner: Self::default() });
            keys.len() - 1
        });
        &mut keys[at]
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<&Key> {
        let ends = ends(name);
        let is_it = |key: &&Key| {
            key.ends == ends && (name.len() <= ENDS_BYTES || key.name.as_bytes() == name)
        };
        self.by_length.get(name.len())?.iter().find(is_it)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_length.is_empty()
    }
}
