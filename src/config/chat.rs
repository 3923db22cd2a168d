//! Section `chat`: how long it is kept, and what may be sent.

use std::time::Duration;

use bedside_control_plane::ChatConfig;
use serde::{Deserialize, Serialize};

/// Messages, files and pictures of consultations.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Chat {
    /// How long messages, files and pictures are kept.
    #[serde(with = "super::forms::period")]
    pub(crate) retention: Duration,
    /// The largest picture, in bytes.
    pub(crate) max_image_bytes: u64,
    /// The largest file, in bytes.
    pub(crate) max_file_bytes: u64,
    /// How many files and pictures one consultation may have.
    pub(crate) max_files: u32,
}

impl Default for Chat {
    fn default() -> Self {
        let ours = ChatConfig::default();
        Self {
            retention: ours.retention,
            max_image_bytes: ours.max_image_bytes,
            max_file_bytes: ours.max_file_bytes,
            max_files: u32::try_from(ours.max_files).unwrap_or(u32::MAX),
        }
    }
}

impl Chat {
    /// As the control plane takes it.
    pub(crate) fn settings(&self) -> ChatConfig {
        ChatConfig {
            retention: self.retention,
            max_image_bytes: self.max_image_bytes,
            max_file_bytes: self.max_file_bytes,
            max_files: self.max_files.into(),
            ..ChatConfig::default()
        }
    }
}
