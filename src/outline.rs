//! Where the members of a record lie, noted while it is written as MessagePack.
//!
//! To know a record by the whole of it, its keys must be sorted, and its name and time found. All of
//! that would have to walk the record again, each map once for every map around it, and to find out
//! anew what its writer knew.

use std::ops::Range;

use crate::msgpack::{self, Place, View};

/// Maps of more members are sorted anew each time.
const ALIKE_PAIRS_MAX: usize = 128;
/// Of maps of as many pairs, so many orders are tried before they are sorted anew.
const ORDERS_KEPT: usize = 4;

/// The maps of one record, or of another value.
#[derive(Default)]
pub struct Outline {
    /// In the order of their beginnings, so that a map is followed by those in it.
    maps: Vec<Map>,
    /// Those of each map that is written, sorted.
    pairs: Vec<Pair>,
    /// Those of the maps that are being written, the innermost last.
    open: Vec<Pair>,
    /// By the number of pairs, those of the last maps of so many.
    orders: Vec<Orders>,
    /// By their nesting, whether the last map had more pairs than the shortest header can tell.
    are_large: Vec<bool>,
    depth: usize,
    /// Those of the outermost map in their own order, if they are kept.
    members: Vec<MemberPlace>,
    keeps_members: bool,
}

/// Where a member of a record lies, from the record's first byte on. It ends where the next begins.
#[derive(Clone, Copy)]
pub struct MemberPlace {
    /// Its key.
    pub key: Place,
    /// Its value.
    pub value: Place,
}

/// The last orders of maps of as many pairs, which mostly have the same keys, or the same but for one.
#[derive(Default)]
struct Orders {
    known: [Vec<u32>; ORDERS_KEPT],
    next: usize,
}

struct Map {
    start: Place,
    /// Where its first key begins.
    content: Place,
    end: Place,
    pairs: Range<usize>,
    /// The first map that is not in this one.
    next: u32,
}

#[derive(Clone, Copy)]
struct Pair {
    prefix: Prefix,
    key: Place,
    value: Place,
    end: Place,
    /// The maps in the value, from this one up to the other.
    maps: u32,
    maps_end: u32,
}

/// The first eight bytes of a key or a text, which nearly always tell it from the others, as a number
/// that sorts as they do.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix(u64);

/// What was known of a record when a container of it began.
#[derive(Clone, Copy)]
pub struct Mark {
    maps: usize,
    pairs: usize,
    open: usize,
}

/// The keys that lead to a value, as MessagePack.
pub struct Path(Vec<Vec<u8>>);

impl Path {
    /// The path of these keys.
    #[must_use]
    pub fn new(keys: &[&str]) -> Self {
        let encoded = |key: &&str| {
            let mut out = Vec::new();
            msgpack::string(&mut out, key);
            out
        };
        Self(keys.iter().map(encoded).collect())
    }
}

impl Outline {
    /// Forgets the last record.
    pub fn clear(&mut self) {
        self.maps.clear();
        self.pairs.clear();
        self.open.clear();
        self.depth = 0;
        self.members.clear();
    }

    /// Keeps the members of the outermost map in their own order.
    pub fn keep_members(&mut self, keeps_members: bool) {
        self.keeps_members = keeps_members;
    }

    /// The members of the last record, if they are kept.
    #[must_use]
    pub fn members(&self) -> &[MemberPlace] {
        &self.members
    }

