//! Section `turn`: the relay for networks that let no UDP out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Turn {
    /// UDP and TCP port, on the address that media is bound to; 0 = no relay.
    pub(crate) port: u16,
    /// Host that clients are told; empty = the addresses that media is told by.
    pub(crate) host: String,
    /// What clients are told instead of our own list, where something stands in front of us.
    pub(crate) urls: Vec<String>,
    /// Realm of the credentials.
    pub(crate) realm: String,
    /// How long a credential opens new allocations. Those that are open last as long as their
    /// participant.
    #[serde(with = "super::forms::period")]
    pub(crate) credential_ttl: Duration,
    /// Allocations of one participant at the most.
    pub(crate) allocations_per_participant: u32,
    /// Allocations from one address at the most; many people may be behind it.
    pub(crate) allocations_per_address: u32,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            port: 3478,
            host: String::new(),
            urls: Vec::new(),
            realm: "bedside".to_owned(),
            credential_ttl: Duration::from_secs(600),
            allocations_per_participant: 12,
            allocations_per_address: 256,
        }
    }
}

impl Turn {
    /// Whether there is a relay. Chromium refuses the other ports below 1024.
    pub(crate) const fn reaches_browsers(&self) -> bool {
        matches!(self.port, 0 | 80 | 443 | 1_024..)
    }
}
