//! A mail as it passes through: which records it makes, when, and who it is from and to. All of
//! it follows from the seed, the content type and the mail's number.

use super::vocabulary::{EXTERNAL_DOMAINS, INTERNAL_DOMAINS, LOCAL_PARTS, POLICY_EVENTS};
use crate::rng::{Rng, mix, uuid};

/// The three content types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Accepted,
    Blocked,
    Policy,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Accepted, Self::Blocked, Self::Policy];
    /// Most live mail is accepted.
    pub(crate) const LIVE_MIX: [Self; 5] =
        [Self::Accepted, Self::Accepted, Self::Accepted, Self::Blocked, Self::Policy];

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Accepted => "accepted_traffic",
            Self::Blocked => "blocked_traffic",
            Self::Policy => "policy_events",
        }
    }
}

/// Which of a mail's records: there is one per recipient, and again when its state changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Variant {
    pub(crate) state: u8,
    pub(crate) recipient: u8,
}

impl Variant {
    pub(crate) fn code(self) -> u8 {
        self.state << 4 | self.recipient
    }
}

/// What all records of a mail have in common.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    pub(crate) kind: Kind,
    /// Draws the rest of what the records share; each takes its own copy.
    pub(crate) rng: Rng,
    /// Unique over all mails of a seed.
    pub(crate) identity: u64,
    pub(crate) is_inbound: bool,
    pub(crate) recipients: u8,
    /// Scanned in the sandbox first, delivered later.
    pub(crate) evolves: bool,
    /// Index into the policy events; of no meaning for other kinds.
    pub(crate) policy_event: usize,
    evolves_after_ms: i64,
    /// Where the names of the people begin.
    people: u64,
    internal: &'static str,
    external: &'static str,
}

impl Mail {
    pub(crate) fn draw(seed: u64, kind: Kind, number: u64) -> Self {
        let mut rng = Rng::keyed(seed, &[0x3a11, kind as u64, number]);
        let recipients = match rng.below(100) {
            0..80 => 1,
            80..92 => 2,
            _ => 3,
        };
        Self {
            kind,
            // Numbers stay below 2^61, so the two parts do not overlap, and mixing keeps
            // different values different.
            identity: mix(mix(seed) ^ ((kind as u64) << 61 | number)),
            is_inbound: kind == Kind::Blocked || rng.below(10) < 7,
            recipients,
            evolves: kind == Kind::Accepted && rng.one_in(20),
            policy_event: rng.below(POLICY_EVENTS.len() as u64) as usize,
            evolves_after_ms: 10_000 + rng.below(110_000) as i64,
            people: rng.below(1 << 32),
            internal: rng.pick(&INTERNAL_DOMAINS),
            external: rng.pick(&EXTERNAL_DOMAINS),
            rng,
        }
    }

    /// The records that the mail makes, and when, given when it came.
    pub(crate) fn variants(&self, came_ms: i64) -> impl Iterator<Item = (Variant, i64)> + use<> {
        // A policy event lists its recipients in one record.
        let recipients = if self.kind == Kind::Policy { 1 } else { self.recipients };
        let later_ms = came_ms + self.evolves_after_ms;
        let states = [Some((0, came_ms)), self.evolves.then_some((1, later_ms))];
        states.into_iter().flatten().flat_map(move |(state, at_ms)| {
            (0..recipients).map(move |recipient| (Variant { state, recipient }, at_ms))
        })
    }

    /// The protected domain that the mail came to or from.
    pub(crate) fn domain(&self) -> &'static str {
        self.internal
    }

    pub(crate) fn sender(&self) -> String {
        let domain = if self.is_inbound { self.external } else { self.internal };
        address(self.people + 7, domain)
    }

    pub(crate) fn recipient(&self, nth: u8) -> String {
        let domain = if self.is_inbound { self.internal } else { self.external };
        address(self.people + 11 + u64::from(nth), domain)
    }

    pub(crate) fn all_recipients(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.recipients).map(|nth| self.recipient(nth))
    }

    pub(crate) fn uuid(&self) -> String {
        uuid(self.identity)
    }

    pub(crate) fn message_id(&self) -> String {
        let domain = if self.is_inbound { self.external } else { self.internal };
        format!("<{:016x}.{:x}@{domain}>", self.identity, self.people & 0xf_ffff)
    }
}

fn address(person: u64, domain: &str) -> String {
    format!("{}@{domain}", LOCAL_PARTS[(person % LOCAL_PARTS.len() as u64) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn identities_are_unique_over_kinds_and_numbers() {
        let mut seen = HashSet::new();
        for kind in Kind::ALL {
            for number in (0..2000).chain(1 << 40..(1 << 40) + 2000) {
                let mail = Mail::draw(1, kind, number);
                assert!(seen.insert(mail.uuid()) && seen.insert(mail.message_id()));
                let mut to: Vec<_> = mail.all_recipients().collect();
                to.dedup();
                assert_eq!(to.len(), usize::from(mail.recipients));
            }
        }
    }
}
