//! Section `timers`: when what nobody ends is ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When what nobody ends is ended. `0s` = never.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Timers {
    /// After the planned end of a consultation that never began.
    #[serde(with = "super::forms::period")]
    pub(crate) no_show_after: Duration,
    /// After the last person of a running consultation has gone.
    #[serde(with = "super::forms::period")]
    pub(crate) idle_end_after: Duration,
    /// After the planned end (counted from the real begin) of what still runs.
    #[serde(with = "super::forms::period")]
    pub(crate) overrun_end_after: Duration,
    /// How long a lost connection is waited for.
    #[serde(with = "super::forms::period")]
    pub(crate) reconnect_timeout: Duration,
    /// How often a person may try to come back meanwhile; 0 = as often as it likes.
    pub(crate) reconnect_attempts: u16,
}

impl Default for Timers {
    fn default() -> Self {
        let ours = bedside_control_plane::Timers::default();
        Self {
            no_show_after: ours.no_show_after,
            idle_end_after: ours.idle_end_after,
            overrun_end_after: ours.overrun_end_after,
            reconnect_timeout: ours.reconnect_timeout,
            reconnect_attempts: u16::try_from(ours.reconnect_attempts).unwrap_or_default(),
        }
    }
}

impl Timers {
    /// As the control plane takes them.
    pub(crate) fn timers(&self) -> bedside_control_plane::Timers {
        bedside_control_plane::Timers {
            no_show_after: self.no_show_after,
            idle_end_after: self.idle_end_after,
            overrun_end_after: self.overrun_end_after,
            reconnect_timeout: self.reconnect_timeout,
            reconnect_attempts: i64::from(self.reconnect_attempts),
        }
    }
}
