//! The state file: SQLite in WAL mode, held exclusively for as long as it is open.
//!
//! A file that is damaged is set aside, never deleted. At the start nobody then knows where the
//! streams stood, so each begins at the vendor's horizon. Later, what is in memory is all there is to
//! know, and a new file is made from that.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::file::{self, Identity};
use super::schema::{self, APPLICATION_ID, Owner, SCHEMA};
use super::{
    Change, ID_BYTES, Saved, Store, connection, from_millis, guard, id, id_bytes, pack, unpack,
};
use crate::clock::Time;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::Tenure;
use crate::record::Id;
use crate::sweep::{self, Entity};
use crate::window::Window;

/// A process that is just ending still holds the file for a moment.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// What an inventory that is loaded may take in memory: four million computers.
const INVENTORY_BYTES_MAX: usize = 512 * 1024 * 1024;
/// The name under which a file says which damaged one it replaces, unread.
const REPLACES: &str = "replaces";

/// A state file.
pub struct Sqlite {
    path: PathBuf,
    sync: String,
    connection: Connection,
    identity: Option<Identity>,
    /// A damaged file that this one replaces, and what was wrong with it; until somebody is told.
    set_aside: Option<(PathBuf, String)>,
}

impl Sqlite {
    /// Opens the file, or makes it, and locks it. One that is damaged is set aside.
    ///
    /// # Errors
    /// When it is in use, is not a state file, comes from a newer version, or cannot be written.
    pub fn open(path: &Path, sync: &str) -> Result<Self> {
        let error = match Self::open_sound(path, sync) {
            Err(error) if error.kind() == ErrorKind::Damaged => error,
            other => return other,
        };
        let Some(old) = file::set_aside(path)? else { return Err(error) };
        let mut store = Self::open_sound(path, sync)?;
        let meta = "INSERT INTO in_trendmicro_meta (name, value) VALUES (?1, ?2)";
        store
            .connection
            .execute(meta, [REPLACES, &old.to_string_lossy()])
            .map_err(|error| store.fault("written", error))?;
        store.set_aside = Some((old, error.to_string()));
        Ok(store)
    }

    fn open_sound(path: &Path, sync: &str) -> Result<Self> {
        let fault = |error: rusqlite::Error| cannot_open(path, &error);
        guard::check(path)?;
        let identity = file::create_private(path)?;
        let connection = connection::connect(path, LOCK_TIMEOUT).map_err(fault)?;
        let mut store = Self {
            path: path.to_owned(),
            sync: sync.to_owned(),
            connection,
            identity: Some(identity),
            set_aside: None,
        };
        if !store.is_in_place() {
            return Err(file::replaced(path));
        }
        store.check_schema()?;
        store.check_sound()?;
        // Before there is a journal, so that the file itself says whose it is from the beginning.
        schema::migrate(&mut store.connection).map_err(fault)?;
        store.connection.pragma_update(None, "journal_mode", "WAL").map_err(fault)?;
        store.connection.pragma_update(None, "synchronous", sync).map_err(fault)?;
        Ok(store)
    }

    /// Nothing of a file is read before it is known to be ours, and to hold plain tables alone.
    fn check_schema(&self) -> Result<()> {
        let fault = |error: rusqlite::Error| cannot_open(&self.path, &error);
        let version = match Owner::of(&self.connection).map_err(fault)? {
            Owner::Nobody => return Ok(()),
            Owner::Us(version) if version <= SCHEMA.len() as i64 => version,
            Owner::Other => {
                return Err(self.refuse("is another program's database", "a file of its own"));
            }
            Owner::Us(version) => {
                return Err(self.refuse(
                    &format!("has schema version {version}, newer than {}", SCHEMA.len()),
                    "a file of this or an older version of the plugin",
                ));
            }
        };
        match schema::flaw(&self.connection, version).map_err(fault)? {
            None => Ok(()),
            Some(flaw) => {
                Err(Error::new(ErrorKind::Damaged, format!("state file is damaged: {flaw}")))
            }
        }
    }

