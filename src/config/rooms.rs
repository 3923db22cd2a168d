//! Section `rooms`: rooms and the tokens that open them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Rooms and the tokens that open them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rooms {
    /// Make any room that a valid token names, without a consultation behind it.
    pub(crate) auto_create: bool,
    /// Serve the SDKs' `simulate` requests: for trying out reconnection.
    pub(crate) allow_simulate: bool,
    /// How long a room token from the server is valid.
    #[serde(with = "super::forms::period")]
    pub(crate) token_ttl: Duration,
}

impl Default for Rooms {
    fn default() -> Self {
        Self { auto_create: false, allow_simulate: false, token_ttl: Duration::from_secs(600) }
    }
}
