//! What a client with two connections asks for: it has no join request, it says all of it in the
//! query.

use std::collections::HashMap;

use base64::Engine as _;
use livekit_protocol as lk;
use livekit_protocol::client_info::{Capability, Sdk};
use serde_json::Value;

use crate::limits;

/// Reads the parameters into the request that newer clients send. Unknown ones are passed over.
///
/// # Errors
/// What cannot be read, or is not served.
pub fn join_request(query: &HashMap<String, String>) -> Result<lk::JoinRequest, &'static str> {
    let text = |name: &str| query.get(name).cloned().unwrap_or_default();
    let number = |name: &str| query.get(name).and_then(|value| value.parse().ok()).unwrap_or(0);
    let flag = |name: &str| query.get(name).map(|value| value == "1" || value == "true");
    // A second connection beside the one that receives: no client of the protocols we serve has it.
    if query.get("publish").is_some_and(|value| !value.is_empty()) {
        return Err("connections that only publish are not served");
    }
    let settings = lk::ConnectionSettings {
        auto_subscribe: flag("auto_subscribe").unwrap_or(true),
        adaptive_stream: flag("adaptive_stream").unwrap_or(false),
        subscriber_allow_pause: flag("subscriber_allow_pause"),
        disable_ice_lite: flag("disable_ice_lite").unwrap_or(false),
        auto_subscribe_data_track: flag("auto_subscribe_data_track"),
    };
    let client_info = lk::ClientInfo {
        sdk: sdk(&text("sdk")) as i32,
        version: text("version"),
        protocol: number("protocol"),
        os: text("os"),
        os_version: text("os_version"),
        device_model: text("device_model"),
        browser: text("browser"),
        browser_version: text("browser_version"),
        network: text("network"),
        client_protocol: number("client_protocol"),
        capabilities: capabilities(&text("capabilities")),
        ..lk::ClientInfo::default()
    };
    Ok(lk::JoinRequest {
        client_info: Some(client_info),
        connection_settings: Some(settings),
        participant_attributes: attributes(&text("attributes"))?,
        reconnect: flag("reconnect").unwrap_or(false),
        reconnect_reason: number("reconnect_reason"),
        participant_sid: text("sid"),
        ..lk::JoinRequest::default()
    })
}

/// An SDK by the name that it gives itself.
fn sdk(name: &str) -> Sdk {
    match name.to_ascii_lowercase().as_str() {
        "js" => Sdk::Js,
        "swift" | "ios" => Sdk::Swift,
        "android" => Sdk::Android,
        "flutter" => Sdk::Flutter,
        "go" => Sdk::Go,
        "unity" => Sdk::Unity,
        "reactnative" => Sdk::ReactNative,
        "rust" => Sdk::Rust,
        "python" => Sdk::Python,
        "cpp" => Sdk::Cpp,
        "unityweb" => Sdk::UnityWeb,
        "node" => Sdk::Node,
        "unreal" => Sdk::Unreal,
        "esp32" => Sdk::Esp32,
        "dotnet" => Sdk::Dotnet,
        _ => Sdk::Unknown,
    }
}

fn capabilities(names: &str) -> Vec<i32> {
    let known = names.split(',').filter_map(|name| Capability::from_str_name(name.trim()));
    known.map(|capability| capability as i32).take(limits::RUNGS).collect()
}

/// A JSON object of strings, in base64.
fn attributes(text: &str) -> Result<HashMap<String, String>, &'static str> {
    const BAD: &str = "attributes cannot be read";
    if text.is_empty() {
        return Ok(HashMap::new());
    }
    let json = super::door::BASE64.decode(super::door::url_safe(text)).map_err(|_| BAD)?;
    match serde_json::from_slice(&json) {
        Ok(Value::Object(pairs)) => pairs
            .into_iter()
            .map(|(key, value)| match value {
                Value::String(value) => Ok((key, value)),
                _ => Err(BAD),
            })
            .collect(),
        _ => Err(BAD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<lk::JoinRequest, &'static str> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        join_request(&pairs.collect())
    }

    #[test]
    fn an_empty_query_asks_for_the_usual() {
        let request = read(&[]).unwrap();
        let settings = request.connection_settings.unwrap();
        assert!(settings.auto_subscribe && !settings.adaptive_stream && !request.reconnect);
        assert_eq!(settings.subscriber_allow_pause, None);
        assert_eq!(request.client_info.unwrap().sdk(), Sdk::Unknown);
    }

    #[test]
    fn everything_is_read() {
        let request = read(&[
            ("auto_subscribe", "0"),
            ("adaptive_stream", "true"),
            ("subscriber_allow_pause", "false"),
            ("reconnect", "1"),
            ("reconnect_reason", "2"),
            ("sid", "PA_1"),
            ("protocol", "16"),
            ("client_protocol", "1"),
            ("sdk", "iOS"),
            ("version", "2.0.1"),
            ("os", "ios"),
            ("capabilities", "CAP_PACKET_TRAILER,CAP_OF_THE_FUTURE,CAP_COMPRESSION_DEFLATE_RAW"),
            // {"mood":"fi?ne"}
            ("attributes", "eyJtb29kIjoiZmk_bmUifQ=="),
            ("unheard_of", "1"),
        ]);
        let request = request.unwrap();
        let settings = request.connection_settings.unwrap();
        assert!(!settings.auto_subscribe && settings.adaptive_stream);
        assert_eq!(settings.subscriber_allow_pause, Some(false));
        assert!(request.reconnect);
        assert_eq!((request.reconnect_reason, &*request.participant_sid), (2, "PA_1"));
        assert_eq!(request.participant_attributes["mood"], "fi?ne");
        let client = request.client_info.unwrap();
        assert_eq!((client.protocol, client.client_protocol, client.sdk()), (16, 1, Sdk::Swift));
        assert_eq!((client.version.as_str(), client.os.as_str()), ("2.0.1", "ios"));
        assert_eq!(client.capabilities, [1, 2]);
    }

    #[test]
    fn nonsense_is_refused_or_passed_over() {
        for bad in ["%%%", "W10", "eyJhIjoxfQ", "eyJhIjo", "é"] {
            assert!(read(&[("attributes", bad)]).is_err(), "{bad}");
        }
        let request = read(&[("protocol", "many"), ("auto_subscribe", "perhaps")]).unwrap();
        assert_eq!(request.client_info.unwrap().protocol, 0);
        assert!(!request.connection_settings.unwrap().auto_subscribe);
        assert!(read(&[("publish", "1")]).is_err());
        assert!(read(&[("publish", "")]).is_ok());
    }
}