    /// Looks at every page: damage must not show for the first time when a stream is half loaded.
    fn check_sound(&self) -> Result<()> {
        let verdict: String = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| cannot_open(&self.path, &error))?;
        if verdict == "ok" {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Damaged, format!("state file is damaged: {verdict}")))
    }

    fn refuse(&self, why: &str, legal: &str) -> Error {
        Error::config(format!(
            "db = \"{}\": {why}; legal: {legal}; write: db: {}.new",
            self.path.display(),
            self.path.display()
        ))
    }

    /// Whether the file still lies where it was opened.
    fn is_in_place(&self) -> bool {
        self.identity.is_some() && Identity::of(&self.path) == self.identity
    }

    fn fault(&self, what: &str, error: rusqlite::Error) -> Error {
        let text = format!("state file \"{}\" cannot be {what}", self.path.display());
        let kind = if is_damage(&error) { ErrorKind::Damaged } else { ErrorKind::Store };
        Error::new(kind, text).caused_by(error)
    }

    fn read_stream(&self, stream: &str) -> rusqlite::Result<Saved> {
        let connection = &self.connection;
        let cursor: Option<i64> = connection
            .query_row(
                "SELECT position_ms FROM in_trendmicro_cursor WHERE stream = ?1",
                [stream],
                |row| row.get(0),
            )
            .optional()?;
        let mut saved = Saved { cursor: cursor.map(from_millis), ..Saved::default() };
        let mut statement = connection
            .prepare("SELECT pass, position_ms FROM in_trendmicro_verified WHERE stream = ?1")?;
        let mut rows = statement.query([stream])?;
        while let Some(row) = rows.next()? {
            if let Some(verified) = saved.verified.get_mut(row.get::<_, u32>(0)? as usize) {
                *verified = Some(from_millis(row.get(1)?));
            }
        }
        saved.is_unknown = cursor.is_none()
            && connection
                .prepare("SELECT 1 FROM in_trendmicro_meta WHERE name = ?1")?
                .exists([REPLACES])?;
        Ok(saved)
    }

    /// What the receiver was told of an inventory; `None` if it takes more memory than that.
    fn read_entities(
        &self,
        stream: &str,
        bytes_max: usize,
    ) -> rusqlite::Result<Option<Vec<Entity>>> {
        let mut statement = self
            .connection
            .prepare("SELECT key, version, name FROM in_trendmicro_inventory WHERE stream = ?1")?;
        let mut rows = statement.query([stream])?;
        let (mut entities, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let name = row.get_ref(2)?.as_blob()?;
            bytes += size_of::<Entity>() + name.len();
            if bytes > bytes_max {
                return Ok(None);
            }
            let (key, version) = (id(row.get(0)?), id(row.get(1)?));
            entities.push(Entity { key, version, name: name.to_vec() });
        }
        Ok(Some(entities))
    }

    /// Loads a stream whose inventory takes no more memory than that.
    fn load_within(&self, stream: &str, bytes_max: usize) -> Result<Saved> {
        let fault = |error| self.fault("read", error);
        let mut saved = self.read_stream(stream).map_err(fault)?;
        let entities = self.read_entities(stream, bytes_max).map_err(fault)?;
        saved.entities = entities.ok_or_else(|| {
            self.refuse(
                &format!("its inventory \"{stream}\" takes more than {bytes_max} bytes"),
                "a file that the plugin has written",
            )
        })?;
        Ok(saved)
    }

    fn read_ids(
        &self,
        stream: &str,
        span: Window,
        count_max: usize,
    ) -> rusqlite::Result<Option<Vec<(Time, Id)>>> {
        const TOUCHING: &str =
            "FROM in_trendmicro_ledger WHERE stream = ?1 AND until_ms >= ?2 AND from_ms <= ?3";
        let span = params![stream, span.start.timestamp_millis(), span.end.timestamp_millis()];
        let count: i64 = self
            .connection
            .prepare_cached(&format!(
                "SELECT coalesce(sum(length(ids)), 0) / {ID_BYTES} {TOUCHING}"
            ))?
            .query_row(span, |row| row.get(0))?;
        let count = usize::try_from(count).unwrap_or(0);
        if count > count_max {
            return Ok(None);
        }
        let mut found = Vec::with_capacity(count);
        let mut statement =
            self.connection.prepare_cached(&format!("SELECT until_ms, ids {TOUCHING}"))?;
        let mut rows = statement.query(span)?;
        while let Some(row) = rows.next()? {
            let until = from_millis(row.get(0)?);
            found.extend(unpack(row.get_ref(1)?.as_blob()?).map(|id| (until, id)));
        }
        Ok(Some(found))
    }
}

