//! Which keys a stanza may hold: names of connectors, and none that looks like one of ours.

use super::options::{self, MISTAKEN, OPTIONS, Opt, RESERVED, Scope};
use super::{Lookup, Properties, option, value};
use crate::connector::Product;
use crate::error::{Error, Result};

/// Connectors in one stanza; each is a thread.
const CONNECTORS_MAX: usize = 256;
/// Long names make unreadable tags and log lines.
const NAME_CHARS_MAX: usize = 64;

/// The names in `connectors`, or `None` for a stanza that is one connector.
pub(super) fn connector_names(lookup: Lookup<'_>) -> Result<Option<Vec<String>>> {
    let stanza = Properties { lookup, name: None, product: None };
    let names = stanza.parse_optional("connectors", |text| {
        let names = value::list(text)?;
        if names.len() > CONNECTORS_MAX {
            return Err("more than 256 connectors");
        }
        for (i, name) in names.iter().enumerate() {
            check_name(name)?;
            if names[..i].iter().any(|other| other.eq_ignore_ascii_case(name)) {
                return Err("a name stands twice");
            }
        }
        Ok(names.into_iter().map(str::to_owned).collect())
    })?;
    Ok(names)
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.len() > NAME_CHARS_MAX {
        return Err("a name of more than 64 characters");
    }
    if !name.chars().all(is_plain) {
        return Err("a name with other characters");
    }
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&lower.as_str()) || lower.starts_with("oauth2") {
        return Err("a name that the host keeps for itself");
    }
    Ok(())
}

/// Refuses keys that look like one of ours; the host would ignore them without a word.
pub(super) fn refuse_mistaken_keys(lookup: Lookup<'_>, prefixes: &[String]) -> Result<()> {
    for (i, prefix) in prefixes.iter().enumerate() {
        let misspelt = OPTIONS
            .iter()
            .flat_map(|opt| options::misspellings(opt.name).map(move |key| (key, opt.name)));
        let mistaken = MISTAKEN.iter().map(|&(key, meant)| (key.to_owned(), meant));
        for (key, meant) in misspelt.chain(mistaken) {
            if options::find(&key).is_none() && lookup(&format!("{prefix}{key}")).is_some() {
                return Err(unknown(&format!("{prefix}{key}"), &format!("{prefix}{meant}"), meant));
            }
        }
        if i > 0 {
            refuse_stanza_keys(lookup, prefix)?;
        }
    }
    Ok(())
}

/// What belongs to the whole stanza has no effect behind a connector's name.
fn refuse_stanza_keys(lookup: Lookup<'_>, prefix: &str) -> Result<()> {
    let of_stanza = OPTIONS.iter().filter(|opt| opt.scope == Scope::Stanza);
    for opt in of_stanza {
        let key = format!("{prefix}{}", opt.name);
        if lookup(&key).is_some() {
            let Opt { name, legal, example, .. } = opt;
            return Err(Error::config(format!(
                "{key} is set for one connector, but belongs to the whole stanza; legal: {legal}; \
                 write: {name}: {example}"
            )));
        }
    }
    Ok(())
}

fn unknown(key: &str, meant: &str, option_name: &str) -> Error {
    let Opt { legal, example, .. } = option(option_name);
    Error::config(format!(
        "{key} is no property of this plugin; did you mean {meant}? legal: {legal}; \
         write: {meant}: {example}"
    ))
}

/// A property that this product does not use is a misunderstanding, unless it is a default for others.
pub(super) fn refuse_foreign_keys(properties: &Properties<'_>, product: &Product) -> Result<()> {
    for opt in OPTIONS {
        let Scope::Only(products) = opt.scope else { continue };
        let key = properties.key(opt);
        if !products.contains(&product.name) && (properties.lookup)(&key).is_some() {
            return Err(Error::config(format!(
                "{key} is not used by connector {}; legal: with {}; write: remove {key}",
                product.name,
                products.join(", "),
            )));
        }
    }
    Ok(())
}
