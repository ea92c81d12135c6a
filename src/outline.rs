//! Where the members of a record lie, noted while it is written as MessagePack.
//!
//! To know a record by the whole of it, its keys must be sorted, and its name and time found. All of
//! that would have to walk the record again, each map once for every map around it, and to find out
//! anew what its writer knew.

use std::ops::Range;

use crate::msgpack::{self, View};

/// Pieces of a record up to this are copied without a call.
const SHORT_BYTES: usize = 64;

/// The maps of one record, or of another value.
#[derive(Default)]
pub struct Outline {
    /// In the order of their beginnings, so that a map is followed by those in it.
    maps: Vec<Map>,
    /// Those of each map that is written, sorted.
    pairs: Vec<Pair>,
    /// Those of the maps that are being written, the innermost last.
    open: Vec<Pair>,
    /// By their nesting, the order of the pairs of the last map that was written.
    orders: Vec<Vec<Place>>,
    depth: usize,
}

struct Map {
    start: usize,
    /// Where its first key begins.
    content: usize,
    end: usize,
    pairs: Range<usize>,
    /// The first map that is not in this one.
    next: usize,
}

#[derive(Clone)]
struct Pair {
    /// The first eight bytes of the key, which nearly always tell it from the others.
    prefix: u64,
    key: usize,
    value: usize,
    end: usize,
    /// The maps in the value.
    maps: Range<usize>,
}

