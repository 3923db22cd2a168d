//! What client families need that the protocol does not say. Keyed by what a client tells of
//! itself; a family that is not listed gets the careful defaults.

use bedside_sfu::core::api::ClientTraits;
use livekit_protocol as lk;
use livekit_protocol::client_info::Sdk;

/// The oldest signal protocol that is served.
pub const MIN_PROTOCOL: i32 = 9;

/// What the engine must know of this client's software.
pub fn traits(client: &lk::ClientInfo) -> ClientTraits {
    ClientTraits { dtls_active: false, allow_cm: false, reads_red: reads_red(client) }
}

/// Firefox and Safari negotiate RED and then do not play it.
fn reads_red(client: &lk::ClientInfo) -> bool {
    let browser = client.browser.to_ascii_lowercase();
    let chromium = ["chrome", "chromium", "edge", "opera", "brave", "samsung"];
    match client.sdk() {
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
        assert!(traits(&browser("Chrome", "Linux")).reads_red);
        assert!(!traits(&browser("Chrome", "iOS")).reads_red);
        assert!(!traits(&browser("Firefox", "Linux")).reads_red);
        assert!(!traits(&browser("Safari", "macOS")).reads_red);
        assert!(!traits(&lk::ClientInfo::default()).reads_red);
        let python = lk::ClientInfo { sdk: Sdk::Python as i32, ..lk::ClientInfo::default() };
        assert!(traits(&python).reads_red);
    }

    #[test]
    fn an_unknown_family_gets_the_careful_defaults() {
        let traits = traits(&lk::ClientInfo { sdk: 99, ..lk::ClientInfo::default() });
        assert!(!traits.dtls_active && !traits.allow_cm);
    }
}
