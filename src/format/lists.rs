//! Lists of texts, out of one field or of several.

use std::borrow::Cow;

use super::convert;
use super::found::Found;
use super::plan::TextsOf;
use super::table::{Pick, Texts};
use crate::msgpack;
use crate::record::Prefix;

/// Among so many texts, another like it is looked for one by one.
const FEW_TEXTS: usize = 8;

impl Found<'_> {
    pub(super) fn list(&mut self, list: &[TextsOf], out: &mut Vec<u8>) -> Option<bool> {
        if let [(slot, of)] = list
            && of.2 != Pick::Sorted
        {
            return self.texts_of(*slot, of, out);
        }
        self.gather(list, list.len() > 1, true);
        self.write_sorted(out)
    }

    /// Texts that only help to search take nothing of the fields.
    pub(super) fn related(&mut self, list: &[TextsOf], out: &mut Vec<u8>) -> Option<bool> {
        self.gather(list, true, false);
        self.write_sorted(out)
    }

    /// One field's texts stay as they come.
    pub(super) fn texts_of(&mut self, slot: usize, of: &Texts, out: &mut Vec<u8>) -> Option<bool> {
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

    /// Collects the texts of some fields, each once if they are to be `unique`.
    fn gather(&mut self, list: &[TextsOf], is_unique: bool, takes: bool) {
        let mut texts = std::mem::take(&mut self.texts);
        for &(slot, of) in list {
            let Some(value) = self.value(slot) else { continue };
            let taken = convert::pick(of, value, &mut self.memo, |text| {
                // Sender and recipients mostly stand in two fields, and to sort them takes longer.
                let is_known = is_unique && texts.len() < FEW_TEXTS && texts.contains(&text);
                if !is_known {
                    texts.push(text);
                }
            });
            if takes {
                self.take(slot, taken);
            }
        }
        if texts.len() > FEW_TEXTS {
            texts.sort_unstable();
            if is_unique {
                texts.dedup();
            }
        }
        self.texts = texts;
    }

    /// Writes the texts that were collected.
    fn write_sorted(&mut self, out: &mut Vec<u8>) -> Option<bool> {
        let count = self.texts.len();
        if count == 0 {
            return None;
        }
        msgpack::array(out, count);
        if count <= FEW_TEXTS {
            let order = order_of_few(&self.texts);
            order[..count].iter().for_each(|&i| msgpack::text(out, &self.texts[i]));
        } else {
            self.texts.iter().for_each(|text| msgpack::text(out, text));
        }
        self.texts.clear();
        Some(true)
    }
}

/// The order of a few texts. For each, those are counted that it stands behind: nothing is done or left
/// by how two compare, which a processor would guess wrong half of the time.
fn order_of_few(texts: &[Cow<'_, [u8]>]) -> [usize; FEW_TEXTS] {
    let mut prefixes = [Prefix::default(); FEW_TEXTS];
    let (mut ranks, mut order) = ([0; FEW_TEXTS], [0; FEW_TEXTS]);
    for (i, text) in texts.iter().enumerate() {
        prefixes[i] = Prefix::of(text, text.len());
        for j in 0..i {
            let is_behind = if prefixes[i] == prefixes[j] {
                *text >= texts[j]
            } else {
                prefixes[i] > prefixes[j]
            };
            ranks[i] += usize::from(is_behind);
            ranks[j] += usize::from(!is_behind);
        }
    }
    (0..texts.len()).for_each(|i| order[ranks[i]] = i);
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn few_are_ordered_as_the_standard_library_sorts(
            texts in prop::collection::vec("[ab\\x00]{0,3}|(same|samesame)[ab]{0,9}", 0..=FEW_TEXTS),
        ) {
            let texts: Vec<Cow<'_, [u8]>> =
                texts.iter().map(|text| Cow::from(text.as_bytes())).collect();
            let order = order_of_few(&texts);
            let ordered: Vec<_> = order[..texts.len()].iter().map(|&i| texts[i].clone()).collect();
            let mut sorted = texts.clone();
            sorted.sort();
            prop_assert_eq!(ordered, sorted);
        }
    }
}