/// A pair in its map's order: its prefix and, below that, its index. Numbers sort much faster than
/// what has to be looked up.
type Place = u128;

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

    /// Notes a member of the innermost map, whose key and value lie in `bytes` from here to their
    /// end; `before` was taken before the value was written.
    #[inline]
    pub fn member(&mut self, bytes: &[u8], key: usize, value: usize, before: Mark) {
        let prefix = prefix(&bytes[key..], value - key);
        let maps = before.maps..self.maps.len();
        self.open.push(Pair { prefix, key, value, end: bytes.len(), maps });
    }

    /// The map that began at `mark` ends at the end of `bytes`; `header` is what lies before its first
    /// key.
    pub fn close(&mut self, mark: Mark, header: Range<usize>, bytes: &[u8]) {
        self.depth -= 1;
        if self.orders.len() <= self.depth {
            self.orders.resize_with(self.depth + 1, Vec::new);
        }
        let order = &mut self.orders[self.depth];
        let pairs = &self.open[mark.open..];
        sort(order, pairs, bytes);
        let first = self.pairs.len();
        self.pairs.extend(order.iter().map(|&place| pairs[index(place)].clone()));
        self.open.truncate(mark.open);
        self.maps[mark.maps] = Map {
            start: header.start,
            content: header.end,
            end: bytes.len(),
            pairs: first..self.pairs.len(),
            next: self.maps.len(),
        };
    }

    /// What was written since `mark` has moved towards the end.
    pub fn shift(&mut self, mark: Mark, bytes: usize) {
        for map in &mut self.maps[mark.maps..] {
            map.start += bytes;
            map.content += bytes;
            map.end += bytes;
        }
        let pairs = self.pairs[mark.pairs..].iter_mut();
        for pair in pairs.chain(&mut self.open[mark.open..]) {
            pair.key += bytes;
            pair.value += bytes;
            pair.end += bytes;
        }
    }

    /// The value at the end of a path that is not empty; the first of a repeated key.
    #[must_use]
    pub fn find<'a>(&self, bytes: &'a [u8], path: &Path) -> Option<View<'a>> {
        let (last, parents) = path.0.split_last()?;
        let mut map = self.maps.first()?;
        for key in parents {
            let pair = self.pair(map, bytes, key)?;
            let is_it = |inner: &&Map| inner.start == pair.value && !pair.maps.is_empty();
            map = self.maps.get(pair.maps.start).filter(is_it)?;
        }
        let pair = self.pair(map, bytes, last)?;
        Some(View::new(&bytes[pair.value..pair.end]))
    }

    fn pair(&self, map: &Map, bytes: &[u8], key: &[u8]) -> Option<&Pair> {
        let prefix = prefix(key, key.len());
        let is_it = |pair: &&Pair| pair.prefix == prefix && bytes[pair.key..pair.value] == *key;
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
                append(out, bytes, piece);
                piece = pair.key..pair.value;
            }
            if !pair.maps.is_empty() {
                piece.start = self.write_maps(pair.maps.clone(), piece.start, bytes, out);
            }
            piece.end = pair.end;
        }
        append(out, bytes, piece);
    }

    /// Appends what begins at `start` up to the end of the last of these maps; returns where that is.
    fn write_maps(
        &self,
        maps: Range<usize>,
        start: usize,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> usize {
        let (mut at, mut next) = (start, maps.start);
        while next < maps.end {
            let map = &self.maps[next];
            append(out, bytes, at..map.start);
            self.write_map(map, bytes, out);
            (at, next) = (map.end, map.next);
        }
        at
    }

    /// Notes the maps of a value that lies in `bytes`.
    fn scan(&mut self, bytes: &[u8], value: View<'_>) {
        let at = |view: View<'_>| view.bytes().as_ptr().addr() - bytes.as_ptr().addr();
        let end = at(value) + value.bytes().len();
        if value.is_map() {
            let map = self.open();
            let content = value.pairs().next().map_or(end, |(key, _)| at(key));
            for (key, value) in value.pairs() {
                let before = self.mark();
                self.scan(bytes, value);
                let end = at(value) + value.bytes().len();
                self.member(&bytes[..end], at(key), at(value), before);
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
    out.extend_from_slice(&value.bytes()[at..]);
}

/// Appends a piece of `bytes`.
#[inline]
fn append(out: &mut Vec<u8>, bytes: &[u8], piece: Range<usize>) {
    match bytes[piece.start..].first_chunk::<SHORT_BYTES>() {
        Some(more) if piece.len() <= SHORT_BYTES => {
            let end = out.len() + piece.len();
            out.extend_from_slice(more);
            out.truncate(end);
        }
        _ => out.extend_from_slice(&bytes[piece]),
    }
}

/// Makes `order` the order of the pairs by their keys; equal keys stay in theirs.
///
/// Maps in one place of a record are mostly alike, so the last one's order is mostly right already.
fn sort(order: &mut Vec<Place>, pairs: &[Pair], bytes: &[u8]) {
    let place = |i: usize| Place::from(pairs[i].prefix) << 64 | i as Place;
    if order.len() == pairs.len() {
        order.iter_mut().for_each(|known| *known = place(index(*known)));
    } else {
        order.clear();
        order.extend((0..pairs.len()).map(place));
    }
    let prefix = |place: &Place| place >> 64;
    if order.is_sorted_by(|one, two| prefix(one) < prefix(two)) {
        return;
    }
    order.sort_unstable();
    for alike in order.chunk_by_mut(|one, two| prefix(one) == prefix(two)) {
        let key = |place: &Place| {
            let pair = &pairs[index(*place)];
            (&bytes[pair.key..pair.value], pair.key)
        };
        alike.sort_unstable_by(|one, two| key(one).cmp(&key(two)));
    }
}

/// Which pair it is.
fn index(place: Place) -> usize {
    (place & Place::from(u64::MAX)) as usize
}

/// The first eight bytes of a key of that length, as a number that sorts as they do. What follows
/// the key lies behind it.
#[inline]
fn prefix(bytes: &[u8], length: usize) -> u64 {
    match bytes.first_chunk() {
        Some(first) if length >= 8 => u64::from_be_bytes(*first),
        Some(first) => u64::from_be_bytes(*first) >> (64 - 8 * length) << (64 - 8 * length),
        None => {
            let key = bytes.iter().take(length).rev();
            key.fold(0, |sum, &byte| sum >> 8 | u64::from(byte) << 56)
        }
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
