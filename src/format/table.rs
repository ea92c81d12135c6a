//! The vocabulary of mapping tables: which field is filled with what.
//!
//! A table is read by people against the vendor's field list, compiled by `plan`, and printed into
//! the documentation. Paths are keys joined by dots. A target's key that ends in `[]` is a list of
//! one; a target that ends in `.*` takes everything that found no home.

use std::borrow::Cow;

/// One line of a table: the target's path, and what fills it.
#[derive(Debug)]
pub struct Row(pub &'static str, pub Fill);

/// What fills a target.
#[derive(Debug)]
pub enum Fill {
    /// The same value in every event.
    Fixed(Literal),
    /// What we know beside the record.
    Ours(Ours),
    /// A value for each thing that can have happened to a record of an inventory.
    ByChange(Changes),
    /// The time of the event, as the vendor's field has it if that is a time.
    Time(&'static str),
    /// The first of these fields that can be converted.
    From(&'static [&'static str], Convert),
    /// The texts of all these fields, in a list.
    List(&'static [Texts]),
    /// The texts of the first of these fields that has any.
    FirstList(&'static [Texts]),
    /// The same for a list that only helps to search, in which each text stands once.
    Related(&'static [Texts]),
    /// Everything that found no home, under the vendor's own names.
    Rest,
}

/// A value that stands in a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Literal {
    /// Nothing: the target is left out.
    None,
    /// A text.
    Text(&'static str),
    /// A number.
    Number(u64),
    /// True or false.
    Flag(bool),
    /// Texts in a list.
    Texts(&'static [&'static str]),
    /// Numbers in a list.
    Numbers(&'static [u64]),
}

/// A value by what happened to the record.
#[derive(Debug)]
pub struct Changes {
    /// When nothing is told of changes.
    pub none: Literal,
    /// When it is new.
    pub added: Literal,
    /// When it is not as it was.
    pub changed: Literal,
    /// When it is gone.
    pub removed: Literal,
}

/// What we know beside the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ours {
    /// The vendor's JSON, as received.
    Original,
    /// The record's `event_id`.
    EventId,
    /// The time of the event.
    EventTime,
    /// The same in milliseconds.
    EventMillis,
    /// The time at which the vendor was asked.
    PollTime,
    /// The same in milliseconds.
    PollMillis,
    /// What happened to a record of an inventory, if that is told.
    Change,
    /// `tenant_name`, if it is set.
    Tenant,
    /// The connector's name.
    Connector,
    /// `msg_class`.
    MsgClass,
    /// `msg_origin.source`.
    Source,
    /// The source and the content type, joined by a dot.
    Dataset,
    /// A member that the envelope would have beside the common ones.
    Member(&'static str),
}

/// Texts of one field: its path, the member of each element if it holds objects, and which part.
#[derive(Debug)]
pub struct Texts(pub &'static str, pub &'static str, pub Pick);

/// Which texts are taken out of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Every text.
    Text,
    /// Every text, sorted.
    Sorted,
    /// Mail addresses, without display names and angle brackets; other texts as they are.
    Address,
    /// The same, without the other texts.
    Email,
    /// IP addresses out of comma-separated lists, without zones.
    Ip,
    /// MAC addresses out of comma-separated lists, as ECS writes them.
    Mac,
    /// The host that a mail was delivered to.
    DeliveredHost,
    /// The address that a mail was delivered to.
    DeliveredIp,
}

/// How one value becomes another.
#[derive(Debug)]
pub enum Convert {
    /// A text that is not empty.
    Text,
    /// Anything that is not empty.
    Any,
    /// A message ID without its angle brackets.
    MessageId,
    /// A date.
    Date,
    /// A date, as milliseconds since 1970.
    Millis,
    /// An integer from 0 to 2^63 - 1.
    Long,
    /// An integer, as text.
    Digits,
    /// An IP address.
    Ip,
    /// The first IP address of a comma-separated list.
    FirstIp,
    /// A mail address, without a display name and angle brackets; another text as it is.
    Address,
    /// The same, but no other text.
    Email,
    /// A text under the name that the target has for it; other texts stay.
    Rename(&'static [(&'static str, &'static str)]),
    /// What a text stands for; the second value for all others, and where there is none.
    Classify(&'static [(&'static str, Literal)], Literal),
    /// What a text that begins so stands for; the second value for all others, and where there is
    /// none.
    ClassifyStart(&'static [(&'static str, Literal)], Literal),
    /// A part of where a mail was delivered to.
    Delivered(Delivered),
    /// A part of what is said about TLS.
    Tls(Tls),
    /// Each object of a list, by a table of its own.
    Each(&'static [Row]),
    /// Each text of a list, as an object with that key.
    Wrapped(&'static str, Pick),
}

/// A part of `host[1.2.3.4]:25`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The host's name.
    Host,
    /// Its address.
    Ip,
    /// The port.
    Port,
}

/// A part of `upstreamTLS: TLS 1.2; downstreamTLS: None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// The version towards the sender.
    Version,
    /// Whether the sender spoke TLS at all.
    Established,
}

impl Row {
    /// The vendor's fields that this row reads, for the documentation.
    #[must_use]
    pub fn sources(&self) -> Vec<String> {
        let texts = |texts: &[Texts]| texts.iter().map(Texts::name).collect();
        match &self.1 {
            Fill::Time(path) => vec![(*path).to_owned()],
            Fill::From(paths, _) => paths.iter().map(|&path| path.to_owned()).collect(),
            Fill::List(list) | Fill::FirstList(list) | Fill::Related(list) => texts(list),
            _ => Vec::new(),
        }
    }

