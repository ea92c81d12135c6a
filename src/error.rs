//! The crate's one error: a message for a person, and a kind that says what to do next.

use std::fmt;
use std::time::Duration;

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the code that receives the error should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The configuration is wrong; nothing can start until a person changes it.
    Config,
    /// The same request may succeed later; wait at least `floor` if the vendor named one.
    Retry {
        /// The vendor's `Retry-After`.
        floor: Option<Duration>,
    },
    /// The answer took too long or was too large; a smaller window may succeed where this did not.
    Narrow,
    /// The vendor refused (400, 401, 403, 404 …); ask again at the interval and tell a person.
    Refused,
    /// The state store failed; nothing new may be committed until it works again.
    Store,
    /// The state store is damaged or gone; it can be made anew from what is in memory.
    Damaged,
    /// We were told to stop; this is not a failure.
    Stopped,
}

/// An error with its kind, a one-line message and, where there is one, its cause.
///
/// Messages are lower case, hold coordinates (stream, window, HTTP status) and never a secret.
///
/// It is one pointer, so that a result without a value fits a register: reading JSON returns one for
/// every value.
pub struct Error(Box<Parts>);

struct Parts {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Parts { kind, message: message.into(), source: None }))
    }

    /// A configuration error.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// An error that a later attempt may cure.
    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Retry { floor: None }, message)
    }

    /// The error of whoever waited when the instance stopped.
    pub fn stopped() -> Self {
        Self::new(ErrorKind::Stopped, "stopping")
    }

    /// The same error with its cause.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What to do next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
}

impl fmt::Display for Error {
    /// One line: the message, then each cause that adds something to it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.0.message))?;
        let mut cause = self.0.source.as_deref().map(|source| source as &dyn std::error::Error);
        while let Some(error) = cause {
            write!(f, ": {}", one_line(&error.to_string()))?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// A log line is one line: control characters in a vendor's text must not forge another.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
