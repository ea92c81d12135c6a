//! The first pass over a record: which of its members the table knows, what became of them, and what
//! is left in the end.

use super::address::Memo;
use super::convert::Taken;
use super::fill::Scratch;
use super::plan::{Key, Keys, Plan};
use crate::msgpack::{self, Place, View};
use crate::record::MemberPlace;

/// What became of a record's members on the first pass. For the time of an object of a list, what
/// became of that object's members lies behind.
pub(super) struct Found<'a> {
    /// The record.
    pub(super) body: &'a [u8],
    /// Its slots and what is left of it; behind them, those of the current object.
    pub(super) scratch: &'a mut Scratch,
    /// Where those of the current object begin.
    pub(super) base: Base,
    pub(super) left: Left,
    pub(super) memo: Memo<'a>,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Base {
    pub(super) slot: usize,
    pub(super) rest: usize,
}

/// What of the current object has not found a home.
#[derive(Clone, Copy, Default)]
pub(super) struct Left {
    /// So many members, of which some say something elsewhere, but not all that they say.
    pub(super) members: usize,
    /// The table does not know a member that says nothing.
    pub(super) has_blank: bool,
}

/// Where a piece of the record lies.
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    pub(super) start: Place,
    pub(super) end: Place,
}

/// What became of a value that the table asks for.
#[derive(Clone, Copy, Default)]
pub(super) struct Slot {
    /// Of the value; nothing if there is none.
    pub(super) value: Span,
    pub(super) taken: Taken,
}

/// A member of the record, in the vendor's order.
pub(super) enum Rest {
    /// The key and value of a member that the table does not know.
    Member(Span),
    /// The same of one that it knows; it stays if its target did not take it.
    Slot(Span, u32),
    /// The members of this one, whose key it is, follow up to the matching `Close`.
    Open(Span),
    Close,
}

impl Span {
    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }
}

impl<'a> Found<'a> {
    /// The first pass over an object. To be told where its members lie spares looking for their ends.
    pub(super) fn object(&mut self, plan: &Plan, object: View<'a>, members: &[MemberPlace]) {
        self.base = Base { slot: self.scratch.slots.len(), rest: self.scratch.rest.len() };
        self.scratch.slots.extend_from_slice(&plan.slots);
        if members.is_empty() {
            return self.members(&plan.fields, object);
        }
        let end = object.bytes().len() as Place;
        let ends = members[1..].iter().map(|next| next.key).chain([end]);
        for (&MemberPlace { key, value }, end) in members.iter().zip(ends) {
            self.member(&plan.fields, key, value, end);
        }
    }

    fn members(&mut self, keys: &Keys, object: View<'a>) {
        for (key, value) in object.pairs() {
            let (key, value) = (key.range_in(self.body), value.range_in(self.body));
            self.member(keys, key.start as Place, value.start as Place, value.end as Place);
        }
    }

    /// What the table knows goes into slots, all else to the rest.
    #[inline(always)]
    fn member(&mut self, keys: &Keys, key: Place, value: Place, end: Place) {
        let (both, place) = (Span { start: key, end }, Span { start: value, end });
        let (name, value) =
            (View::new(self.bytes(Span { start: key, end: value })), self.view(place));
        let rest = match name.as_bytes().and_then(|name| keys.find(name)) {
            Some(Key { inner, .. }) if !inner.is_empty() && value.is_map() => {
                self.scratch.rest.push(Rest::Open(Span { start: both.start, end: place.start }));
                self.members(inner, value);
                Rest::Close
            }
            // Nobody asks for what says nothing, so it is looked at once, and here.
            Some(Key { slot: Some(_), .. }) if value.is_empty() => return,
            Some(Key { slot: Some(slot), .. }) if self.slot(*slot).value.is_empty() => {
                self.slot(*slot).value = place;
                self.left.members += 1;
                Rest::Slot(both, *slot as u32)
            }
            _ => {
                self.left.members += usize::from(!value.is_empty());
                self.left.has_blank |= value.is_empty();
                Rest::Member(both)
            }
        };
        self.scratch.rest.push(rest);
    }

    pub(super) fn bytes(&self, span: Span) -> &'a [u8] {
        &self.body[span.start as usize..span.end as usize]
    }

    pub(super) fn view(&self, span: Span) -> View<'a> {
        View::new(self.bytes(span))
    }

    pub(super) fn slot(&mut self, slot: usize) -> &mut Slot {
        &mut self.scratch.slots[self.base.slot + slot]
    }

    /// The value of a slot, which says something.
    pub(super) fn value(&self, slot: usize) -> Option<View<'a>> {
        let span = self.scratch.slots[self.base.slot + slot].value;
        (!span.is_empty()).then(|| self.view(span))
    }

    pub(super) fn take(&mut self, slot: usize, taken: Taken) {
        let slot = self.slot(slot);
        let before = slot.taken;
        slot.taken = before.max(taken);
        self.left.members -= usize::from(taken == Taken::All && before != Taken::All);
    }

    /// Whether a slot's value, if it has one, did not find a home whole.
    fn is_left(&self, slot: u32) -> bool {
        self.scratch.slots[self.base.slot + slot as usize].taken != Taken::All
    }

    /// Writes what found no home; returns how many members that are.
    pub(super) fn rest(&self, out: &mut Vec<u8>) -> usize {
        if self.left.members == 0 && !self.left.has_blank {
            return 0;
        }
        let mut count = 0;
        let mut open: Vec<(usize, usize, usize)> = Vec::new();
        for rest in &self.scratch.rest[self.base.rest..] {
            match *rest {
                Rest::Slot(_, slot) if !self.is_left(slot) => {}
                Rest::Slot(both, _) | Rest::Member(both) => {
                    msgpack::piece(out, self.body, both.start..both.end);
                    count += 1;
                }
                Rest::Open(name) => {
                    let start = out.len();
                    out.extend_from_slice(self.bytes(name));
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
}
