//! Section `video`: the switch of the older deployments.

use serde::{Deserialize, Serialize};

/// The switch of the older deployments.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Video {
    /// Are consultations served at all?
    pub(crate) enabled: bool,
    /// The provider that was used before; every consultation runs in our own rooms.
    pub(crate) provider: String,
}

impl Default for Video {
    fn default() -> Self {
        Self { enabled: true, provider: OWN.to_owned() }
    }
}

/// Our own rooms.
const OWN: &str = "own";

impl Video {
    /// Does `provider` ask for somebody else's rooms?
    pub(crate) fn names_another(&self) -> bool {
        !self.provider.is_empty() && !self.provider.eq_ignore_ascii_case(OWN)
    }
}
