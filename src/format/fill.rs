//! An event, written by a plan: one pass over the record's members finds the fields, one over the
//! targets writes them.
//!
//! A branch of the target is left out when nothing of the record reached it, so no object stands
//! there with constants alone.
//!
//! What an event needs on the way lies in a [`Scratch`] that the next one takes over: an allocation
//! for each record and each of its attachments would take as long as the passes.

use std::borrow::Cow;

use super::address::Memo;
use super::convert::{self, Taken, Tally};
use super::plan::{Key, Keys, Leaf, Node, Plan};
use super::table::{Convert, Ours, Pick, Texts};
use crate::clock::Time;
use crate::msgpack::{self, View};
use crate::record::Record;
use crate::sweep::Change;

/// One event to write.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    /// The record.
    pub record: &'a Record<'a>,
    /// Its body as it may be shown.
    pub body: View<'a>,
    /// Its JSON as it may be shown.
    pub text: &'a str,
    /// When the vendor was asked.
    pub polled: Time,
    /// What happened to it.
    pub change: Option<Change>,
}

impl Event<'_> {
    fn time(&self) -> Time {
        self.record.time.unwrap_or(self.polled)
    }
}

/// Memory that goes from event to event.
#[derive(Default)]
pub struct Scratch {
    slots: Vec<Slot<'static>>,
    rest: Vec<Rest<'static>>,
    texts: Vec<Cow<'static, [u8]>>,
    /// The last time that the vendor was asked, and how that is written: many events share it.
    polled: (Time, Vec<u8>),
}

/// What became of a record's members on the first pass. For the time of an object of a list, what
/// became of that object's members lies behind.
struct Found<'a> {
    slots: Vec<Slot<'a>>,
    rest: Vec<Rest<'a>>,
    /// Where those of the current object begin.
    base: Base,
    /// Texts to be sorted; empty between lists.
    texts: Vec<Cow<'a, [u8]>>,
    /// How the time of the poll is written.
    polled: &'a [u8],
    memo: Memo<'a>,
}

#[derive(Clone, Copy, Default)]
struct Base {
    slot: usize,
    rest: usize,
}

#[derive(Clone, Copy, Default)]
struct Slot<'a> {
    value: Option<View<'a>>,
    taken: Taken,
}