impl Store for Sqlite {
    fn notice(&mut self) -> Option<String> {
        let (old, error) = self.set_aside.take()?;
        Some(format!(
            "the state file was damaged and is set aside as \"{}\"; nothing is lost: all that the \
             vendor still has, 72 h, is collected again, so records may come twice, with the same \
             event_id ({error})",
            old.display()
        ))
    }

    fn load(&mut self, stream: &str) -> Result<Saved> {
        self.load_within(stream, INVENTORY_BYTES_MAX)
    }

    fn recall(
        &mut self,
        stream: &str,
        span: Window,
        count_max: usize,
    ) -> Result<Option<Vec<(Time, Id)>>> {
        self.read_ids(stream, span, count_max).map_err(|error| self.fault("read", error))
    }

    fn commit(&mut self, changes: &[Change]) -> Result<Vec<Tenure>> {
        if !self.is_in_place() {
            // SQLite would go on writing to a file that nobody can find again.
            let text = format!("state file \"{}\" is gone", self.path.display());
            return Err(Error::new(ErrorKind::Damaged, text));
        }
        let saved = self.connection.transaction().and_then(|transaction| {
            changes.iter().try_for_each(|change| save(&transaction, change))?;
            transaction.commit()
        });
        saved.map_err(|error| self.fault("written", error))?;
        // The file is locked, so nobody else holds what it holds.
        Ok(Vec::new())
    }

    fn renew(&mut self, changes: &[Change]) -> Result<String> {
        // Closed before it is renamed: SQLite finds its journal by name.
        self.identity = None;
        self.connection =
            Connection::open_in_memory().map_err(|error| self.fault("renewed", error))?;
        let old = file::set_aside(&self.path)?;
        *self = Self::open_sound(&self.path, &self.sync)?;
        self.commit(changes)?;
        Ok(match old {
            Some(old) => format!("set aside as \"{}\" and written anew", old.display()),
            None => "written anew".to_owned(),
        })
    }
}

fn save(transaction: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO in_trendmicro_ledger (stream, from_ms, until_ms, ids) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (Window { start, end }, ids) in &change.delivered {
        let (from, until) = (start.timestamp_millis(), end.timestamp_millis());
        insert.execute(params![change.stream, from, until, pack(ids)])?;
    }
    for (what, entity) in &change.entities {
        save_entity(transaction, &change.stream, *what, entity)?;
    }
    if let Some(cursor) = change.cursor {
        transaction
            .prepare_cached(
                "INSERT INTO in_trendmicro_cursor (stream, position_ms) VALUES (?1, ?2)
                 ON CONFLICT (stream) DO UPDATE SET position_ms = excluded.position_ms",
            )?
            .execute(params![change.stream, cursor.timestamp_millis()])?;
    }
    for (pass, verified) in change.verified.iter().enumerate() {
        let Some(verified) = verified else { continue };
        transaction
            .prepare_cached("REPLACE INTO in_trendmicro_verified VALUES (?1, ?2, ?3)")?
            .execute(params![change.stream, pass as u32, verified.timestamp_millis()])?;
    }
    if let Some(before) = change.forget_before {
        forget(transaction, &change.stream, before)?;
    }
    Ok(())
}

/// What is forgotten can no longer be told from what is late, so no pass may read it again.
fn forget(transaction: &Transaction<'_>, stream: &str, before: Time) -> rusqlite::Result<()> {
    let before = params![stream, before.timestamp_millis()];
    transaction
        .prepare_cached("DELETE FROM in_trendmicro_ledger WHERE stream = ?1 AND until_ms < ?2")?
        .execute(before)?;
    transaction
        .prepare_cached(
            "UPDATE in_trendmicro_verified SET position_ms = ?2
             WHERE stream = ?1 AND position_ms < ?2",
        )?
        .execute(before)
        .map(drop)
}

