//! An event, written by a plan: one pass over the record's members finds the fields, one over the
//! targets writes them.
//!
//! A branch of the target is left out when nothing of the record reached it, so no object stands
//! there with constants alone.
//!
//! What an event needs on the way lies in a [`Scratch`] that the next one takes over: an allocation
//! for each record and each of its attachments would take as long as the passes.

use super::address::Memo;
use super::convert::{self, Taken, Tally};
use super::found::{Found, Rest, Slot};
use super::lists::Once;
use super::plan::{Node, Piece, Plan, What};
use super::table::{Convert, Ours};
use crate::clock::Time;
use crate::msgpack::{self, View};
use crate::record::{MemberPlace, Record};
use crate::sweep::Change;

/// One event to write.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    /// The record.
    pub record: &'a Record<'a>,
    /// Its body as it may be shown.
    pub body: View<'a>,
    /// Where the members of that lie, if it is known.
    pub members: &'a [MemberPlace],
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
    slots: Vec<Slot>,
    rest: Vec<Rest>,
    once: Once,
    /// The last time that the vendor was asked, and how that is written: many events share it.
    polled: (Time, Vec<u8>),
}

/// What all objects of an event need.
pub(super) struct Aid<'a> {
    /// What is left of the record; behind it, what is left of the current object.
    pub(super) rest: &'a mut Vec<Rest>,
    /// Empty between lists.
    pub(super) once: &'a mut Once,
    pub(super) memo: Memo<'a>,
    /// When the vendor was asked, as it is written.
    polled: &'a [u8],
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
        let Scratch { slots, rest, once, polled: (polled, text) } = scratch;
        if *polled != event.polled || text.is_empty() {
            *polled = event.polled;
            text.clear();
            convert::time(event.polled, text);
        }
        rest.clear();
        slots.resize(self.slots + self.room, Slot::default());
        let (slots, room) = slots.split_at_mut(self.slots);
        let aid = &mut Aid { rest, once, memo: Memo::default(), polled: text };
        let body = event.body.bytes();
        let mut found = Found::new(body, slots, room, aid);
        found.object(self, event.body, event.members);
        let at = msgpack::open(out);
        let written = found.nodes(&self.nodes, out, Some(event));
        msgpack::close_map(out, at, written.members);
    }
}

impl<'a> Found<'_, 'a> {
    /// Writes one object of a list, unless nothing of it finds a place.
    fn element(&mut self, plan: &Plan, element: View<'a>, out: &mut Vec<u8>) -> Taken {
        let rest = self.aid.rest.len();
        let (slots, room) = self.room.split_at_mut(plan.slots);
        let mut found = Found::new(self.body, slots, room, self.aid);
        found.object(plan, element, &[]);
        found.aid.rest.truncate(rest);
        let start = out.len();
        let at = msgpack::open(out);
        let written = found.nodes(&plan.nodes, out, None);
        if !written.is_live {
            out.truncate(start);
            return Taken::Nothing;
        }
        msgpack::close_map(out, at, written.members);
        if found.is_whole() { Taken::All } else { Taken::Part }
    }

    /// The second pass; `event` is `None` for the objects of a list.
    fn nodes(&mut self, nodes: &[Node], out: &mut Vec<u8>, event: Option<&Event<'_>>) -> Written {
        let mut written = Written::default();
        for Node { key, what } in nodes {
            let start = out.len();
            let is_live = match what {
                What::Text(slot) => self.text(key, *slot, out),
                What::OfText(slot, by) => self.of_text(key, *slot, by, out),
                What::Fixed(count) => {
                    key.write(out);
                    written.members += count;
                    continue;
                }
                What::Branch(nodes) => {
                    key.write(out);
                    let at = out.len() - 1;
                    let inner = self.nodes(nodes, out, event);
                    if inner.is_live {
                        msgpack::close_map(out, at, inner.members);
                    }
                    inner.is_live.then_some(true)
                }
                What::Rest => {
                    let members = self.rest(out);
                    written.members += members;
                    written.is_live |= members > 0;
                    continue;
                }
                _ => {
                    key.write(out);
                    self.leaf(what, out, event)
                }
            };
            match is_live {
                Some(is_live) => {
                    written.members += 1;
                    written.is_live |= is_live;
                }
                None => out.truncate(start),
            }
        }
        written
    }

    /// Writes a member that is the text in a slot, if there is one.
    fn text(&mut self, key: &Piece, slot: usize, out: &mut Vec<u8>) -> Option<bool> {
        self.text_at(slot)?;
        self.take(slot, Taken::All);
        key.write(out);
        let Slot { start, end, .. } = self.slots[slot];
        msgpack::piece(out, self.body, start..end);
        Some(true)
    }

    /// Writes a member that is made of the text in a slot, if there is one.
    fn of_text(
        &mut self,
        key: &Piece,
        slot: usize,
        by: &Convert,
        out: &mut Vec<u8>,
    ) -> Option<bool> {
        let (text, value) = (self.text_at(slot)?, self.value(slot)?);
        key.write(out);
        let taken = convert::of_text(by, text, value, &mut self.aid.memo, out);
        self.take(slot, taken);
        (taken != Taken::Nothing).then_some(true)
    }

    /// Writes any other value: `None` if there is none, else whether it comes out of the record.
    #[inline(never)]
    fn leaf(&mut self, what: &What, out: &mut Vec<u8>, event: Option<&Event<'_>>) -> Option<bool> {
        match what {
            What::Ours(ours) => self.ours(*ours, event?, out).then_some(true),
            What::ByChange(changes) => {
                let literal = match event?.change {
                    None => &changes.none,
                    Some(Change::Added) => &changes.added,
                    Some(Change::Changed) => &changes.changed,
                    Some(Change::Removed) => &changes.removed,
                };
                convert::literal(literal, out).then_some(true)
            }
            What::Time(slot) => {
                self.time(*slot, event?, out);
                Some(true)
            }
            What::From(slots, convert) => self.first(slots, convert, out),
            What::Each(slot, plan) => self.each(*slot, plan, out),
            What::List(_) | What::FirstList(_) | What::Related(_) => self.texts(what, out),
            What::Fixed(_) | What::Branch(_) | What::Text(_) | What::OfText(..) | What::Rest => {
                None
            }
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
            let taken = convert::convert(by, value, &mut self.aid.memo, out);
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

    /// Writes what we know of an event; returns whether there is anything.
    fn ours(&self, ours: Ours, event: &Event<'_>, out: &mut Vec<u8>) -> bool {
        match ours {
            Ours::Original => msgpack::string(out, event.text),
            Ours::EventId => msgpack::text(out, &event.record.id.hex()),
            Ours::EventTime => match event.record.time {
                Some(time) => convert::time(time, out),
                None => msgpack::raw(out, self.aid.polled),
            },
            Ours::EventMillis => msgpack::signed(out, event.time().timestamp_millis()),
            Ours::PollTime => msgpack::raw(out, self.aid.polled),
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
