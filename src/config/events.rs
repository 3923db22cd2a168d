//! Section `events`: what other services' messages leave open, and how long ours are kept.

use std::time::Duration;

use bedside_control_plane::Timezone;
use serde::{Deserialize, Serialize};

/// What other services' messages leave open.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Events {
    /// The clinic of messages that name none.
    pub(crate) clinic: String,
    /// The zone of times without one (`2026-01-24T10:30:00`), by its IANA name.
    #[serde(with = "super::forms::timezone")]
    pub(crate) naive_timezone: Timezone,
    /// How long events are kept for readers over the API.
    #[serde(with = "super::forms::period")]
    pub(crate) retention: Duration,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            clinic: bedside_control_plane::token::DEFAULT_CLINIC.to_owned(),
            naive_timezone: Timezone::UTC,
            retention: Duration::from_secs(30 * 86_400),
        }
    }
}
