//! Section `media`: audio and video.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Audio and video.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Media {
    /// Address to bind.
    pub(crate) bind: IpAddr,
    /// First UDP port; shards take it, the next one, and so on. 0 = any free ones.
    pub(crate) port: u16,
    /// Take media over TCP, too, on the ports of the same numbers: for networks that let no UDP out.
    pub(crate) tcp: bool,
    /// How many shards; 0 = one per processor.
    pub(crate) shards: usize,
    /// Addresses that clients are told; empty = `bind`, or the machine's own where that is `0.0.0.0`.
    pub(crate) advertise: Vec<IpAddr>,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            bind: IpAddr::from([0, 0, 0, 0]),
            port: 7882,
            tcp: true,
            shards: 0,
            advertise: Vec::new(),
        }
    }
}
