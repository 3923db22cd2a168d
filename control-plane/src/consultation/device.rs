//! What a person's page runs on, as far as it tells.

/// A form of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A browser on a computer.
    Web,
    /// A telephone.
    Mobile,
    /// A tablet.
    Tablet,
}

impl DeviceKind {
    /// The word used in the API and in the tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Mobile => "mobile",
            Self::Tablet => "tablet",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Web, Self::Mobile, Self::Tablet].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// What a person came with last; whatever is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its form.
    pub kind: Option<DeviceKind>,
    /// Name of the browser.
    pub browser: Option<String>,
    /// Name of the operating system.
    pub os: Option<String>,
}

impl Device {
    /// Is nothing known?
    pub const fn is_unknown(&self) -> bool {
        self.kind.is_none() && self.browser.is_none() && self.os.is_none()
    }
}
