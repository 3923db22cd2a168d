//! Section `checks`: the public page `/check`.

use std::time::Duration;

use bedside_control_plane::ChecksConfig;
use serde::{Deserialize, Serialize};

/// Connection checks of people who need no account for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Checks {
    /// Are they taken?
    pub(crate) enabled: bool,
    /// How long what they found can be looked up.
    #[serde(with = "super::forms::period")]
    pub(crate) retention: Duration,
    /// How many run at once; each sends as much as a call of two.
    pub(crate) concurrent: usize,
    /// How many begin from one address in a minute, in the long run; 0 = no limit.
    pub(crate) address_per_minute: u32,
    /// How many begin from one address at once.
    pub(crate) address_burst: u32,
}

impl Default for Checks {
    fn default() -> Self {
        let ours = ChecksConfig::default();
        Self {
            enabled: ours.enabled,
            retention: ours.retention,
            concurrent: ours.concurrent,
            address_per_minute: ours.address_per_minute,
            address_burst: ours.address_burst,
        }
    }
}

impl Checks {
    /// As the control plane takes them.
    pub(crate) fn settings(&self) -> ChecksConfig {
        ChecksConfig {
            enabled: self.enabled,
            retention: self.retention,
            concurrent: self.concurrent,
            address_per_minute: self.address_per_minute,
            address_burst: self.address_burst,
            ..ChecksConfig::default()
        }
    }
}
