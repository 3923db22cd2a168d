//! Section `admin`: the operator's own listener.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The operator's own listener.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    /// Address and port of `/metrics` and `/readyz`, which then leave the public port; empty = they
    /// are on the public port.
    #[serde(with = "super::forms::optional_address")]
    pub(crate) listen: Option<SocketAddr>,
}
