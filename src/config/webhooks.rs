//! Section `webhooks`: a list of endpoints that are told what happens.

use bedside_sfu::core::api::Private;
use serde::{Deserialize, Serialize};

/// One endpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Webhook {
    /// What logs and metrics call it.
    pub(crate) name: String,
    /// Where requests go.
    pub(crate) url: String,
    /// `whsec_…`, which the receiver knows.
    #[serde(with = "super::forms::secret")]
    pub(crate) secret: Private<String>,
    /// The one before, while both are in use.
    #[serde(with = "super::forms::secret")]
    pub(crate) old_secret: Private<String>,
    /// Which events; none = all.
    pub(crate) events: Vec<String>,
    /// Of which clinic; empty = all.
    pub(crate) clinic: String,
    /// It may have an address of a private network.
    pub(crate) allow_private: bool,
    /// It is told what happens in rooms, signed with the API key.
    pub(crate) rooms: bool,
}
