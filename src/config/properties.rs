//! How properties are looked up, and what a person reads when one of them is wrong.
//!
//! Every error is one line, `KEY = "VALUE": why; legal: …; write: …`. It says what is legal for the
//! connector's own product as far as that is known, and never shows a secret.

use std::borrow::Cow;

use super::Lookup;
use super::options::{self, Opt, Scope};
use super::value::Why;
use crate::connector::Product;
use crate::error::{Error, Result};

/// What is shown of a value; the rest would only make the line long.
const VALUE_CHARS_MAX: usize = 200;
/// What is shown of the part of a value that is wrong.
const PART_CHARS_MAX: usize = 60;
/// Where no region has a host, this is what a customer's own address looks like.
const CUSTOMER_URL: &str = "https://acme.manage.trendmicro.com";

/// The properties that one connector, or the stanza itself, sees.
#[derive(Clone, Copy)]
pub(super) struct Properties<'a> {
    pub(super) lookup: Lookup<'a>,
    pub(super) name: Option<&'a str>,
    /// Whose defaults hold.
    pub(super) product: Option<&'static Product>,
}

impl<'a> Properties<'a> {
    /// Of the stanza itself.
    pub(super) fn of_stanza(lookup: Lookup<'a>) -> Self {
        Self { lookup, name: None, product: None }
    }

    /// Of the connector of that name.
    pub(super) fn of_connector(lookup: Lookup<'a>, name: &'a str) -> Self {
        Self { lookup, name: Some(name), product: None }
    }

    /// The key that holds the value, and the value with surrounding space removed.
    pub(super) fn get(&self, opt: &Opt) -> Option<(String, String)> {
        let prefixed = self.name.map(|name| format!("{name}.{}", opt.name));
        prefixed.into_iter().chain([opt.name.to_owned()]).find_map(|key| {
            let value = self.written(&key)?;
            Some((key, value))
        })
    }

    /// What stands behind exactly this key; only spaces are nothing.
    pub(super) fn written(&self, key: &str) -> Option<String> {
        let value = (self.lookup)(key)?;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// The key that a person would write for `opt` here.
    pub(super) fn key(&self, opt: &Opt) -> String {
        match (self.name, opt.scope) {
            (Some(name), Scope::Connector | Scope::Only(_)) => format!("{name}.{}", opt.name),
            _ => opt.name.to_owned(),
        }
    }

    /// A property that has a default or is required.
    pub(super) fn parse<T, W: Into<Why>>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, W>,
    ) -> Result<T> {
        let opt = option(name);
        if let Some((key, value)) = self.get(opt) {
            return read(&value).map_err(|why| self.wrong(opt, &key, &value, why));
        }
        let default = self.default(opt);
        if default.is_empty() {
            return Err(self.missing(opt, None));
        }
        read(default).map_err(|why| self.wrong(opt, opt.name, default, why))
    }

    /// A property that only some products have; without it, nothing.
    pub(super) fn parse_if_used<T: Default, W: Into<Why>>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, W>,
    ) -> Result<T> {
        let is_used = self.product.is_none_or(|product| is_used(option(name), product));
        if is_used { self.parse(name, read) } else { Ok(T::default()) }
    }

    /// A property that may be absent.
    pub(super) fn parse_optional<T, W: Into<Why>>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, W>,
    ) -> Result<Option<T>> {
        let opt = option(name);
        let Some((key, value)) = self.get(opt) else { return Ok(None) };
        read(&value).map(Some).map_err(|why| self.wrong(opt, &key, &value, why))
    }

    /// The product's own default, or the common one.
    fn default(&self, opt: &Opt) -> &'static str {
        let common = || opt.default.split(';').next().unwrap_or_default();
        self.own_default(opt).unwrap_or_else(common)
    }

    fn own_default(&self, opt: &Opt) -> Option<&'static str> {
        let (_, default) = self.product?.defaults.iter().find(|(name, _)| *name == opt.name)?;
        Some(default)
    }

    /// What is legal for this product, or for all of them if it is not known.
    pub(super) fn legal(&self, opt: &Opt) -> Cow<'static, str> {
        match (opt.name, self.product) {
            ("region", Some(product)) => {
                let names: Vec<&str> = product.regions.iter().map(|(name, _)| *name).collect();
                names.join(", ").into()
            }
            ("content_types", Some(product)) => match product.content_types {
                [only] => format!("all or {only}").into(),
                several => {
                    format!("all, or a comma-separated list of {}", several.join(", ")).into()
                }
            },
            _ => opt.legal.into(),
        }
    }

    /// A value that is right for this product.
    pub(super) fn example(&self, opt: &Opt) -> Cow<'static, str> {
        match (opt.name, self.product) {
            ("base_url", Some(product)) => match product.regions.first() {
                Some((_, host)) => format!("https://{host}").into(),
                None => CUSTOMER_URL.into(),
            },
            _ => self.own_default(opt).unwrap_or(opt.example).into(),
        }
    }

    /// The error for a value that is not legal.
    pub(super) fn wrong(&self, opt: &Opt, key: &str, value: &str, why: impl Into<Why>) -> Error {
        let Why { words, part } = why.into();
        let part = part.filter(|_| !opt.hides(value));
        let part =
            part.map_or(String::new(), |part| format!(" \"{}\"", cut(&part, PART_CHARS_MAX)));
        let (shown, legal, example) = (shown(opt, value), self.legal(opt), self.example(opt));
        // What is right for one product may be wrong for another that has the same default.
        let is_per_product = matches!(opt.name, "content_types" | "region");
        let meant = if is_per_product { self.key(opt) } else { key.to_owned() };
        Error::config(format!(
            "{key}{shown}: {words}{part}; legal: {legal}; write: {meant}: {example}"
        ))
    }

    /// The error for a property that has to be there.
    pub(super) fn missing(&self, opt: &Opt, because: Option<&str>) -> Error {
        let (key, legal, example) = (self.key(opt), self.legal(opt), self.example(opt));
        let because = because.map_or(String::new(), |because| format!(", because {because}"));
        Error::config(format!("{key} is missing{because}; legal: {legal}; write: {key}: {example}"))
    }
}

/// The table has every name that this room asks for; a test reads them all.
pub(super) fn option(name: &str) -> &'static Opt {
    options::find(name).expect("every property that is read stands in OPTIONS")
}

/// Whether connectors of a product have a property.
pub(super) fn is_used(opt: &Opt, product: &Product) -> bool {
    match opt.scope {
        Scope::Only(products) => products.contains(&product.name),
        Scope::Stanza | Scope::Connector => true,
    }
}

/// The value as it stands in an error.
pub(super) fn shown(opt: &Opt, value: &str) -> String {
    if opt.hides(value) {
        return String::new();
    }
    format!(" = \"{}\"", cut(value, VALUE_CHARS_MAX))
}

fn cut(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}
