//! Section `log`: what is logged, and how.

use serde::{Deserialize, Serialize};

/// What is logged, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// Directives of `tracing_subscriber`'s `EnvFilter`.
    pub(crate) filter: String,
    /// One JSON object or one line of text per record.
    pub(crate) format: LogFormat,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Default for Log {
    fn default() -> Self {
        // The handshake crates report every refused stranger as an error of their own.
        Self {
            filter: "info,rtc_dtls=off,rtc_sctp=off,sqlx=warn".to_owned(),
            format: LogFormat::Text,
        }
    }
}
