//! How dense a stream's records lie in vendor time, and so how long a window of them may be.
//!
//! A window of a busy stream is halved beforehand: by what the window before it had, or by what its
//! own first page has shown, if the vendor sorts by time. Of a vendor that does not, the first page
//! tells too little and the window is read whole; the next one is halved.

use crate::clock::Time;
use crate::window::Window;

/// Records per second of vendor time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Density(f64);

impl Density {
    /// That of `records` within a span; vendors filter by the second, so that is the shortest.
    #[must_use]
    pub fn of(records: usize, span: Window) -> Self {
        Self(records as f64 / secs(span).max(1.0))
    }

    /// Whether a window will probably have at most `records_max`.
    #[must_use]
    pub fn allows(self, window: Window, records_max: usize) -> bool {
        self.0 * secs(window) <= records_max as f64
    }
}

fn secs(span: Window) -> f64 {
    (span.end - span.start).num_seconds() as f64
}

/// The times of the records that a page has shown.
#[derive(Debug, Default)]
pub struct Sample {
    records: usize,
    span: Option<Window>,
}

impl Sample {
    /// One more record, of the time `at`.
    pub fn note(&mut self, at: Time) {
        let span = self.span.get_or_insert(Window { start: at, end: at });
        *span = Window { start: span.start.min(at), end: span.end.max(at) };
        self.records += 1;
    }

    /// How dense they lie; `None` if no record had a time.
    #[must_use]
    pub fn density(&self) -> Option<Density> {
        self.span.map(|span| Density::of(self.records, span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: i64, end: i64) -> Window {
        let at = |secs| Time::from_timestamp(secs, 0).unwrap();
        Window { start: at(start), end: at(end) }
    }

    #[test]
    fn a_window_has_as_many_records_as_are_to_be_remembered() {
        let density = Density::of(10_000, span(0, 100));
        assert!(density.allows(span(5_000, 5_500), 50_000));
        assert!(!density.allows(span(5_000, 5_501), 50_000));
        assert!(Density::default().allows(span(0, 86_400), 1), "nothing was read yet");
        assert!(
            Density::of(usize::MAX, span(7, 7)).allows(span(7, 7), 1),
            "a moment has no length"
        );
    }

    #[test]
    fn a_page_tells_the_density_in_whatever_order_it_is() {
        let mut sample = Sample::default();
        assert_eq!(sample.density(), None);
        for at in [30, 10, 20, 14] {
            sample.note(span(at, at).start);
        }
        assert_eq!(sample.density(), Some(Density::of(4, span(10, 30))));
    }
}
