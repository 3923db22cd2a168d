//! Section `http`: the public listener.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Pages, API and signaling.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Http {
    /// Address and port to listen on.
    pub(crate) listen: SocketAddr,
    /// The address that people open, `https://…`; empty = `http://` and `listen`.
    pub(crate) public_url: String,
    /// Origins that may call the API and the room door; empty = any.
    pub(crate) allowed_origins: Vec<String>,
    /// Open connections at the most, on all ports of the edge together; more wait in the kernel.
    pub(crate) max_connections: usize,
    /// Open connections of one address (IPv6: one /64); trusted proxies may have any number.
    pub(crate) max_connections_per_address: usize,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            public_url: String::new(),
            allowed_origins: Vec::new(),
            max_connections: 8192,
            max_connections_per_address: 1024,
        }
    }
}
