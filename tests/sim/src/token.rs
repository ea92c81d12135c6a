//! Page tokens: opaque to the client, and bound to the query that they continue.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::rng::{Rng, mix};

/// What a token remembers. The rows of a window are frozen by `low`, `high` and `as_of_ms`, so
/// records that appear later do not shift the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    /// The query's parameters; a token goes with no other query.
    pub(crate) fingerprint: u64,
    /// The first position in the content type's rows that lies in the window.
    pub(crate) low: u64,
    /// The position after the last.
    pub(crate) high: u64,
    /// How many positions the pages so far have looked at.
    pub(crate) offset: u64,
    /// The same at the start of the page that the token came with.
    pub(crate) previous: u64,
    /// Rows that became visible after this are not in the result.
    pub(crate) as_of_ms: i64,
}

const WORDS: usize = 8;

/// The window of a query.
pub(crate) struct Span {
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    /// Whether it holds what happened at its very end.
    pub(crate) holds_end: bool,
}

impl Token {
    /// Freezes the rows of a window; they are in the order of `time_ms`.
    pub(crate) fn freeze<R>(
        fingerprint: u64,
        rows: &[R],
        time_ms: impl Fn(&R) -> i64,
        span: &Span,
        now_ms: i64,
    ) -> Self {
        let low = rows.partition_point(|row| time_ms(row) < span.start_ms);
        let high = rows.partition_point(|row| match span.holds_end {
            true => time_ms(row) <= span.end_ms,
            false => time_ms(row) < span.end_ms,
        });
        Self {
            fingerprint,
            low: low as u64,
            high: high.max(low) as u64,
            offset: 0,
            previous: 0,
            as_of_ms: now_ms,
        }
    }

    /// The text of the token, in plain base64.
    pub(crate) fn seal(&self, seed: u64) -> String {
        let content = [
            self.fingerprint,
            self.low,
            self.high,
            self.offset,
            self.previous,
            self.as_of_ms as u64,
        ];
        let check = checksum(&content);
        // Both characters that clients spoil by decoding once too often are in every token, so
        // that no client gets through by luck.
        let sealed = (0u64..).map(|salt| {
            let nonce = mix(check ^ salt);
            let mut words = [
                nonce, content[0], content[1], content[2], content[3], content[4], content[5],
                check,
            ];
            scramble(seed, &mut words);
            STANDARD.encode(words.map(u64::to_le_bytes).concat())
        });
        let mut telling = sealed.filter(|text| text.contains('+') && text.contains('/'));
        telling.next().expect("one token in three has both characters")
    }

    /// Reads a token that came as a query parameter, after the query was decoded.
    pub(crate) fn open(text: &str, seed: u64) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        let mut words = [0; WORDS];
        if bytes.len() != WORDS * 8 {
            return None;
        }
        for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
            *word = u64::from_le_bytes(chunk.try_into().ok()?);
        }
        scramble(seed, &mut words);
        let [_, fingerprint, low, high, offset, previous, as_of, check] = words;
        let is_sound = checksum(&words[1..WORDS - 1]) == check;
        let as_of_ms = as_of as i64;
        is_sound.then_some(Self { fingerprint, low, high, offset, previous, as_of_ms })
    }
}

/// Percent-encodes what the vendor encodes inside the JSON string.
pub(crate) fn percent_encode(token: &str) -> String {
    token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}

/// Covers all words but the first with a stream that depends on the first; its own inverse.
fn scramble(seed: u64, words: &mut [u64; WORDS]) {
    let mut rng = Rng::keyed(seed, &[0x70, words[0]]);
    words[1..].iter_mut().for_each(|word| *word ^= rng.next_u64());
}

fn checksum(words: &[u64]) -> u64 {
    words.iter().fold(0x0074_6f6b_656e, |sum, word| mix(sum ^ word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_open_only_unspoilt() {
        let token =
            Token { fingerprint: 7, low: 1, high: u64::MAX, offset: 3, previous: 2, as_of_ms: -5 };
        let text = token.seal(1);
        assert!(text.contains('+') && text.contains('/') && text.ends_with('='));
        assert_eq!(Token::open(&text, 1), Some(token));
        assert_eq!(Token::open(&text, 2), None);
        assert_eq!(Token::open(&text.replace('+', " "), 1), None);
        assert_eq!(Token::open(&percent_encode(&text), 1), None);
        assert_eq!(Token::open("DKxIuQeL7Nq3aNgQtaaH2w==", 1), None);
    }
}
