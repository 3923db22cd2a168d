//! Section `rooms`: rooms and the tokens that open them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Rooms and the tokens that open them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rooms {
    /// Make any room that a valid token names, without a consultation behind it.
    pub(crate) auto_create: bool,
    /// Make a room without a consultation where a server program asks for it (`CreateRoom`); then its
    /// tokens open it.
    pub(crate) create_by_call: bool,
    /// Let a server program unmute what a participant has muted.
    pub(crate) allow_remote_unmute: bool,
    /// Serve the SDKs' `simulate` requests: for trying out reconnection.
    pub(crate) allow_simulate: bool,
    /// How long a room token from the server is valid.
    #[serde(with = "super::forms::period")]
    pub(crate) token_ttl: Duration,
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            auto_create: false,
            create_by_call: false,
            allow_remote_unmute: false,
            allow_simulate: false,
            token_ttl: Duration::from_secs(600),
        }
    }
}
