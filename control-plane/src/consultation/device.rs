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

    /// Reads what browsers say of themselves. They all claim to be several others, so what is
    /// looked for first is what the imitated ones do not say. An iPad that asks for desktop pages
    /// says that it is a Mac, and is believed.
    pub fn of_user_agent(agent: &str) -> Self {
        let says = |word: &str| agent.contains(word);
        let first = |words: &[(&str, &str)]| {
            words.iter().find(|(word, _)| says(word)).map(|(_, name)| (*name).to_owned())
        };
        let browser = first(&[
            ("Edg/", "Edge"),
            ("EdgA/", "Edge"),
            ("EdgiOS/", "Edge"),
            ("OPR/", "Opera"),
            ("SamsungBrowser/", "Samsung Internet"),
            ("FxiOS/", "Firefox"),
            ("Firefox/", "Firefox"),
            ("CriOS/", "Chrome"),
            ("Chromium/", "Chromium"),
            ("Chrome/", "Chrome"),
            ("Safari/", "Safari"),
        ]);
        let os = first(&[
            ("iPhone", "iOS"),
            ("iPad", "iPadOS"),
            ("iPod", "iOS"),
            ("Android", "Android"),
            ("CrOS", "ChromeOS"),
            ("Windows", "Windows"),
            ("Mac OS X", "macOS"),
            ("Linux", "Linux"),
        ]);
        let kind = if says("iPad") || says("Tablet") || (says("Android") && !says("Mobile")) {
            Some(DeviceKind::Tablet)
        } else if says("iPhone") || says("iPod") || says("Mobi") || says("Android") {
            Some(DeviceKind::Mobile)
        } else {
            (browser.is_some() && os.is_some()).then_some(DeviceKind::Web)
        };
        Self { kind, browser, os }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(agent: &str) -> [Option<String>; 3] {
        let Device { kind, browser, os } = Device::of_user_agent(agent);
        [kind.map(|kind| kind.as_str().to_owned()), browser, os]
    }

    #[test]
    fn browsers_are_told_apart_from_those_they_imitate() {
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
            Chrome/126.0.0.0 Safari/537.36";
        let known = [
            (chrome.to_owned(), ["web", "Chrome", "Linux"]),
            (format!("{chrome} Edg/126.0.0.0"), ["web", "Edge", "Linux"]),
            (format!("{chrome} OPR/112.0.0.0"), ["web", "Opera", "Linux"]),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:127.0) Gecko/20100101 Firefox/127.0"
                    .to_owned(),
                ["web", "Firefox", "Windows"],
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, \
                 like Gecko) Version/17.5 Safari/605.1.15"
                    .to_owned(),
                ["web", "Safari", "macOS"],
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 \
                 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
                    .to_owned(),
                ["mobile", "Safari", "iOS"],
            ),
            (
                "Mozilla/5.0 (iPad; CPU OS 12_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like \
                 Gecko) CriOS/112.0 Mobile/15E148 Safari/604.1"
                    .to_owned(),
                ["tablet", "Chrome", "iPadOS"],
            ),
            (
                "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/126.0.0.0 Mobile Safari/537.36"
                    .to_owned(),
                ["mobile", "Chrome", "Android"],
            ),
            (
                "Mozilla/5.0 (Linux; Android 14; SM-X910) AppleWebKit/537.36 (KHTML, like Gecko) \
                 SamsungBrowser/25.0 Chrome/121.0.0.0 Safari/537.36"
                    .to_owned(),
                ["tablet", "Samsung Internet", "Android"],
            ),
        ];
        for (agent, expected) in known {
            assert_eq!(read(&agent), expected.map(|word| Some(word.to_owned())), "{agent}");
        }
    }

    #[test]
    fn what_says_nothing_is_not_guessed() {
        for agent in
            ["", "curl/8.5.0", "livekit-server-sdk", "\u{0}\u{1F9D1}", &"x".repeat(100_000)]
        {
            assert!(Device::of_user_agent(agent).is_unknown(), "{}", agent.len());
        }
    }
}
