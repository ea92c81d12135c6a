//! Which keys a stanza may hold: names of connectors, and none that looks like one of ours.

use super::mistaken::{MISTAKEN, OTHERWISE_MEANT, RESERVED, misspellings};
use super::options::{self, OPTIONS, Opt, Scope};
use super::properties::{Properties, is_used, option, shown};
use super::value::{self, Why};
use super::{Config, ConnectorConfig, Lookup};
use crate::connector::{self, PRODUCTS, Product};
use crate::error::{Error, Result};

/// Connectors in one stanza; each is a thread.
const CONNECTORS_MAX: usize = 256;
/// Long names make unreadable tags and log lines.
const NAME_CHARS_MAX: usize = 64;
/// A longer value is not repeated in the line to write.
const ADVICE_CHARS_MAX: usize = 100;

/// The names in `connectors`, or `None` for a stanza that is one connector.
pub(super) fn connector_names(lookup: Lookup<'_>) -> Result<Option<Vec<String>>> {
    Properties::of_stanza(lookup).parse_optional("connectors", |text| {
        let names = value::list(text)?;
        if names.len() > CONNECTORS_MAX {
            return Err("more than 256 connectors".into());
        }
        for (i, name) in names.iter().enumerate() {
            check_name(name).map_err(|words| Why::of(words, name))?;
            if names[..i].iter().any(|other| other.eq_ignore_ascii_case(name)) {
                return Err(Why::of("repeated name", name));
            }
        }
        Ok(names.into_iter().map(str::to_owned).collect())
    })
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.len() > NAME_CHARS_MAX {
        return Err("name of more than 64 characters");
    }
    if !name.chars().all(is_plain) {
        return Err("name with other characters");
    }
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&lower.as_str()) || lower.starts_with("oauth2") {
        return Err("name that the host keeps for itself");
    }
    Ok(())
}

/// Refuses keys that look like one of ours; the host would ignore them without a word.
pub(super) fn refuse_mistaken_keys(lookup: Lookup<'_>, names: Option<&[String]>) -> Result<()> {
    let mut stanza = Properties::of_stanza(lookup);
    if names.is_none() {
        stanza.product = product_of(&stanza);
    }
    refuse_mistaken(&stanza)?;
    for name in names.into_iter().flatten() {
        let mut properties = Properties::of_connector(lookup, name);
        properties.product = product_of(&properties);
        refuse_mistaken(&properties)?;
        refuse_stanza_keys(&properties)?;
    }
    Ok(())
}

fn product_of(properties: &Properties<'_>) -> Option<&'static Product> {
    properties.get(option("connector")).and_then(|(_, text)| connector::product(&text))
}

fn refuse_mistaken(properties: &Properties<'_>) -> Result<()> {
    let misspelt =
        OPTIONS.iter().flat_map(|opt| misspellings(opt.name).map(move |key| (key, opt.name)));
    let mistaken = MISTAKEN.iter().map(|&(key, meant)| (key.to_owned(), meant));
    for (bare, meant) in misspelt.chain(mistaken).filter(|(key, _)| options::find(key).is_none()) {
        let key = properties.name.map_or(bare.clone(), |name| format!("{name}.{bare}"));
        let Some(value) = properties.written(&key) else { continue };
        let opt = option(meant);
        let words = format!("no property of this plugin, but {} is", properties.key(opt));
        let is_same = !OTHERWISE_MEANT.contains(&bare.as_str());
        return Err(misplaced(properties, opt, &key, &value, &words, is_same));
    }
    Ok(())
}

/// What belongs to the whole stanza has no effect behind a connector's name.
fn refuse_stanza_keys(properties: &Properties<'_>) -> Result<()> {
    let Some(name) = properties.name else { return Ok(()) };
    for opt in OPTIONS.iter().filter(|opt| opt.scope == Scope::Stanza) {
        let key = format!("{name}.{}", opt.name);
        if let Some(value) = properties.written(&key) {
            let words = "set for one connector, but belongs to the whole stanza";
            return Err(misplaced(properties, opt, &key, &value, words, true));
        }
    }
    Ok(())
}

/// The error for a value behind the wrong key; it advises the value itself where that is legal.
fn misplaced(
    properties: &Properties<'_>,
    opt: &Opt,
    key: &str,
    value: &str,
    words: &str,
    is_same: bool,
) -> Error {
    let is_fit = is_same
        && !opt.hides(value)
        && value.chars().count() <= ADVICE_CHARS_MAX
        && !value.contains(char::is_control)
        && match properties.product {
            Some(product) => is_legal(opt, value, product),
            None => PRODUCTS.iter().any(|product| is_legal(opt, value, product)),
        };
    let written = if is_fit { value.into() } else { properties.example(opt) };
    let (shown, legal, meant) = (shown(opt, value), properties.legal(opt), properties.key(opt));
    Error::config(format!("{key}{shown}: {words}; legal: {legal}; write: {meant}: {written}"))
}

/// Whether a connector of `product` in which all else is right would take this value.
fn is_legal(opt: &Opt, value: &str, product: &Product) -> bool {
    let lookup = |key: &str| {
        let text = match key {
            _ if key == opt.name => value,
            "connector" => product.name,
            "base_url" => "https://localhost",
            "api_key" if opt.name != "api_key_file" => "x",
            "username" | "application_id" if is_used(option(key), product) => "x",
            _ => return None,
        };
        Some(text.to_owned())
    };
    let is_other = |error: Error| {
        let text = error.to_string();
        // It may still want a second property, such as the key to a certificate.
        !text.strip_prefix(opt.name).is_some_and(|rest| rest.starts_with([' ', ':']))
    };
    Config::read(&lookup).map_or_else(is_other, |_| true)
}

/// A property that this product does not use is a misunderstanding, unless it is a default for others.
pub(super) fn refuse_foreign_keys(properties: &Properties<'_>, product: &Product) -> Result<()> {
    for opt in OPTIONS.iter().filter(|opt| !is_used(opt, product)) {
        let words = format!("not used by connector {}", product.name);
        refuse_if_written(properties, opt, &properties.key(opt), &words)?;
    }
    Ok(())
}

/// A default for all connectors that none of them uses is one, too.
pub(super) fn refuse_unused_defaults(
    lookup: Lookup<'_>,
    connectors: &[ConnectorConfig],
) -> Result<()> {
    let is_unused = |opt: &&Opt| !connectors.iter().any(|one| is_used(opt, one.product));
    let stanza = Properties::of_stanza(lookup);
    for opt in OPTIONS.iter().filter(is_unused) {
        refuse_if_written(&stanza, opt, opt.name, "not used by any connector of this stanza")?;
    }
    Ok(())
}

fn refuse_if_written(properties: &Properties<'_>, opt: &Opt, key: &str, words: &str) -> Result<()> {
    let Scope::Only(products) = opt.scope else { return Ok(()) };
    let Some(value) = properties.written(key) else { return Ok(()) };
    let (shown, legal) = (shown(opt, &value), products.join(", "));
    Err(Error::config(format!("{key}{shown}: {words}; legal: with {legal}; write: remove {key}")))
}
