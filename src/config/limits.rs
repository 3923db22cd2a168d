//! Section `limits`: how many requests the API takes.

use bedside_control_plane::{Rate, RequestLimits};
use serde::{Deserialize, Serialize};

/// How many requests the API takes. 0 = no limit.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Requests per second of one caller (a person of a clinic), in the long run.
    pub(crate) caller_per_second: u32,
    /// Requests of one caller at once.
    pub(crate) caller_burst: u32,
    /// Requests per second of one service or administrator, in the long run.
    pub(crate) service_per_second: u32,
    /// Requests of one service or administrator at once.
    pub(crate) service_burst: u32,
    /// Requests per second from one address, whoever sends them. A clinic may have one for all.
    pub(crate) address_per_second: u32,
    /// Requests from one address at once.
    pub(crate) address_burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            caller_per_second: 20,
            caller_burst: 100,
            service_per_second: 1000,
            service_burst: 2000,
            address_per_second: 1000,
            address_burst: 2000,
        }
    }
}

impl Limits {
    /// As the control plane takes them.
    pub(crate) fn rates(&self) -> RequestLimits {
        let rate = |per_second, burst| Rate { per_second, burst };
        RequestLimits {
            person: rate(self.caller_per_second, self.caller_burst),
            service: rate(self.service_per_second, self.service_burst),
            address: rate(self.address_per_second, self.address_burst),
        }
    }
}
