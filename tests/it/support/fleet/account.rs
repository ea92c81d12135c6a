//! What several hosts delivered together, against what the vendor had.

use std::collections::HashMap;
use std::path::Path;

use trendmicro_sim::{Sim, canonical};

use super::super::{describe_cases, for_each_delivered};

/// What both sides agree and disagree about.
#[derive(Debug, Default)]
pub struct Account {
    /// Records that the vendor had.
    pub records: usize,
    /// Of these, the ones that no host delivered.
    pub missing: Vec<String>,
    /// What was delivered and the vendor never had.
    pub unexpected: Vec<String>,
    /// Second and further copies.
    pub twice: Vec<String>,
    /// Event ids that stand for two records.
    pub confused: Vec<String>,
    /// The most copies of one record.
    pub copies_most: usize,
}

impl Account {
    /// Compares what `sim` has with all files in the folders `outs`.
    pub fn of<'a>(sim: &Sim, outs: impl Iterator<Item = &'a Path>) -> Self {
        let mut account = Self::default();
        // By a record's text: how many copies came, and the id of the first.
        let mut found: HashMap<blake3::Hash, (usize, String)> = HashMap::new();
        let mut owners: HashMap<String, blake3::Hash> = HashMap::new();
        for out in outs {
            for_each_delivered(out, |_, record| {
                let source = record["msg_origin"]["source"].as_str().unwrap_or_default();
                let key = blake3::hash(canonical(&record[source]).as_bytes());
                let id = record["event_id"].as_str().unwrap_or_default();
                let entry = found.entry(key).or_insert_with(|| (0, id.to_owned()));
                entry.0 += 1;
                if entry.0 > 1 {
                    account.twice.push(id.to_owned());
                }
                account.copies_most = account.copies_most.max(entry.0);
                if *owners.entry(id.to_owned()).or_insert(key) != key || entry.1 != id {
                    account.confused.push(id.to_owned());
                }
            });
        }
        sim.for_each_record(|record| {
            let payload = serde_json::from_str(&record.json).expect("the simulator writes JSON");
            let text = canonical(&payload);
            account.records += 1;
            if found.remove(&blake3::hash(text.as_bytes())).is_none() {
                let (content_type, at) = (&record.content_type, record.gen_time);
                let text: String = text.chars().take(240).collect();
                account.missing.push(format!("{content_type} of {at}: {text}"));
            }
        });
        account.unexpected = found.into_values().map(|(_, id)| id).collect();
        account
    }

    /// Fails unless everything arrived and nothing else did; copies are allowed.
    #[track_caller]
    pub fn assert_complete(&self) {
        let is_right =
            self.missing.is_empty() && self.unexpected.is_empty() && self.confused.is_empty();
        assert!(is_right && self.records > 0, "{}", self.describe());
    }

    /// Fails unless everything arrived exactly once.
    #[track_caller]
    pub fn assert_exact(&self) {
        self.assert_complete();
        assert!(self.twice.is_empty(), "{}", self.describe());
    }

    /// The numbers, and the first cases of each.
    pub fn describe(&self) -> String {
        let Self { records, missing, unexpected, twice, confused, .. } = self;
        let text = format!("{records} records");
        let lists = [
            ("missing", missing),
            ("unexpected", unexpected),
            ("twice", twice),
            ("confused", confused),
        ];
        describe_cases(text, &lists)
    }
}