fn save_entity(
    transaction: &Transaction<'_>,
    stream: &str,
    change: sweep::Change,
    Entity { key, version, name }: &Entity,
) -> rusqlite::Result<()> {
    let (key, version) = (id_bytes(*key), id_bytes(*version));
    if change == sweep::Change::Removed {
        return transaction
            .prepare_cached("DELETE FROM in_trendmicro_inventory WHERE stream = ?1 AND key = ?2")?
            .execute(params![stream, key])
            .map(drop);
    }
    transaction
        .prepare_cached("REPLACE INTO in_trendmicro_inventory VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![stream, key, version, name])
        .map(drop)
}

fn cannot_open(path: &Path, error: &rusqlite::Error) -> Error {
    if is_damage(error) && file::was_ours(path, APPLICATION_ID) {
        return Error::new(ErrorKind::Damaged, format!("state file is damaged: {error}"));
    }
    let path = path.display();
    let (why, write) = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => (
            "in use by another process or another input".to_owned(),
            format!("{path}.second, or stop the other one"),
        ),
        Some(rusqlite::ErrorCode::NotADatabase) => {
            ("not a state file".to_owned(), format!("{path}.new"))
        }
        _ => (error.to_string(), "/var/lib/fluent-bit/trendmicro.db".to_owned()),
    };
    Error::config(format!(
        "db = \"{path}\": {why}; legal: a file that only this input uses; write: db: {write}"
    ))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn at(secs: i64) -> Time {
        Time::from_timestamp(secs, 0).unwrap()
    }

    fn span(start: i64, end: i64) -> Window {
        Window { start: at(start), end: at(end) }
    }

    /// The ids of the windows that touch a span.
    fn recall(store: &mut Sqlite, stream: &str, start: i64, end: i64) -> Vec<(Time, Id)> {
        store.recall(stream, span(start, end), 100).unwrap().unwrap()
    }

    fn entity(key: u128) -> Entity {
        Entity { key: Id(key), version: Id(7), name: vec![1, 2, 3] }
    }

    #[test]
    fn what_is_committed_is_loaded_again_and_what_is_out_of_reach_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let mut store = Sqlite::open(&path, "NORMAL").unwrap();
        assert_eq!(store.load("a").unwrap(), Saved::default());
        let change = Change {
            tenure: Tenure::default(),
            stream: "a".into(),
            delivered: vec![(span(0, 10), vec![Id(1), Id(u128::MAX)]), (span(10, 20), vec![Id(2)])],
            cursor: Some(at(10)),
            verified: [None, Some(at(5)), Some(at(30))],
            entities: vec![
                (sweep::Change::Added, entity(1)),
                (sweep::Change::Added, entity(2)),
                (sweep::Change::Removed, entity(1)),
            ],
            forget_before: None,
        };
        store.commit(&[change.clone(), Change { stream: "b".into(), ..change }]).unwrap();
        drop(store);
        let mut store = Sqlite::open(&path, "FULL").unwrap();
        let saved = store.load("a").unwrap();
        assert_eq!(saved.cursor, Some(at(10)));
        assert_eq!(saved.verified, [None, Some(at(5)), Some(at(30))]);
        assert_eq!(saved.entities, [entity(2)]);
        let all = recall(&mut store, "a", 0, 99);
        assert_eq!(all.len(), 3);
        assert!(all.contains(&(at(10), Id(u128::MAX))));
        assert_eq!(recall(&mut store, "a", 0, 9).len(), 2);
        assert_eq!(recall(&mut store, "a", 11, 99), [(at(20), Id(2))]);
        assert_eq!(store.recall("a", span(0, 99), 2).unwrap(), None, "more than asked for");
        let forget =
            Change { stream: "a".into(), forget_before: Some(at(20)), ..Change::default() };
        store.commit(&[forget]).unwrap();
        assert_eq!(recall(&mut store, "a", 0, 99), [(at(20), Id(2))]);
        assert_eq!(store.load("a").unwrap().verified, [None, Some(at(20)), Some(at(30))]);
        assert_eq!(recall(&mut store, "b", 0, 99).len(), 3, "another stream is untouched");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_in_use_or_of_somebody_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let open = |path: &Path| Sqlite::open(path, "NORMAL").map(drop).unwrap_err().to_string();
        let first = Sqlite::open(&path, "NORMAL").unwrap();
        assert!(open(&path).contains("in use by another process or another input"));
        drop(first);
        Sqlite::open(&path, "NORMAL").unwrap();

        let foreign = dir.path().join("foreign.db");
        Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        assert!(open(&foreign).contains("another program's database"));
        let garbage = dir.path().join("garbage.db");
        std::fs::write(&garbage, "no database at all, but some longer text").unwrap();
        assert!(open(&garbage).contains("not a state file"));
        assert!(std::fs::read_to_string(&garbage).unwrap().starts_with("no database"));
        let newer = Connection::open(&path).unwrap();
        newer.pragma_update(None, "user_version", 99).unwrap();
        drop(newer);
        assert!(open(&path).contains("schema version 99"));
        assert!(open(&dir.path().join("none/state.db")).contains("cannot be opened"));
    }

    /// A file with one stream in it, as a process leaves it.
    fn filled(dir: &Path) -> PathBuf {
        let path = dir.join("state.db");
        let ids = (0..2_000).map(Id).collect();
        let change = Change {
            stream: "a".into(),
            delivered: vec![(span(0, 10), ids)],
            cursor: Some(at(10)),
            ..Change::default()
        };
        Sqlite::open(&path, "NORMAL").unwrap().commit(&[change]).unwrap();
        path
    }

    /// Overwrites a part of a file.
    fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
        use std::os::unix::fs::FileExt;
        OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_every_stream_begins_at_the_horizon() {
        let damages: [fn(&Path); 3] = [
            |path| overwrite(path, 4096, &[0xa5; 4096]),
            |path| OpenOptions::new().write(true).open(path).unwrap().set_len(5000).unwrap(),
            |path| std::fs::write(path, [0; 8192]).unwrap(),
        ];
        for (n, damage) in damages.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let path = filled(dir.path());
            damage(&path);
            let was = std::fs::read(&path).unwrap();
            let mut store = Sqlite::open(&path, "NORMAL").unwrap_or_else(|e| panic!("{n}: {e}"));
            let notice = store.notice().expect("a word about it");
            assert!(notice.contains("state.db.damaged") && store.notice().is_none(), "{notice}");
            assert!(store.load("a").unwrap().is_unknown, "{n}");
            drop(store);
            let mut store = Sqlite::open(&path, "NORMAL").unwrap();
            assert!(store.notice().is_none() && store.load("a").unwrap().is_unknown, "still so");
            let cursor = Some(at(20));
            store.commit(&[Change { stream: "a".into(), cursor, ..Change::default() }]).unwrap();
            assert!(!store.load("a").unwrap().is_unknown);
            let kept = std::fs::read(dir.path().join("state.db.damaged")).unwrap();
            assert!(kept == was, "{n}: {} bytes of {}", kept.len(), was.len());
        }
    }

    /// Each of these would be read, or would run, in the place of a plain table.
    #[test]
    fn a_planted_schema_is_set_aside_before_anything_of_it_runs() {
        const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
        let view = format!(
            "DROP TABLE in_trendmicro_inventory;
             CREATE VIEW in_trendmicro_inventory AS {ENDLESS}
             SELECT 'a' stream, zeroblob(16) key, zeroblob(16) version, zeroblob(99) name FROM n;"
        );
        let plants = [
            ("view", view.as_str()),
            ("view", "CREATE VIEW other AS SELECT 1"),
            (
                "trigger",
                "CREATE TRIGGER t AFTER INSERT ON in_trendmicro_cursor
                 BEGIN UPDATE in_trendmicro_cursor SET position_ms = 9e15; END",
            ),
            (
                "table \"in_trendmicro_meta\"",
                "DROP TABLE in_trendmicro_meta;
                 CREATE VIRTUAL TABLE in_trendmicro_meta USING fts5(name, value)",
            ),
            (
                "table \"in_trendmicro_cursor\"",
                "ALTER TABLE in_trendmicro_cursor ADD COLUMN x AS (zeroblob(1000000))",
            ),
            ("index", "CREATE INDEX i ON in_trendmicro_cursor (hex(zeroblob(1000000)))"),
            ("table \"other\"", "CREATE TABLE other (x)"),
            ("lacks the table", "DROP TABLE in_trendmicro_meta"),
            ("version -1", "PRAGMA user_version = -1"),
        ];
        for (says, plant) in plants {
            let dir = tempfile::tempdir().unwrap();
            let path = filled(dir.path());
            Connection::open(&path).unwrap().execute_batch(plant).unwrap();
            let mut store = Sqlite::open(&path, "NORMAL").unwrap_or_else(|e| panic!("{says}: {e}"));
            let notice = store.notice().unwrap_or_else(|| panic!("{plant} was taken"));
            assert!(notice.contains("state.db.damaged") && notice.contains(says), "{notice}");
            assert!(store.load("a").unwrap().is_unknown, "{plant}");
            assert!(dir.path().join("state.db.damaged").exists());
        }
    }

    /// SQLite could take such a path for the description of a database in memory.
    #[test]
    fn a_path_is_a_path_and_no_uri() {
        for name in ["file:state.db?mode=memory", "file:state.db?immutable=1"] {
            // Nothing but a relative path can begin so, and the directory belongs to all tests.
            let name = format!("{name}&{}", std::process::id());
            let path = Path::new(&name);
            let change = Change { stream: "a".into(), cursor: Some(at(10)), ..Change::default() };
            Sqlite::open(path, "NORMAL").unwrap().commit(&[change]).unwrap();
            let there = path.metadata().map(|meta| meta.len());
            let saved = Sqlite::open(path, "NORMAL").and_then(|mut store| store.load("a"));
            std::fs::remove_file(path).unwrap();
            assert!(there.unwrap() > 0, "{name}");
            assert_eq!(saved.unwrap().cursor, Some(at(10)), "{name}");
        }
    }

    #[test]
    fn an_inventory_without_an_end_is_not_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Sqlite::open(&dir.path().join("state.db"), "NORMAL").unwrap();
        let entities = (0..100).map(|key| (sweep::Change::Added, entity(key))).collect();
        store.commit(&[Change { stream: "a".into(), entities, ..Change::default() }]).unwrap();
        assert_eq!(store.load("a").unwrap().entities.len(), 100);
        let error = store.load_within("a", 5_000).unwrap_err().to_string();
        assert!(error.contains("takes more than 5000 bytes") && error.contains("db = "), "{error}");
    }

    #[test]
    fn a_file_that_goes_or_breaks_while_it_is_open_is_made_anew_from_what_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path());
        let mut store = Sqlite::open(&path, "NORMAL").unwrap();
        let all = [Change { stream: "a".into(), cursor: Some(at(30)), ..Change::default() }];
        let damaged = |store: &mut Sqlite| {
            let error = store.commit(&all).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        };
        std::fs::remove_file(&path).unwrap();
        damaged(&mut store);
        assert_eq!(store.renew(&all).unwrap(), "written anew");
        store.commit(&all).unwrap();
        std::fs::write(dir.path().join("other"), "somebody put another file here").unwrap();
        std::fs::rename(dir.path().join("other"), &path).unwrap();
        damaged(&mut store);
        assert!(store.renew(&all).unwrap().contains("state.db.damaged"));
        assert_eq!(store.load("a").unwrap().cursor, Some(at(30)));
        drop(store);
        let mut store = Sqlite::open(&path, "NORMAL").unwrap();
        assert_eq!(store.load("a").unwrap().cursor, Some(at(30)));

        // Without its directory nothing can be written; with it, all is well again.
        std::fs::rename(dir.path().join("state.db"), dir.path().join("kept")).unwrap();
        let gone = tempfile::tempdir().unwrap();
        let path = filled(gone.path());
        let mut store = Sqlite::open(&path, "NORMAL").unwrap();
        let away = dir.path().join("away");
        std::fs::rename(gone.path(), &away).unwrap();
        damaged(&mut store);
        assert_eq!(store.renew(&all).unwrap_err().kind(), ErrorKind::Config);
        std::fs::rename(&away, gone.path()).unwrap();
        store.renew(&all).unwrap();
        assert_eq!(store.load("a").unwrap().cursor, Some(at(30)));
    }

    #[test]
    fn a_file_of_the_first_schema_is_read_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(SCHEMA[0]).unwrap();
        old.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        let id = Id(7).0.to_be_bytes();
        old.execute("INSERT INTO in_trendmicro_cursor VALUES ('a', 10000)", []).unwrap();
        old.execute("INSERT INTO in_trendmicro_ledger VALUES ('a', 10000, ?1)", [id]).unwrap();
        drop(old);
        let mut store = Sqlite::open(&path, "NORMAL").unwrap();
        let saved = store.load("a").unwrap();
        assert_eq!((saved.cursor, saved.verified), (Some(at(10)), [None; 3]));
        assert_eq!(recall(&mut store, "a", 5, 99), [(at(10), Id(7))]);
    }
}
