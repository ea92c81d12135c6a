//! The token of a request: its signature, its claims, and the checksum that binds it to the request
//! as it was received.

use std::collections::HashMap;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::ApexConfig;
use crate::clock::millis;
use crate::http::Request;
use crate::locked;

/// Checks the tokens of one application.
pub(crate) struct Verifier {
    application_id: String,
    api_key: String,
    timeout_ms: i64,
    future_ms: i64,
    refuses_replays: bool,
    /// The tokens that were accepted and are not stale yet, with the time when they came.
    spent: Mutex<HashMap<String, i64>>,
}

impl Verifier {
    pub(crate) fn new(config: &ApexConfig) -> Self {
        Self {
            application_id: config.application_id.clone(),
            api_key: config.api_key.clone(),
            timeout_ms: millis(config.timeout),
            future_ms: millis(config.future_tolerance),
            refuses_replays: config.refuse_replays,
            spent: Mutex::default(),
        }
    }

    /// Says why a request is refused. A token whose answer no client can read is not spent: a
    /// client that tries again at once may come with the same.
    pub(crate) fn check(
        &self,
        request: &Request,
        now_ms: i64,
        is_read: bool,
    ) -> Result<(), &'static str> {
        let header = request.header("authorization").and_then(|value| value.split_once(' '));
        let (scheme, token) = header.ok_or("no token")?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err("no bearer token");
        }
        let token = token.trim();
        let claims = self.open(token)?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("appid") != self.application_id {
            return Err("unknown appid");
        }
        if text("version") != "V1" {
            return Err("unknown version");
        }
        // Fractions are accepted, since the vendor's own sample sends them.
        let iat = claims.get("iat").and_then(Value::as_f64).ok_or("no iat")?;
        let age_ms = now_ms - (iat * 1000.0) as i64;
        if age_ms > self.timeout_ms {
            return Err("the token is too old");
        }
        if age_ms < -self.future_ms {
            return Err("the token is from the future");
        }
        if text("checksum") != checksum(&request.method, &request.target, &request.body) {
            return Err("wrong checksum");
        }
        self.spend(token, now_ms, is_read)
    }

    /// The claims of a token with a good signature.
    fn open(&self, token: &str) -> Result<Value, &'static str> {
        let (signed, signature) = token.rsplit_once('.').ok_or("no signature")?;
        let (header, payload) = signed.split_once('.').ok_or("no payload")?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| "not base64url");
        let read = |part: &str| {
            serde_json::from_slice::<Value>(&decode(part)?).map_err(|_| "a part is no JSON")
        };
        let (algorithm, signature) = (read(header)?, decode(signature)?);
        let (key, signed) = (self.api_key.as_bytes(), signed.as_bytes());
        let is_good = match algorithm["alg"].as_str().unwrap_or_default() {
            "HS256" => is_signed::<Hmac<Sha256>>(key, signed, &signature),
            "HS384" => is_signed::<Hmac<Sha384>>(key, signed, &signature),
            "HS512" => is_signed::<Hmac<Sha512>>(key, signed, &signature),
            _ => return Err("unknown algorithm"),
        };
        if is_good { read(payload) } else { Err("wrong signature") }
    }

    fn spend(&self, token: &str, now_ms: i64, is_read: bool) -> Result<(), &'static str> {
        if !self.refuses_replays {
            return Ok(());
        }
        let mut spent = locked(&self.spent);
        // A token from the future stays good for longer.
        let oldest_ms = now_ms.saturating_sub(self.timeout_ms).saturating_sub(self.future_ms);
        spent.retain(|_, came_ms| *came_ms >= oldest_ms);
        if spent.contains_key(token) {
            return Err("the token was used before");
        }
        if is_read {
            spent.insert(token.to_string(), now_ms);
        }
        Ok(())
    }
}

fn is_signed<M: Mac + KeyInit>(key: &[u8], signed: &[u8], signature: &[u8]) -> bool {
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return false };
    mac.update(signed);
    mac.verify_slice(signature).is_ok()
}

/// Covers the method, the target in lower case, no headers, and the body as it is.
fn checksum(method: &str, target: &str, body: &[u8]) -> String {
    let before = format!("{}|{}||", method.to_ascii_uppercase(), target.to_ascii_lowercase());
    STANDARD.encode(Sha256::new().chain_update(before).chain_update(body).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IAT_MS: i64 = 1_700_000_000_000;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../fixtures/apex-jwt-vectors.json")).unwrap()
    }

    fn verifier() -> Verifier {
        Verifier::new(&ApexConfig::default())
    }

    fn request(vector: &Value, token: &str) -> Request {
        let text = |name: &str| vector[name].as_str().unwrap().to_string();
        Request {
            method: text("method"),
            target: text("target"),
            body: text("body").into_bytes(),
            headers: vec![("Authorization".to_string(), format!("Bearer {token}"))],
            ..Request::default()
        }
    }

    #[test]
    fn the_vectors_of_the_reference_verify() {
        let file = vectors();
        for vector in file["vectors"].as_array().unwrap() {
            let token = vector["jwt_hs256"].as_str().unwrap();
            let request = request(vector, token);
            assert_eq!(verifier().check(&request, IAT_MS, true), Ok(()));
            let sum = checksum(&request.method, &request.target, &request.body);
            assert_eq!(sum, vector["checksum"].as_str().unwrap());
        }
        for name in ["case0_hs384", "case0_hs512"] {
            let request = request(&file["vectors"][0], file[name].as_str().unwrap());
            assert_eq!(verifier().check(&request, IAT_MS, true), Ok(()));
        }
    }

    #[test]
    fn a_token_fits_its_own_request_time_and_key() {
        let file = vectors();
        let vector = &file["vectors"][0];
        let token = vector["jwt_hs256"].as_str().unwrap();
        let own = request(vector, token);
        let at = |ms| verifier().check(&own, IAT_MS + ms, true);
        assert_eq!(at(120_000), Ok(()));
        assert_eq!(at(120_001), Err("the token is too old"));
        assert_eq!(at(-120_000), Ok(()));
        assert_eq!(at(-120_001), Err("the token is from the future"));
        let other = request(&file["vectors"][1], token);
        assert_eq!(verifier().check(&other, IAT_MS, true), Err("wrong checksum"));
        let other = ApexConfig { api_key: "other".into(), ..ApexConfig::default() };
        let result = Verifier::new(&other).check(&own, IAT_MS, true);
        assert_eq!(result, Err("wrong signature"));
        let other = ApexConfig { application_id: "other".into(), ..ApexConfig::default() };
        assert_eq!(Verifier::new(&other).check(&own, IAT_MS, true), Err("unknown appid"));
    }

    #[test]
    fn a_token_is_good_once() {
        let file = vectors();
        let vector = &file["vectors"][0];
        let own = request(vector, vector["jwt_hs256"].as_str().unwrap());
        let verifier = verifier();
        assert_eq!(verifier.check(&own, IAT_MS, false), Ok(()));
        assert_eq!(verifier.check(&own, IAT_MS, true), Ok(()));
        assert_eq!(verifier.check(&own, IAT_MS, true), Err("the token was used before"));
        let config = ApexConfig { refuse_replays: false, ..ApexConfig::default() };
        let lenient = Verifier::new(&config);
        assert_eq!([0, 1].map(|_| lenient.check(&own, IAT_MS, true)), [Ok(()), Ok(())]);
    }
}
