//! What a connection check found: words of a fixed list and numbers, so that nothing about a person
//! can be in it, whatever a page sends.

use serde::{Deserialize, Serialize};

/// The most findings: each name once.
const MAX_FINDINGS: usize = 12;

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    /// The browser itself.
    Browser,
    /// The camera.
    Camera,
    /// The microphone.
    Microphone,
    /// What the person hears.
    Speaker,
    /// The WebSocket to the server.
    Signaling,
    /// Media over UDP.
    Udp,
    /// Media over TCP.
    Tcp,
    /// Media over the relay, reached by UDP.
    RelayUdp,
    /// Media over the relay, reached by TCP.
    RelayTcp,
    /// Media over the relay, reached by TLS.
    RelayTls,
    /// Loss, delay and bandwidth of the best of these ways.
    Quality,
    /// The browser's permission to reach a local network.
    LocalNetwork,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It works.
    Ok,
    /// It works, not well.
    Warning,
    /// It does not work.
    Failed,
    /// It was not tried.
    Skipped,
}

/// Why it did not go well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// The person or the browser said no.
    Denied,
    /// There is no such device.
    None,
    /// Another program has it.
    Busy,
    /// The page is not secure.
    Insecure,
    /// The browser cannot.
    Unsupported,
    /// The browser is too old.
    Old,
    /// Something on the way lets nothing through.
    Blocked,
    /// It was cut in the middle: something on the way opens TLS.
    Intercepted,
    /// This server does not offer it.
    NotOffered,
    /// The server took no check: too many at once.
    Full,
    /// Nothing was heard.
    Silent,
    /// Too much is lost.
    Lossy,
    /// Too much delay.
    Delayed,
    /// Uneven delay.
    Uneven,
    /// Too little bandwidth.
    Narrow,
    /// The browser will ask.
    Prompt,
    /// Anything else.
    Other,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) subject: Subject,
    /// How it went.
    pub(crate) outcome: Outcome,
    /// Why it did not go well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<Reason>,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 600_000)]
    pub(crate) ms: Option<u32>,
}

/// Which browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BrowserName {
    /// Chrome and Chromium.
    Chrome,
    /// Edge.
    Edge,
    /// Firefox.
    Firefox,
    /// Safari.
    Safari,
    /// Samsung Internet.
    Samsung,
    /// Another one.
    Other,
}

/// On which system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum System {
    /// Windows.
    Windows,
    /// macOS.
    Macos,
    /// iOS and iPadOS.
    Ios,
    /// Android.
    Android,
    /// Linux and ChromeOS.
    Linux,
    /// Another one.
    Other,
}

/// The browser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Browser {
    /// Which.
    pub(crate) name: BrowserName,
    /// Its main version; 0 = not known.
    #[schema(maximum = 9_999)]
    pub(crate) version: u32,
    /// On which system.
    pub(crate) system: System,
}

/// What was measured over the best way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Measured {
    /// There and back, in milliseconds.
    #[schema(maximum = 600_000)]
    pub(crate) round_trip_ms: u32,
    /// How uneven the delay is, in milliseconds.
    #[schema(maximum = 600_000)]
    pub(crate) jitter_ms: u32,
    /// Lost on the way up, in thousandths.
    #[schema(maximum = 1_000)]
    pub(crate) lost_up_per_mille: u32,
    /// Lost on the way down, in thousandths.
    #[schema(maximum = 1_000)]
    pub(crate) lost_down_per_mille: u32,
    /// What went up, in kbit/s. The test sends no more than a call does.
    #[schema(maximum = 100_000)]
    pub(crate) up_kbps: u32,
    /// What came down, in kbit/s.
    #[schema(maximum = 100_000)]
    pub(crate) down_kbps: u32,
}

/// All of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckReport {
    /// The browser.
    pub(crate) browser: Browser,
    /// Finding by finding; each subject once at the most.
    #[schema(min_items = 1, max_items = 12)]
    pub(crate) findings: Vec<Finding>,
    /// What was measured, if anything was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) measured: Option<Measured>,
}

impl CheckReport {
    /// Is it one that a page of ours would send?
    pub(crate) fn fits(&self) -> bool {
        let findings = &self.findings;
        let ms = |ms: u32| ms <= 600_000;
        let times = findings.iter().all(|finding| finding.ms.is_none_or(ms));
        let once = findings.iter().enumerate().all(|(at, finding)| {
            findings.iter().skip(at + 1).all(|later| later.subject != finding.subject)
        });
        let measured = self.measured.as_ref().is_none_or(|measured| {
            ms(measured.round_trip_ms)
                && ms(measured.jitter_ms)
                && measured.lost_up_per_mille <= 1_000
                && measured.lost_down_per_mille <= 1_000
                && measured.up_kbps <= 100_000
                && measured.down_kbps <= 100_000
        });
        (1..=MAX_FINDINGS).contains(&findings.len())
            && once
            && times
            && measured
            && self.browser.version <= 9_999
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_of_ones_own_are_refused() {
        let good = json!({
            "browser": {"name": "firefox", "version": 140, "system": "linux"},
            "findings": [
                {"subject": "camera", "outcome": "failed", "reason": "denied"},
                {"subject": "relay_tls", "outcome": "ok", "ms": 210},
            ],
            "measured": {"roundTripMs": 30, "jitterMs": 2, "lostUpPerMille": 0,
                "lostDownPerMille": 4, "upKbps": 1200, "downKbps": 1180},
        });
        let read = |json: &serde_json::Value| serde_json::from_value::<CheckReport>(json.clone());
        assert!(read(&good).unwrap().fits());
        assert_eq!(serde_json::to_value(read(&good).unwrap()).unwrap(), good);
        for (pointer, value) in [
            ("/browser/name", json!("Mozilla/5.0")),
            ("/browser/system", json!("Ms. Lindqvist")),
            ("/browser/version", json!(10_000)),
            ("/browser/version", json!(-1)),
            ("/findings/0/reason", json!("my words")),
            ("/findings/0/subject", json!("me")),
            ("/findings/0/subject", json!("relay_tls")),
            ("/findings/0/ms", json!(600_001)),
            ("/findings", json!([])),
            ("/measured/upKbps", json!(100_001)),
            ("/measured/lostUpPerMille", json!(1_001)),
        ] {
            let mut bad = good.clone();
            match bad.pointer_mut(pointer) {
                Some(place) => *place = value,
                None => bad["findings"][0]["ms"] = value,
            }
            assert!(!read(&bad).is_ok_and(|report| report.fits()), "{pointer} of {bad}");
        }
        let mut more = good;
        more["note"] = json!("a word of one's own");
        assert!(read(&more).is_err());
    }
}
