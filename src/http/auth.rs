//! Credentials on requests, made anew for every attempt.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Request;
use super::redact::hide;
use crate::clock::{Time, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::{Credential, Secret};

/// A difference of clocks that explains why a signature is refused; the vendor allows 120 s.
const SKEW_MIN: TimeDelta = TimeDelta::seconds(30);

/// How an API wants to know who asks.
pub enum Scheme {
    /// RFC 7617: `Authorization: Basic base64(username:key)`.
    Basic {
        /// The login ID.
        username: String,
    },
    /// RFC 6750: `Authorization: Bearer key`.
    Bearer,
    /// A JWT signed with the key over method, path, query and body.
    Jwt {
        /// The application that the key belongs to.
        application_id: String,
    },
    /// Account keys (`tmc…`) in `Authorization: ApiKey key`, others in `api-secret-key: key`.
    WorkloadKey,
}

/// A scheme with its credential.
pub struct Authenticator {
    scheme: Scheme,
    credential: Arc<Credential>,
    /// What to add to our clock to have the vendor's, as far as a refusal has taught us.
    skew: Mutex<TimeDelta>,
    /// The last request's key, and what was sent of it without the scheme's name.
    sent: Mutex<Option<[Secret; 2]>>,
}

impl Authenticator {
    /// Joins a scheme and a credential.
    #[must_use]
    pub fn new(scheme: Scheme, credential: Arc<Credential>) -> Self {
        Self { scheme, credential, skew: Mutex::new(TimeDelta::zero()), sent: Mutex::default() }
    }

    /// The header for a request that is sent now.
    ///
    /// # Errors
    /// When the credential's file cannot be read at the moment.
    pub fn header(&self, request: &Request, now: Time) -> Result<(HeaderName, HeaderValue)> {
        let secret = self.credential.get().map_err(|error| {
            Error::new(ErrorKind::Refused, "the API key is not to be had").caused_by(error)
        })?;
        let key = secret.expose();
        let (name, value) = match &self.scheme {
            Scheme::Basic { username } => {
                let pair = Zeroizing::new(format!("{username}:{key}"));
                (AUTHORIZATION, format!("Basic {}", *Zeroizing::new(STANDARD.encode(&*pair))))
            }
            Scheme::Bearer => (AUTHORIZATION, format!("Bearer {key}")),
            Scheme::Jwt { application_id } => {
                // A clock beyond all times is none to go by.
                let issued_at = now.checked_add_signed(*lock(&self.skew)).unwrap_or(now);
                (AUTHORIZATION, format!("Bearer {}", jwt(application_id, key, request, issued_at)))
            }
            Scheme::WorkloadKey if key.starts_with("tmc") => {
                (AUTHORIZATION, format!("ApiKey {key}"))
            }
            Scheme::WorkloadKey => (HeaderName::from_static("api-secret-key"), key.to_owned()),
        };
        let value = Zeroizing::new(value);
        let sent = Secret::new(value.rsplit(' ').next().unwrap_or_default());
        *lock(&self.sent) = Some([secret.clone(), sent]);
        let mut header = HeaderValue::from_str(&value)
            .map_err(|_| Error::new(ErrorKind::Refused, "the API key is not fit for a header"))?;
        header.set_sensitive(true);
        Ok((name, header))
    }

    /// Learns from a refusal's `Date` how far our clock is off; true if that was news that a signed
    /// request can use.
    pub fn learn_skew(&self, date: Option<Time>, now: Time) -> bool {
        let (Scheme::Jwt { .. }, Some(date)) = (&self.scheme, date) else { return false };
        let mut skew = lock(&self.skew);
        let seen = date - now;
        let is_news = (seen - *skew).abs() > SKEW_MIN;
        if is_news {
            *skew = seen;
        }
        is_news
    }

    /// Takes out of a text that may be shown: the last request's key, and what was made of it.
    #[must_use]
    pub fn redact(&self, text: String) -> String {
        lock(&self.sent).iter().flatten().fold(text, |text, secret| hide(&text, secret))
    }
}

/// The token for one request: `appid`, `iat`, `version` and a checksum over what is sent.
fn jwt(application_id: &str, key: &str, request: &Request, issued_at: Time) -> String {
    let body = request.body.as_deref().unwrap_or_default();
    // Between target and body stand the canonical headers, of which there are none.
    let signed = format!("{}|{}||{body}", request.method(), request.target.to_ascii_lowercase());
    let checksum = STANDARD.encode(Sha256::digest(signed));
    let payload = format!(
        r#"{{"appid":"{application_id}","iat":{},"version":"V1","checksum":"{checksum}"}}"#,
        issued_at.timestamp()
    );
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let token = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let mut hmac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length is a key");
    hmac.update(token.as_bytes());
    format!("{token}.{}", URL_SAFE_NO_PAD.encode(hmac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_is_as_in_the_rfc_and_never_shown() {
        let credential = Arc::new(Credential::Inline(Secret::new("open sesame")));
        let auth = Authenticator::new(Scheme::Basic { username: "Aladdin".to_owned() }, credential);
        let now = Time::from_timestamp(0, 0).unwrap();
        let (_, value) = auth.header(&Request::get("/".to_owned()), now).unwrap();
        assert_eq!(value.to_str().unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(format!("{value:?}"), "Sensitive");
        let said = "bad: open sesame, QWxhZGRpbjpvcGVuIHNlc2FtZQ==.";
        assert_eq!(auth.redact(said.to_owned()), "bad: [redacted], [redacted].");
    }

    #[test]
    fn the_last_token_is_hidden_too() {
        let auth = vendor(Scheme::Jwt { application_id: "a".to_owned() }, "0A1B2C3D-4E5F");
        let now = Time::from_timestamp(0, 0).unwrap();
        let (_, value) = auth.header(&Request::get("/".to_owned()), now).unwrap();
        let said = format!("key 0A1B2C3D-4E5F, was {}.", value.to_str().unwrap());
        assert_eq!(auth.redact(said), "key [redacted], was Bearer [redacted].");
    }

    /// The last time there is, taught by a refusal, and a request after it.
    #[test]
    fn a_clock_at_the_end_of_time_is_stood() {
        let auth = vendor(Scheme::Jwt { application_id: "a".to_owned() }, "k");
        let now = Time::from_timestamp(1_700_000_000, 0).unwrap();
        auth.learn_skew(Some(Time::MAX_UTC), now);
        let later = now + TimeDelta::seconds(60);
        assert!(auth.header(&Request::get("/".to_owned()), later).is_ok());
    }

    fn vendor(scheme: Scheme, key: &str) -> Authenticator {
        Authenticator::new(scheme, Arc::new(Credential::Inline(Secret::new(key))))
    }

    /// The reference's first test vector: its credentials are invented, its token was made by three
    /// independent implementations.
    #[test]
    fn a_jwt_is_byte_for_byte_as_other_implementations_make_it() {
        let application_id = "11111111-2222-3333-4444-555555555555".to_owned();
        let key = "0A1B2C3D-4E5F-6071-8293-A4B5C6D7E8F9";
        let auth = vendor(Scheme::Jwt { application_id }, key);
        let request = Request::get("/WebApp/API/AgentResource/ProductAgents".to_owned());
        let now = Time::from_timestamp(1_700_000_000, 0).unwrap();
        let (_, value) = auth.header(&request, now).unwrap();
        assert_eq!(
            value.to_str().unwrap(),
            "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhcHBpZCI6IjExMTExMTExLTIyMjItMzMzMy00NDQ0\
             LTU1NTU1NTU1NTU1NSIsImlhdCI6MTcwMDAwMDAwMCwidmVyc2lvbiI6IlYxIiwiY2hlY2tzdW0iOiJvYlYzOVI2\
             a09HZGVuMlN0Sm93dHBLdmFRczJYaTB1MWMyWGxqS1NTUk1VPSJ9.hC68xcBwdRiwKPBb3rwrhY-15aRMga8c7N6\
             nPP7FfKs"
        );
        let late = now + TimeDelta::seconds(500);
        assert!(auth.learn_skew(Some(late), now), "a refusal teaches the difference");
        assert!(!auth.learn_skew(Some(late), now), "and is no news the second time");
        let (_, corrected) = auth.header(&request, now - TimeDelta::seconds(500)).unwrap();
        assert_eq!(corrected, value);
    }

    #[test]
    fn workload_keys_go_where_their_kind_belongs() {
        let now = Time::from_timestamp(0, 0).unwrap();
        let request = Request::get("/".to_owned());
        let header = |key| vendor(Scheme::WorkloadKey, key).header(&request, now).unwrap();
        let (name, value) = header("1:abc=");
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("api-secret-key", "1:abc="));
        let (name, value) = header("tmcX:abc");
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("authorization", "ApiKey tmcX:abc"));
    }
}
