//! Credentials on requests, made anew for every attempt.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};

use crate::error::{Error, ErrorKind, Result};
use crate::secret::{Credential, Secret};

/// How an API wants to know who asks.
pub enum Scheme {
    /// RFC 7617: `Authorization: Basic base64(username:key)`.
    Basic {
        /// The login ID.
        username: String,
    },
}

/// A scheme with its credential.
pub struct Authenticator {
    scheme: Scheme,
    credential: Arc<Credential>,
}

impl Authenticator {
    /// Joins a scheme and a credential.
    #[must_use]
    pub fn new(scheme: Scheme, credential: Arc<Credential>) -> Self {
        Self { scheme, credential }
    }

    /// The header for a request that is sent now.
    ///
    /// # Errors
    /// When the credential's file cannot be read at the moment.
    pub fn header(&self) -> Result<(HeaderName, HeaderValue)> {
        let secret = self.credential.get().map_err(|error| {
            Error::new(ErrorKind::Refused, "the API key is not to be had").caused_by(error)
        })?;
        let value = Secret::new(&match &self.scheme {
            Scheme::Basic { username } => format!("Basic {}", basic(username, &secret)),
        });
        let mut header = HeaderValue::from_str(value.expose())
            .map_err(|_| Error::new(ErrorKind::Refused, "the API key is not fit for a header"))?;
        header.set_sensitive(true);
        Ok((AUTHORIZATION, header))
    }

    /// Removes the credential from the text of a refusal, since that may be shown.
    pub fn redact(&self, refusal: &mut Vec<u8>) {
        if refusal.is_empty() {
            return;
        }
        let Ok(secret) = self.credential.get() else { return refusal.clear() };
        let mut text = String::from_utf8_lossy(refusal).replace(secret.expose(), "[redacted]");
        match &self.scheme {
            Scheme::Basic { username } => {
                text = text.replace(&basic(username, &secret), "[redacted]");
            }
        }
        *refusal = text.into_bytes();
    }
}

fn basic(username: &str, secret: &Secret) -> String {
    STANDARD.encode(Secret::new(&format!("{username}:{}", secret.expose())).expose())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_is_as_in_the_rfc_and_never_shown() {
        let credential = Arc::new(Credential::Inline(Secret::new("open sesame")));
        let auth = Authenticator::new(Scheme::Basic { username: "Aladdin".to_owned() }, credential);
        let (_, value) = auth.header().unwrap();
        assert_eq!(value.to_str().unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(format!("{value:?}"), "Sensitive");
        let mut echoed = b"bad: open sesame, QWxhZGRpbjpvcGVuIHNlc2FtZQ==".to_vec();
        auth.redact(&mut echoed);
        assert_eq!(echoed, b"bad: [redacted], [redacted]");
    }
}
