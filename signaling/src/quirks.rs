//! What client families need that the protocol does not say: a table, keyed by what a client tells of
//! itself. A family that is not in it gets the careful defaults.

use bedside_sfu::core::api::ClientTraits;
use livekit_protocol as lk;
use livekit_protocol::client_info::Sdk;
use tracing::trace;

/// The oldest signal protocol that is served.
pub const MIN_PROTOCOL: i32 = 9;

/// Who comes, as far as it tells.
struct Who<'a> {
    client: &'a lk::ClientInfo,
    /// Its `User-Agent`.
    agent: &'a str,
}

/// One way in which some clients differ.
struct Row {
    /// What it is called in logs.
    name: &'static str,
    /// Why anything has to differ.
    reason: &'static str,
    /// Which clients.
    of: fn(&Who<'_>) -> bool,
    /// What differs from the careful defaults.
    change: fn(&mut ClientTraits),
}

/// Each row has a test of its own below.
const ROWS: [Row; 2] = [
    Row {
        name: "red",
        reason: "Firefox and Safari negotiate RED and then do not play it, so it goes to those only \
                 that are known to play it",
        of: plays_red,
        change: |traits| traits.reads_red = true,
    },
    Row {
        name: "idle sections stay open",
        reason: "the Go SDK's WebRTC library stops the receiver of a section each time that it is \
                 offered inactive, makes a new one the first time only, and then receives nothing by \
                 the one that was stopped",
        of: |who| who.client.sdk() == Sdk::Go,
        change: |traits| traits.idle_stays_open = true,
    },
];

/// What the engine must know of this client's software. `agent` is its `User-Agent`.
pub fn traits(client: &lk::ClientInfo, agent: &str) -> ClientTraits {
    let who = Who { client, agent };
    let mut traits = ClientTraits::default();
    for row in ROWS.iter().filter(|row| (row.of)(&who)) {
        trace!(name = row.name, reason = row.reason, "a client is served in its own way");
        (row.change)(&mut traits);
    }
    traits
}

/// Clients that come over HTTP say nothing of themselves. Encoders among them are DTLS servers that
/// know no AES-GCM for SRTP (FFmpeg's muxer before 9), so the older cipher is offered to them, too.
pub fn http_traits() -> ClientTraits {
    ClientTraits { allow_cm: true, ..ClientTraits::default() }
}

/// All of Chromium's family, and what is built on its library.
fn plays_red(who: &Who<'_>) -> bool {
    let Who { client, agent } = who;
    let browser = client.browser.to_ascii_lowercase();
    let chromium = ["chrome", "chromium", "edge", "opera", "brave", "samsung"];
    match client.sdk() {
        // Pages leave it to the browser to say who it is. All of Chromium's family name Chrome with
        // a version; those on iOS, which are Safari's engine, do not.
        Sdk::Js | Sdk::ReactNative | Sdk::UnityWeb if browser.is_empty() => {
            agent.contains("Chrome/")
        }
        // On iOS every browser is Safari's engine.
        Sdk::Js | Sdk::ReactNative | Sdk::UnityWeb => {
            !client.os.eq_ignore_ascii_case("ios") && chromium.iter().any(|b| browser.contains(b))
        }
        Sdk::Rust | Sdk::Python | Sdk::Node | Sdk::Cpp | Sdk::Unity => true,
        Sdk::Swift | Sdk::Android | Sdk::Flutter => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn browser(name: &str, os: &str) -> lk::ClientInfo {
        lk::ClientInfo {
            sdk: Sdk::Js as i32,
            browser: name.into(),
            os: os.into(),
            ..lk::ClientInfo::default()
        }
    }

    #[test]
    fn red_goes_only_to_those_who_play_it() {
        let said = |name, os| traits(&browser(name, os), "").reads_red;
        assert!(said("Chrome", "Linux"));
        assert!(!said("Chrome", "iOS"));
        assert!(!said("Firefox", "Linux"));
        assert!(!said("Safari", "macOS"));
        assert!(!traits(&lk::ClientInfo::default(), "Chrome/156").reads_red);
        let python = lk::ClientInfo { sdk: Sdk::Python as i32, ..lk::ClientInfo::default() };
        assert!(traits(&python, "").reads_red);
    }

    #[test]
    fn idle_sections_stay_open_for_go() {
        let stays = |sdk: Sdk| {
            let client = lk::ClientInfo { sdk: sdk as i32, ..lk::ClientInfo::default() };
            traits(&client, "").idle_stays_open
        };
        assert!(stays(Sdk::Go));
        assert!(!stays(Sdk::Js) && !stays(Sdk::Python) && !stays(Sdk::Swift));
    }

    #[test]
    fn a_page_that_does_not_say_is_known_by_its_browser() {
        let reads = |agent: &str| traits(&browser("", ""), agent).reads_red;
        let webkit = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)";
        assert!(reads(&format!("{webkit} Chrome/156.0.0.0 Safari/537.36")));
        assert!(reads(&format!("{webkit} HeadlessChrome/156.0.0.0 Safari/537.36")));
        assert!(reads(&format!("{webkit} Chrome/156.0.0.0 Safari/537.36 Edg/156.0.0.0")));
        assert!(!reads("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"));
        assert!(!reads(&format!("{webkit} Version/26.0 Safari/605.1.15")));
        assert!(!reads(&format!("{webkit} CriOS/156.0.0.0 Mobile/15E148 Safari/604.1")));
        assert!(!reads(""));
    }

    #[test]
    fn who_comes_over_http_may_have_no_new_cipher() {
        let traits = http_traits();
        assert!(traits.allow_cm && !traits.reads_red && !traits.dtls_active);
    }

    #[test]
    fn an_unknown_family_gets_the_careful_defaults() {
        let traits = traits(&lk::ClientInfo { sdk: 99, ..lk::ClientInfo::default() }, "Chrome/1");
        assert!(!traits.dtls_active && !traits.allow_cm);
    }
}