    /// A container that is no map begins, or a value.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { maps: self.maps.len(), pairs: self.pairs.len(), open: self.open.len() }
    }

    /// A map begins.
    pub fn open(&mut self) -> Mark {
        let mark = self.mark();
        self.maps.push(Map { start: 0, content: 0, end: 0, pairs: 0..0, next: 0 });
        self.depth += 1;
        mark
    }

    /// Whether the map that began last probably has more pairs than the shortest header can tell.
    #[must_use]
    pub fn expects_large(&self) -> bool {
        self.are_large.get(self.depth).copied().unwrap_or_default()
    }

    /// Notes a member of the innermost map, whose key and value lie in `bytes` from here to their
    /// end; `before` was taken before the value was written.
    #[inline]
    pub fn member(&mut self, bytes: &[u8], prefix: Prefix, key: usize, value: usize, before: Mark) {
        self.open.push(Pair {
            prefix,
            key: key as Place,
            value: value as Place,
            end: bytes.len() as Place,
            maps: before.maps as u32,
            maps_end: self.maps.len() as u32,
        });
    }

    /// The map that began at `mark` ends at the end of `bytes`; `header` is what lies before its first
    /// key.
    pub fn close(&mut self, mark: Mark, header: Range<usize>, bytes: &[u8]) {
        let pairs = &self.open[mark.open..];
        self.note_size(pairs.len());
        let pairs = &self.open[mark.open..];
        let mut anew = Orders::default();
        let order = self.orders.get_mut(pairs.len()).unwrap_or(&mut anew).of(pairs, bytes);
        let first = self.pairs.len();
        self.pairs.extend(order.iter().map(|&i| pairs[i as usize]));
        if self.depth == 0 && self.keeps_members {
            let start = header.start as Place;
            let place =
                |pair: &Pair| MemberPlace { key: pair.key - start, value: pair.value - start };
            self.members.extend(pairs.iter().map(place));
        }
        self.open.truncate(mark.open);
        self.maps[mark.maps] = Map {
            start: header.start as Place,
            content: header.end as Place,
            end: bytes.len() as Place,
            pairs: first..self.pairs.len(),
            next: self.maps.len() as u32,
        };
    }

    /// The innermost map ends, with so many pairs.
    fn note_size(&mut self, pairs: usize) {
        if self.are_large.len() <= self.depth {
            self.are_large.resize(self.depth + 1, false);
        }
        self.are_large[self.depth] = pairs > msgpack::FIXED_COUNT_MAX;
        self.depth -= 1;
        if self.orders.len() <= pairs && pairs <= ALIKE_PAIRS_MAX {
            self.orders.resize_with(pairs + 1, Orders::default);
        }
    }

    /// What was written since `mark` has moved by so many bytes.
    #[cold]
    pub fn shift(&mut self, mark: Mark, bytes: isize) {
        let bytes = bytes as i32;
        for map in &mut self.maps[mark.maps..] {
            for place in [&mut map.start, &mut map.content, &mut map.end] {
                *place = place.wrapping_add_signed(bytes);
            }
        }
        let pairs = self.pairs[mark.pairs..].iter_mut();
        for pair in pairs.chain(&mut self.open[mark.open..]) {
            for place in [&mut pair.key, &mut pair.value, &mut pair.end] {
                *place = place.wrapping_add_signed(bytes);
            }
        }
    }

    /// The value at the end of a path that is not empty; the first of a repeated key.
    #[must_use]
    pub fn find<'a>(&self, bytes: &'a [u8], path: &Path) -> Option<View<'a>> {
        let (last, parents) = path.0.split_last()?;
        let mut map = self.maps.first()?;
        for key in parents {
            let pair = self.pair(map, bytes, key)?;
            map = self.maps[pair.maps()].first().filter(|inner| inner.start == pair.value)?;
        }
        let pair = self.pair(map, bytes, last)?;
        Some(View::new(&bytes[pair.value as usize..pair.end as usize]))
    }

    fn pair(&self, map: &Map, bytes: &[u8], key: &[u8]) -> Option<&Pair> {
        let prefix = Prefix::of(key, key.len());
        let is_it = |pair: &&Pair| pair.prefix == prefix && pair.key(bytes) == key;
        self.pairs[map.pairs.clone()].iter().find(is_it)
    }

    /// Appends the record that lies in `bytes` with the keys of every map sorted, so that equal
    /// records give equal bytes.
    pub fn write_sorted(&self, bytes: &[u8], out: &mut Vec<u8>) {
        if let Some(map) = self.maps.first() {
            self.write_map(map, bytes, out);
        }
    }

    /// Pieces that lie side by side are copied together.
    fn write_map(&self, map: &Map, bytes: &[u8], out: &mut Vec<u8>) {
        let mut piece = map.start..map.content;
        for pair in &self.pairs[map.pairs.clone()] {
            if pair.key != piece.end {
                msgpack::piece(out, bytes, piece);
                piece = pair.key..pair.value;
            }
            if pair.maps != pair.maps_end {
                piece.start = self.write_maps(pair.maps(), piece.start, bytes, out);
            }
            piece.end = pair.end;
        }
        msgpack::piece(out, bytes, piece);
    }

    /// Appends what begins at `start` up to the end of the last of these maps; returns where that is.
    fn write_maps(
        &self,
        maps: Range<usize>,
        start: Place,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Place {
        let (mut at, mut next) = (start, maps.start);
        while next < maps.end {
            let map = &self.maps[next];
            msgpack::piece(out, bytes, at..map.start);
            self.write_map(map, bytes, out);
            (at, next) = (map.end, map.next as usize);
        }
        at
    }

    /// Notes the maps of a value that lies in `bytes`.
    fn scan(&mut self, bytes: &[u8], value: View<'_>) {
        let at = |view: View<'_>| view.range_in(bytes).start;
        let end = value.range_in(bytes).end;
        if value.is_map() {
            let map = self.open();
            let content = value.pairs().next().map_or(end, |(key, _)| at(key));
            for (key, value) in value.pairs() {
                let before = self.mark();
                self.scan(bytes, value);
                let end = value.range_in(bytes).end;
                let prefix = Prefix::of(&bytes[at(key)..], key.bytes().len());
                self.member(&bytes[..end], prefix, at(key), at(value), before);
            }
            self.close(map, at(value)..content, &bytes[..end]);
        } else {
            value.items().for_each(|item| self.scan(bytes, item));
        }
    }
}

