//! What happens when nobody does anything: no-shows, empty rooms, lost connections, ends.

use std::time::Duration;

/// When what nobody ends is ended. Zero = never.
#[derive(Clone, Debug)]
pub struct Timers {
    /// After the planned end of what never began.
    pub no_show_after: Duration,
    /// After the last person of a running consultation has gone.
    pub idle_end_after: Duration,
    /// After the planned end (counted from the real begin) of what still runs.
    pub overrun_end_after: Duration,
    /// How long a lost connection is waited for.
    pub reconnect_timeout: Duration,
    /// How often a person may try to come back meanwhile.
    pub reconnect_attempts: i64,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            no_show_after: Duration::from_secs(15 * 60),
            idle_end_after: Duration::from_secs(15 * 60),
            overrun_end_after: Duration::from_secs(2 * 3600),
            reconnect_timeout: Duration::from_secs(60),
            reconnect_attempts: 3,
        }
    }
}
