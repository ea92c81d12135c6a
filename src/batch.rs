//! A batch: events for one tag, ready for the host, with the ids and the window they came from.

use std::sync::Arc;

use crate::cursor::WindowId;
use crate::record::Id;
use crate::window::Window;

/// Hosts drop buffers that exceed an output's storage limit, so batches stay well below any.
/// A record that is larger by itself travels alone.
pub const BATCH_BYTES_MAX: usize = 1_000_000;

/// Whole events of one stream.
pub struct Batch {
    /// Which stream of the instance it belongs to.
    pub stream: usize,
    /// The window whose pages it was made from.
    pub window: WindowId,
    /// What that window asked for: windows that touch this can show its ids again.
    pub span: Window,
    /// The tag, or `None` for the stanza's own.
    pub tag: Option<Arc<str>>,
    /// The events, one after another.
    pub bytes: Vec<u8>,
    /// The identity of each event, in their order.
    pub ids: Vec<Id>,
}

impl Batch {
    /// How many records it holds.
    #[must_use]
    pub fn records(&self) -> usize {
        self.ids.len()
    }
}

/// Puts events together into batches of at most [`BATCH_BYTES_MAX`].
pub struct Builder {
    stream: usize,
    window: WindowId,
    span: Window,
    tag: Option<Arc<str>>,
    full: Vec<Batch>,
    bytes: Vec<u8>,
    ids: Vec<Id>,
}

impl Builder {
    /// A builder for events of one stream and window.
    #[must_use]
    pub fn new(stream: usize, window: WindowId, span: Window, tag: Option<Arc<str>>) -> Self {
        Self { stream, window, span, tag, full: Vec::new(), bytes: Vec::new(), ids: Vec::new() }
    }

    /// Adds the event that `write` appends.
    pub fn push(&mut self, id: Id, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        if start > 0 && self.bytes.len() > BATCH_BYTES_MAX {
            let last = self.bytes.split_off(start);
            self.close();
            self.bytes = last;
        }
        self.ids.push(id);
    }

    /// The batches, in the order of their events.
    #[must_use]
    pub fn finish(mut self) -> Vec<Batch> {
        self.close();
        self.full
    }

    fn close(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        // The queue counts what it holds, not what was set aside for more.
        self.bytes.shrink_to_fit();
        self.full.push(Batch {
            stream: self.stream,
            window: self.window,
            span: self.span,
            tag: self.tag.clone(),
            bytes: std::mem::take(&mut self.bytes),
            ids: std::mem::take(&mut self.ids),
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Time;
    use crate::cursor::Progress;

    proptest! {
        #[test]
        fn batches_hold_whole_events_in_order_and_large_ones_alone(
            sizes in prop::collection::vec(prop_oneof![1_usize..5_000, 400_000_usize..1_500_000], 0..20),
        ) {
            let end = Time::from_timestamp(0, 0).unwrap();
            let window = Progress::new(None).open(end);
            let mut builder = Builder::new(3, window, Window { start: end, end }, None);
            for (i, &size) in sizes.iter().enumerate() {
                builder.push(Id(i as u128), |out| out.resize(out.len() + size, i as u8));
            }
            let batches = builder.finish();
            let mut next = 0;
            for batch in &batches {
                prop_assert!(batch.bytes.len() <= BATCH_BYTES_MAX || batch.records() == 1);
                let mut rest = batch.bytes.as_slice();
                for id in &batch.ids {
                    prop_assert_eq!(id.0, next as u128);
                    let (event, after) = rest.split_at(sizes[next]);
                    prop_assert!(event.iter().all(|&byte| byte == next as u8));
                    rest = after;
                    next += 1;
                }
                prop_assert!(rest.is_empty());
            }
            prop_assert_eq!(next, sizes.len());
        }
    }
}