/// Appends a value with the keys of every map in it sorted.
pub fn write_sorted(value: View<'_>, out: &mut Vec<u8>) {
    let mut outline = Outline::default();
    outline.scan(value.bytes(), value);
    let at = outline.write_maps(0..outline.maps.len(), 0, value.bytes(), out);
    out.extend_from_slice(&value.bytes()[at as usize..]);
}

impl Pair {
    fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.key as usize..self.value as usize]
    }

    fn maps(&self) -> Range<usize> {
        self.maps as usize..self.maps_end as usize
    }
}

impl Orders {
    /// The order of these pairs by their keys; equal keys stay in theirs.
    fn of(&mut self, pairs: &[Pair], bytes: &[u8]) -> &[u32] {
        let at = self.known.iter().position(|order| is_order(order, pairs)).unwrap_or_else(|| {
            let at = self.next;
            self.next = (at + 1) % ORDERS_KEPT;
            sort(&mut self.known[at], pairs, bytes);
            at
        });
        &self.known[at]
    }
}

/// Whether the prefixes alone say that `order` is the order of the pairs.
#[inline]
fn is_order(order: &[u32], pairs: &[Pair]) -> bool {
    let prefixes = order.iter().map(|&i| pairs[i as usize].prefix);
    order.len() == pairs.len() && prefixes.is_sorted_by(|one, two| one < two)
}

#[cold]
fn sort(order: &mut Vec<u32>, pairs: &[Pair], bytes: &[u8]) {
    order.clear();
    order.extend(0..pairs.len() as u32);
    let prefix = |i: u32| pairs[i as usize].prefix;
    order.sort_unstable_by_key(|&i| (prefix(i), i));
    for alike in order.chunk_by_mut(|&one, &two| prefix(one) == prefix(two)) {
        let key = |i: u32| (pairs[i as usize].key(bytes), i);
        alike.sort_unstable_by(|&one, &two| key(one).cmp(&key(two)));
    }
}

impl Prefix {
    /// That of a key of that length; what follows it may lie behind.
    #[inline]
    #[must_use]
    pub fn of(bytes: &[u8], length: usize) -> Self {
        Self(match bytes.first_chunk() {
            Some(first) if length >= 8 => u64::from_be_bytes(*first),
            Some(first) => u64::from_be_bytes(*first) >> (64 - 8 * length) << (64 - 8 * length),
            None => {
                let key = bytes.iter().take(length).rev();
                key.fold(0, |sum, &byte| sum >> 8 | u64::from(byte) << 56)
            }
        })
    }

    /// That of a short text of that length, with which `text` begins. It is not read from where it was
    /// just written, which processors are slow to do.
    #[inline(always)]
    #[must_use]
    pub fn of_short_text(text: [u8; 8], length: usize) -> Self {
        let header = u64::from(msgpack::short_text_header(length)) << 56;
        let beyond = u64::MAX >> 8 >> (8 * length.min(7));
        Self((header | u64::from_be_bytes(text) >> 8) & !beyond)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rmpv::Value;

    use super::*;

    fn sorted(value: &Value) -> Value {
        match value {
            Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
            Value::Map(pairs) => {
                let encoded = |key: &Value| {
                    let mut out = Vec::new();
                    rmpv::encode::write_value(&mut out, key).unwrap();
                    out
                };
                let mut pairs: Vec<_> =
                    pairs.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
                pairs.sort_by_key(|(key, _)| encoded(key));
                Value::Map(pairs)
            }
            other => other.clone(),
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<u64>().prop_map(Value::from), ".{0,40}".prop_map(Value::from)];
        leaf.prop_recursive(4, 100, 20, |inner| {
            let key = "[a-c]{0,12}|.{0,90}".prop_map(Value::from);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
                prop::collection::vec((key, inner), 0..20).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_map_is_sorted_and_nothing_else_changes(value in value()) {
            let (mut before, mut after, mut expected) = (Vec::new(), Vec::new(), Vec::new());
            rmpv::encode::write_value(&mut before, &value).unwrap();
            rmpv::encode::write_value(&mut expected, &sorted(&value)).unwrap();
            write_sorted(View::new(&before), &mut after);
            prop_assert_eq!(after, expected);
        }
    }
}
