//! The first pass over a record: which of its members the table knows, what became of them, and what
//! is left in the end.

use super::convert::Taken;
use super::fill::Aid;
use super::plan::{Key, Keys, Plan};
use crate::msgpack::{self, Place, View};
use crate::record::MemberPlace;

/// An object that is being written, the record or one of a list in it, and what became of its members.
pub(super) struct Found<'s, 'a> {
    /// The record.
    pub(super) body: &'a [u8],
    /// Those of the object. What lies in one that is not `filled` is of another object.
    pub(super) slots: &'s mut [Slot],
    /// A bit for each slot with a value that says something.
    filled: u64,
    /// A bit for each of them whose value has not found a home whole.
    left: u64,
    unknown: Unknown,
    /// For the slots of the objects in this one.
    pub(super) room: &'s mut [Slot],
    pub(super) aid: &'s mut Aid<'a>,
}

/// Which members of an object the table does not know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unknown {
    /// None.
    Nothing,
    /// Some that say nothing.
    Blank,
    /// Some that say something.
    Some,
}

/// A value that the table asks for.
#[derive(Clone, Copy, Default)]
pub(super) struct Slot {
    /// Where its key begins.
    key: Place,
    pub(super) start: Place,
    pub(super) end: Place,
    /// So many bytes stand before its text; 0 if it is none.
    text_header: u8,
}

/// What is left of a record, in the vendor's order.
#[derive(Clone, Copy)]
pub(super) struct Rest {
    /// Where it begins.
    at: Place,
    what: Left,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    /// The object that was opened last ends.
    Close,
    /// A member up to its end.
    Member(Place),
    /// A member up to its value, of which the members follow up to the matching `Close`.
    Open(Place),
}

impl<'s, 'a> Found<'s, 'a> {
    /// An object of which nothing was looked at yet.
    pub(super) fn new(
        body: &'a [u8],
        slots: &'s mut [Slot],
        room: &'s mut [Slot],
        aid: &'s mut Aid<'a>,
    ) -> Self {
        Self { body, slots, filled: 0, left: 0, unknown: Unknown::Nothing, room, aid }
    }

    /// The first pass over an object. To be told where its members lie spares looking for their ends.
    pub(super) fn object(&mut self, plan: &Plan, object: View<'a>, members: &[MemberPlace]) {
        if members.is_empty() {
            self.members(&plan.fields, object);
        }
        let end = object.bytes().len() as Place;
        for (at, &place) in members.iter().enumerate() {
            let end = members.get(at + 1).map_or(end, |next| next.key);
            self.member(&plan.fields, place, end);
        }
        self.left = self.filled;
    }

    fn members(&mut self, keys: &Keys, object: View<'a>) {
        for (key, value) in object.pairs() {
            let (key, value) = (key.range_in(self.body), value.range_in(self.body));
            let place = MemberPlace { key: key.start as Place, value: value.start as Place };
            self.member(keys, place, value.end as Place);
        }
    }

    /// What the table knows goes into slots, all else to the rest.
    #[inline(always)]
    fn member(&mut self, keys: &Keys, place: MemberPlace, end: Place) {
        let MemberPlace { key, value: start } = place;
        let member = self.view(key, end).bytes();
        let (name, value) = member.split_at((start - key) as usize);
        let value = View::new(value);
        let what = match keys.find(name) {
            Some(Key { inner, .. }) if !inner.is_empty() && value.is_map() => {
                self.aid.rest.push(Rest { at: key, what: Left::Open(start) });
                self.members(inner, value);
                self.aid.rest.push(Rest { at: end, what: Left::Close });
                return;
            }
            // Nobody asks for what says nothing, so it is looked at once, and here.
            Some(Key { slot: Some(_), .. }) if value.is_empty() => return,
            Some(Key { slot: Some(slot), .. }) if !self.is_filled(*slot) => {
                let text_header = value.text_header();
                self.slots[*slot] = Slot { key, start, end, text_header };
                self.filled |= 1 << slot;
                return;
            }
            _ if value.is_empty() => Unknown::Blank,
            _ => Unknown::Some,
        };
        self.unknown = self.unknown.max(what);
        self.aid.rest.push(Rest { at: key, what: Left::Member(end) });
    }

    fn view(&self, start: Place, end: Place) -> View<'a> {
        View::new(&self.body[start as usize..end as usize])
    }

    fn is_filled(&self, slot: usize) -> bool {
        self.filled >> slot & 1 != 0
    }

    /// The value of a slot, which says something.
    pub(super) fn value(&self, slot: usize) -> Option<View<'a>> {
        let Slot { start, end, .. } = self.slots[slot];
        self.is_filled(slot).then(|| self.view(start, end))
    }

    /// The text of a slot, if its value is one.
    #[inline]
    pub(super) fn text_at(&self, slot: usize) -> Option<&'a [u8]> {
        let &Slot { start, end, text_header, .. } = &self.slots[slot];
        (self.is_filled(slot) && text_header != 0)
            .then(|| self.view(start + Place::from(text_header), end).bytes())
    }

    pub(super) fn take(&mut self, slot: usize, taken: Taken) {
        self.left &= !(u64::from(taken == Taken::All) << slot);
    }

    /// Whether all that the object says found a home.
    pub(super) fn is_whole(&self) -> bool {
        self.unknown != Unknown::Some && self.left == 0
    }

    /// Writes what of the record found no home; returns how many members that are.
    pub(super) fn rest(&mut self, out: &mut Vec<u8>) -> usize {
        let rest = &mut self.aid.rest;
        if self.left != 0 {
            let left = self.slots.iter().enumerate().filter(|(slot, _)| self.left >> slot & 1 != 0);
            rest.extend(left.map(|(_, slot)| Rest { at: slot.key, what: Left::Member(slot.end) }));
            rest.sort_unstable_by_key(|rest| (rest.at, rest.what));
        }
        let mut count = 0;
        let mut open: Vec<(usize, usize, usize)> = Vec::new();
        for &Rest { at, what } in rest.iter() {
            match what {
                Left::Member(end) => {
                    msgpack::piece(out, self.body, at..end);
                    count += 1;
                }
                Left::Open(value) => {
                    let start = out.len();
                    msgpack::piece(out, self.body, at..value);
                    open.push((start, msgpack::open(out), count));
                    count = 0;
                }
                Left::Close => {
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