enum Rest<'a> {
    /// A member that the table does not know.
    Member(View<'a>, View<'a>),
    /// A member that the table knows; it stays if its target did not take it.
    Slot(View<'a>, usize),
    /// The members of this one follow, up to the matching `Close`.
    Open(View<'a>),
    Close,
}

/// How many members were written, and whether any came out of the record.
#[derive(Clone, Copy, Default)]
struct Written {
    members: usize,
    is_live: bool,
}

impl Plan {
    /// Writes the map of an event.
    pub fn write(&self, out: &mut Vec<u8>, event: &Event<'_>, scratch: &mut Scratch) {
        let Scratch { slots, rest, texts, polled } = std::mem::take(scratch);
        let polled = match polled {
            (at, text) if at == event.polled && !text.is_empty() => text,
            (_, mut text) => {
                text.clear();
                convert::time(event.polled, &mut text);
                text
            }
        };
        let mut found = Found {
            slots,
            rest,
            base: Base::default(),
            texts,
            polled: &polled,
            memo: Memo::default(),
        };
        found.object(self, event.body);
        let at = msgpack::open(out);
        let written = found.nodes(&self.nodes, out, Some(event));
        msgpack::close_map(out, at, written.members);
        let Found { slots, rest, texts, .. } = found;
        *scratch = Scratch {
            slots: emptied(slots, |_| Slot::default()),
            rest: emptied(rest, |_| Rest::Close),
            texts: emptied(texts, |_| Cow::default()),
            polled: (event.polled, polled),
        };
    }
}

/// An empty list in the memory of one that borrowed from a record. The standard library collects in
/// place what has the same layout; if it did not, only speed would be lost.
fn emptied<T, U>(mut list: Vec<T>, never: impl Fn(T) -> U) -> Vec<U> {
    list.clear();
    list.into_iter().map(never).collect()
}

impl<'a> Found<'a> {
    /// The first pass over an object.
    fn object(&mut self, plan: &Plan, object: View<'a>) {
        self.base = Base { slot: self.slots.len(), rest: self.rest.len() };
        self.slots.resize_with(self.base.slot + plan.slots, Slot::default);
        self.members(&plan.fields, object);
    }

    /// Writes one object of a list, unless nothing of it finds a place.
    fn element(&mut self, plan: &Plan, element: View<'a>, out: &mut Vec<u8>) -> Taken {
        let outer = self.base;
        self.object(plan, element);
        let start = out.len();
        let at = msgpack::open(out);
        let written = self.nodes(&plan.nodes, out, None);
        let taken = if written.is_live {
            msgpack::close_map(out, at, written.members);
            if self.is_all_taken() { Taken::All } else { Taken::Part }
        } else {
            out.truncate(start);
            Taken::Nothing
        };
        self.slots.truncate(self.base.slot);
        self.rest.truncate(self.base.rest);
        self.base = outer;
        taken
    }

    /// What the table knows goes into slots, all else to the rest.
    fn members(&mut self, keys: &Keys, object: View<'a>) {
        for (name, value) in object.pairs() {
            let known = name.as_bytes().and_then(|name| keys.find(name));
            let rest = match known {
                Some(key) if !key.inner.is_empty() && value.is_map() => {
                    self.rest.push(Rest::Open(name));
                    self.members(&key.inner, value);
                    Rest::Close
                }
                // Nobody asks for what says nothing, so it is looked at once, and here.
                Some(Key { slot: Some(_), .. }) if value.is_empty() => continue,
                Some(Key { slot: Some(slot), .. }) if self.slot(*slot).value.is_none() => {
                    self.slot(*slot).value = Some(value);
                    Rest::Slot(name, *slot)
                }
                _ => Rest::Member(name, value),
            };
            self.rest.push(rest);
        }
    }

    fn slot(&mut self, slot: usize) -> &mut Slot<'a> {
        &mut self.slots[self.base.slot + slot]
    }

    /// The value of a slot, which says something.
    fn value(&self, slot: usize) -> Option<View<'a>> {
        self.slots[self.base.slot + slot].value
    }

    fn take(&mut self, slot: usize, taken: Taken) {
        let slot = self.slot(slot);
        slot.taken = slot.taken.max(taken);
    }

    fn is_all_taken(&self) -> bool {
        self.rest[self.base.rest..].iter().all(|rest| match rest {
            Rest::Member(_, value) => value.is_empty(),
            Rest::Slot(_, slot) => !self.is_left(*slot),
            Rest::Open(_) | Rest::Close => true,
        })
    }

    fn is_left(&self, slot: usize) -> bool {
        self.slots[self.base.slot + slot].taken != Taken::All && self.value(slot).is_some()
    }

    /// The second pass; `event` is `None` for the objects of a list.
    fn nodes(&mut self, nodes: &[Node], out: &mut Vec<u8>, event: Option<&Event<'_>>) -> Written {
        let mut written = Written::default();
        for node in nodes {
            match node {
                Node::Fixed { bytes, count } => {
                    bytes.write(out);
                    written.members += count;
                }
                Node::Text { key, slot } => {
                    let is_text = |value: &View<'_>| value.as_bytes().is_some();
                    let Some(text) = self.value(*slot).filter(is_text) else { continue };
                    key.write(out);
                    msgpack::raw(out, text.bytes());
                    self.take(*slot, Taken::All);
                    written.members += 1;
                    written.is_live = true;
                }
                Node::Leaf { key, leaf } => {
                    let start = out.len();
                    key.write(out);
                    match self.leaf(leaf, out, event) {
                        Some(is_live) => {
                            written.members += 1;
                            written.is_live |= is_live;
                        }
                        None => out.truncate(start),
                    }
                }
                Node::Branch { key, is_list, nodes } => {
                    let start = out.len();
                    key.write(out);
                    if *is_list {
                        msgpack::array(out, 1);
                    }
                    let at = msgpack::open(out);
                    let inner = self.nodes(nodes, out, event);
                    let is_shown = inner.is_live || nodes.iter().all(Node::is_fixed);
                    if inner.members == 0 || !is_shown {
                        out.truncate(start);
                        continue;
                    }
                    msgpack::close_map(out, at, inner.members);
                    written.members += 1;
                    written.is_live |= inner.is_live;
                }
                Node::Rest => {
                    let members = self.rest(out);
                    written.members += members;
                    written.is_live |= members > 0;
                }
            }
        }
        written
    }

    /// Writes a leaf's value: `None` if there is none, else whether it comes out of the record.
    fn leaf(&mut self, leaf: &Leaf, out: &mut Vec<u8>, event: Option<&Event<'_>>) -> Option<bool> {
        match leaf {
            Leaf::Ours(ours) => self.ours(*ours, event?, out).then_some(true),
            Leaf::ByChange(changes) => {
                let literal = match event?.change {
                    None => &changes.none,
                    Some(Change::Added) => &changes.added,
                    Some(Change::Changed) => &changes.changed,
                    Some(Change::Removed) => &changes.removed,
                };
                convert::literal(literal, out).then_some(true)
            }
            Leaf::Time(slot) => {
                self.time(*slot, event?, out);
                Some(true)
            }
            Leaf::From(slots, convert) => self.first(slots, convert, out),
            Leaf::Each(slot, plan) => self.each(*slot, plan, out),
            Leaf::List(texts) => self.list(texts, out),
            Leaf::FirstList(texts) => {
                texts.iter().find_map(|(slot, of)| self.texts_of(*slot, of, out))
            }
            Leaf::Related(texts) => self.related(texts, out),
        }
    }

    /// The vendor's own text of the event's time, or the time in our words.
    fn time(&mut self, slot: usize, event: &Event<'_>, out: &mut Vec<u8>) {
        let is_plain = |value: &View<'_>| value.as_bytes().is_some_and(convert::is_plain_date);
        match self.value(slot).filter(|value| event.record.time.is_some() && is_plain(value)) {
            Some(value) => {
                msgpack::raw(out, value.bytes());
                self.take(slot, Taken::All);
            }
            None => convert::time(event.time(), out),
        }
    }

    fn first(&mut self, slots: &[usize], by: &Convert, out: &mut Vec<u8>) -> Option<bool> {
        for &slot in slots {
            let Some(value) = self.value(slot) else { continue };
            let taken = convert::convert(by, value, &mut self.memo, out);
            if taken != Taken::Nothing {
                self.take(slot, taken);
                return Some(true);
            }
        }
        match by {
            Convert::Classify(_, other) | Convert::ClassifyStart(_, other) => {
                convert::literal(other, out).then_some(false)
            }
            _ => None,
        }
    }

    fn each(&mut self, slot: usize, plan: &Plan, out: &mut Vec<u8>) -> Option<bool> {
        let value = self.value(slot).filter(View::is_array)?;
        let (start, mut count, mut tally) = (out.len(), 0, Tally::default());
        let at = msgpack::open(out);
        for element in value.items().filter(|&element| !element.is_empty()) {
            let taken = self.element(plan, element, out);
            count += usize::from(taken != Taken::Nothing);
            tally.add(taken);
        }
        if count == 0 {
            out.truncate(start);
            return None;
        }
        msgpack::close_array(out, at, count);
        self.take(slot, tally.total());
        Some(true)
    }

    fn list(&mut self, list: &[(usize, &Texts)], out: &mut Vec<u8>) -> Option<bool> {
        if let [(slot, of)] = list
            && of.2 != Pick::Sorted
        {
            return self.texts_of(*slot, of, out);
        }
        let mut texts = std::mem::take(&mut self.texts);
        for &(slot, of) in list {
            let Some(value) = self.value(slot) else { continue };
            let taken = convert::pick(of, value, &mut self.memo, |text| texts.push(text));
            self.take(slot, taken);
        }
        texts.sort_unstable();
        if list.len() > 1 {
            texts.dedup();
        }
        self.write_texts(texts, out)
    }

    /// One field's texts stay as they come.
    fn texts_of(&mut self, slot: usize, of: &Texts, out: &mut Vec<u8>) -> Option<bool> {
        let value = self.value(slot)?;
        let (start, mut count) = (out.len(), 0);
        let at = msgpack::open(out);
        let taken = convert::pick(of, value, &mut self.memo, |text| {
            count += 1;
            msgpack::text(out, &text);
        });
        if count == 0 {
            out.truncate(start);
            return None;
        }
        msgpack::close_array(out, at, count);
        self.take(slot, taken);
        Some(true)
    }

    fn related(&mut self, list: &[(usize, &Texts)], out: &mut Vec<u8>) -> Option<bool> {
        let mut texts = std::mem::take(&mut self.texts);
        for &(slot, of) in list {
            if let Some(value) = self.value(slot) {
                convert::pick(of, value, &mut self.memo, |text| texts.push(text));
            }
        }
        texts.sort_unstable();
        texts.dedup();
        self.write_texts(texts, out)
    }

    fn write_texts(&mut self, mut texts: Vec<Cow<'a, [u8]>>, out: &mut Vec<u8>) -> Option<bool> {
        let count = texts.len();
        if count > 0 {
            msgpack::array(out, count);
        }
        texts.drain(..).for_each(|text| msgpack::text(out, &text));
        self.texts = texts;
        (count > 0).then_some(true)
    }

    /// Writes what found no home; returns how many members that are.
    fn rest(&self, out: &mut Vec<u8>) -> usize {
        let mut count = 0;
        let mut open: Vec<(usize, usize, usize)> = Vec::new();
        let member = |out: &mut Vec<u8>, count: &mut usize, name: View<'_>, value: View<'_>| {
            msgpack::raw(out, name.bytes());
            msgpack::raw(out, value.bytes());
            *count += 1;
        };
        for rest in &self.rest[self.base.rest..] {
            match *rest {
                Rest::Member(name, value) => member(out, &mut count, name, value),
                Rest::Slot(name, slot) => {
                    if let Some(value) = self.value(slot).filter(|_| self.is_left(slot)) {
                        member(out, &mut count, name, value);
                    }
                }
                Rest::Open(name) => {
                    let start = out.len();
                    out.extend_from_slice(name.bytes());
                    open.push((start, msgpack::open(out), count));
                    count = 0;
                }
                Rest::Close => {
                    let Some((start, at, before)) = open.pop() else { continue };
                    if count == 0 {
                        out.truncate(start);
                        count = before;
                    } else {
                        msgpack::close_map(out, at, count);
                        count = before + 1;
                    }
                }
            }
        }
        count
    }

    /// Writes what we know of an event; returns whether there is anything.
    fn ours(&self, ours: Ours, event: &Event<'_>, out: &mut Vec<u8>) -> bool {
        match ours {
            Ours::Original => msgpack::string(out, event.text),
            Ours::EventId => {
                // A string of 32 bytes: the shortest that needs a length byte.
                let id = event.record.id.hex();
                out.extend([0xd9, id.len() as u8]);
                out.extend(id);
            }
            Ours::EventTime => convert::time(event.time(), out),
            Ours::EventMillis => msgpack::signed(out, event.time().timestamp_millis()),
            Ours::PollTime => out.extend_from_slice(self.polled),
            Ours::PollMillis => msgpack::signed(out, event.polled.timestamp_millis()),
            Ours::Change => match event.change {
                Some(change) => msgpack::string(out, change.name()),
                None => return false,
            },
            // The same in every event, and written when the plan was made.
            Ours::Tenant
            | Ours::Connector
            | Ours::MsgClass
            | Ours::Source
            | Ours::Dataset
            | Ours::Member(_) => return false,
        }
        true
    }
}