    /// What becomes of them, in words.
    #[must_use]
    pub fn words(&self) -> Cow<'static, str> {
        match &self.1 {
            Fill::Fixed(literal) => format!("always {}", literal.words()).into(),
            Fill::Ours(ours) => ours.words().into(),
            Fill::ByChange(changes) => changes.words().into(),
            Fill::Time(_) => "the time; the time of the poll if it is missing".into(),
            Fill::From(_, convert) => convert.words(),
            Fill::List(list) => {
                format!("a list of {}", list.first().map_or("", |texts| texts.2.words())).into()
            }
            Fill::FirstList(list) => {
                let words = list.first().map_or("", |texts| texts.2.words());
                format!("a list of {words}, of the first that has any").into()
            }
            Fill::Related(_) => "all of them, each once".into(),
            Fill::Rest => "every other field, and every value that does not fit its target".into(),
        }
    }
}

impl Texts {
    fn name(&self) -> String {
        let Self(path, member, _) = self;
        if member.is_empty() { (*path).to_owned() } else { format!("{path}[].{member}") }
    }
}

impl Literal {
    /// As JSON in code marks, for the documentation.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::None => "nothing".to_owned(),
            Self::Text(text) => format!("`\"{text}\"`"),
            Self::Number(number) => format!("`{number}`"),
            Self::Flag(flag) => format!("`{flag}`"),
            Self::Texts(texts) => format!("`[\"{}\"]`", texts.join("\", \"")),
            Self::Numbers(numbers) => format!("`{numbers:?}`"),
        }
    }
}

impl Changes {
    fn words(&self) -> String {
        let Self { none, added, changed, removed } = self;
        let mut words = none.words();
        for (name, literal) in [("added", added), ("changed", changed), ("removed", removed)] {
            words.push_str(&format!("; {name}: {}", literal.words()));
        }
        words
    }
}

impl Ours {
    fn words(self) -> String {
        match self {
            Self::Original => "the vendor's JSON as received".to_owned(),
            Self::EventId => "`event_id`".to_owned(),
            Self::EventTime => "the event's time".to_owned(),
            Self::EventMillis => "the event's time in milliseconds".to_owned(),
            Self::PollTime => "when the vendor was asked".to_owned(),
            Self::PollMillis => "when the vendor was asked, in milliseconds".to_owned(),
            Self::Change => "`change`, with `emit: changes`".to_owned(),
            Self::Tenant => "`tenant_name`".to_owned(),
            Self::Connector => "the connector's name".to_owned(),
            Self::MsgClass => "`msg_class`".to_owned(),
            Self::Source => "`msg_origin.source`".to_owned(),
            Self::Dataset => "`msg_origin.source` and the content type".to_owned(),
            Self::Member(name) => format!("the {name} that was asked for").replace('_', " "),
        }
    }
}

impl Pick {
    fn words(self) -> &'static str {
        match self {
            Self::Text => "texts",
            Self::Sorted => "texts, sorted",
            Self::Address | Self::Email => "mail addresses, without display names",
            Self::Ip => "IP addresses, without zones",
            Self::Mac => "MAC addresses in upper case with `-`",
            Self::DeliveredHost => "hosts",
            Self::DeliveredIp => "addresses",
        }
    }
}

impl Convert {
    fn words(&self) -> Cow<'static, str> {
        let table = |pairs: &[(&str, Literal)], other: &Literal| {
            let pair = |(text, literal): &(&str, Literal)| format!("{text}: {}", literal.words());
            let pairs: Vec<String> = pairs.iter().map(pair).collect();
            format!("{}; else {}", pairs.join(", "), other.words())
        };
        match self {
            Self::Text | Self::Any => "as it is".into(),
            Self::MessageId => "without `<` and `>`".into(),
            Self::Date => "a date".into(),
            Self::Millis => "a date, in milliseconds".into(),
            Self::Long => "an integer".into(),
            Self::Digits => "an integer, as text".into(),
            Self::Ip => "an IP address".into(),
            Self::FirstIp => "the first IP address".into(),
            Self::Address | Self::Email => "a mail address, without a display name".into(),
            Self::Rename(pairs) => {
                let pair = |(from, to): &(&str, &str)| format!("{from}: `\"{to}\"`");
                let pairs: Vec<String> = pairs.iter().map(pair).collect();
                format!("{}; else as it is", pairs.join(", ")).into()
            }
            Self::Classify(pairs, other) => table(pairs, other).into(),
            Self::ClassifyStart(pairs, other) => {
                format!("by its beginning: {}", table(pairs, other)).into()
            }
            Self::Delivered(Delivered::Host) => "the host in it".into(),
            Self::Delivered(Delivered::Ip) => "the address in it".into(),
            Self::Delivered(Delivered::Port) => "the port in it".into(),
            Self::Tls(Tls::Version) => "the version of `upstreamTLS`".into(),
            Self::Tls(Tls::Established) => "whether `upstreamTLS` is one".into(),
            Self::Each(rows) => {
                let row = |row: &Row| match row.sources().first() {
                    Some(source) => format!("`{}` from `{source}`", row.0),
                    None => format!("`{}` {}", row.0, row.words()),
                };
                let rows: Vec<String> = rows.iter().map(row).collect();
                format!("for each: {}", rows.join(", ")).into()
            }
            Self::Wrapped(key, pick) => format!("for each of its {}: `{key}`", pick.words()).into(),
        }
    }
}
