//! What in an answer is news, and what becomes of it.

use std::time::Duration;

use super::place::Place;
use super::task::Task;
use crate::batch::{Batch, Builder};
use crate::clock::Time;
use crate::commit::Position;
use crate::connector::Mode;
use crate::msgpack::View;
use crate::record::{Id, Record, Records, parse_time};
use crate::sweep::{Change, Entity, Inventory};

/// The longest overlap that can be configured; what is later than that, only a pass finds.
const OVERLAP_MAX: Duration = Duration::from_secs(24 * 3600);

/// What of a page had not been shown when its time was read before.
#[derive(Default)]
struct Late {
    records: u64,
    /// The longest time from a record's generation to now.
    age_max: Duration,
}

impl Task {
    /// Takes the records that are news, and says so to ledger, counts and progress at once.
    pub(super) fn admit(&self, place: &mut Place, records: Records, now: Time) -> Vec<Batch> {
        let mut position = self.parts.shared.position();
        let mut builder = self.builder(place);
        let mut writer = self.parts.envelope.writer();
        let mut late = Late::default();
        records.consume(|record| {
            position.counts.fetched += 1;
            match self.news(&mut position, place, &record) {
                Some((id, change)) => {
                    let generated = self.generated(&record);
                    if let Some(generated) = generated.filter(|_| place.pages == 0) {
                        place.sample.note(generated);
                    }
                    self.note_late(&mut late, generated, now);
                    builder.push(id, |out| writer.write(out, &record, now, change));
                }
                None => position.counts.duplicate += 1,
            }
        });
        self.report_late(&mut position, place, &late);
        self.offered(&mut position, place, builder)
    }

    /// Under which id a record is delivered, and as what; `None` if it is no news.
    fn news(
        &self,
        position: &mut Position,
        place: &mut Place,
        record: &Record<'_>,
    ) -> Option<(Id, Option<Change>)> {
        let Some(inventory) = &mut position.inventory else {
            // Of an inventory, everything that is listed is delivered, whatever it is called.
            let id = match self.parts.shared.mode() {
                Mode::Log => record.key,
                Mode::Inventory => record.id,
            };
            let is_unknown = place.known.as_mut().is_none_or(|known| known.insert(id));
            return (is_unknown && position.ledger.admit(id)).then_some((id, None));
        };
        let name = self.parts.shape.only_name(record);
        let change = inventory.see(Entity { key: record.key, version: record.id, name })?;
        position.ledger.admit(record.key).then_some((record.key, Some(change)))
    }

    /// What a sweep that was read to its end did not show any more.
    pub(super) fn admit_removals(&self, place: &Place, now: Time) -> Vec<Batch> {
        let mut position = self.parts.shared.position();
        let mut builder = self.builder(place);
        let mut writer = self.parts.envelope.writer();
        let gone = position.inventory.as_mut().map(Inventory::take_removed).unwrap_or_default();
        for entity in gone {
            position.counts.fetched += 1;
            position.ledger.admit(entity.key);
            let record = self.parts.shape.restore(&entity.name, entity.key);
            let change = Some(Change::Removed);
            builder.push(record.key, |out| writer.write(out, &record, now, change));
        }
        self.offered(&mut position, place, builder)
    }

    fn builder(&self, place: &Place) -> Builder {
        Builder::new(self.parts.index, place.id, place.window, self.parts.tag.clone())
    }

    /// The batches of a builder, as ones that their window waits for.
    fn offered(&self, position: &mut Position, place: &Place, builder: Builder) -> Vec<Batch> {
        let batches = builder.finish();
        batches.iter().for_each(|_| position.lane(self.lane).offered(place.id));
        batches
    }

    /// The time of a record by which the vendor filters.
    fn generated(&self, record: &Record<'_>) -> Option<Time> {
        let generated = View::new(record.body).find(self.parts.generated)?;
        parse_time(generated.as_str()?)
    }

    /// Notes a new record of a time that was read before: it was not shown then.
    fn note_late(&self, late: &mut Late, generated: Option<Time>, now: Time) {
        let read_before = self.read_before.filter(|_| !self.is_pass());
        let is_late = match (generated, read_before) {
            (Some(generated), Some(read_before)) => generated < read_before,
            _ => self.is_pass(),
        };
        if is_late {
            late.records += 1;
            let age = generated.and_then(|generated| (now - generated).to_std().ok());
            late.age_max = late.age_max.max(age.unwrap_or_default());
        }
    }

    /// Keeps the longest lateness, and warns of what the overlap did not find.
    fn report_late(&self, position: &mut Position, place: &Place, late: &Late) {
        let is_longest = late.age_max > position.lateness_max;
        position.lateness_max = position.lateness_max.max(late.age_max);
        if late.records == 0 || !self.is_pass() {
            return;
        }
        position.counts.late += late.records;
        let overlap = self.parts.shared.policy().overlap;
        let minutes = late.age_max.as_secs().div_ceil(60);
        let cure = if late.age_max <= OVERLAP_MAX {
            format!("; to have such records sooner, write: overlap: {minutes}m")
        } else {
            String::new()
        };
        let text = format!(
            "the vendor showed {} records of {}..{} later than the overlap of {} s, at most \
             {minutes} min after they were generated; verification found them and they are \
             delivered now{cure}",
            late.records,
            place.window.start.format("%Y-%m-%dT%H:%M:%SZ"),
            place.window.end.format("%Y-%m-%dT%H:%M:%SZ"),
            overlap.as_secs(),
        );
        if is_longest { self.parts.logger.warn(text) } else { self.parts.logger.info(text) }
    }
}
