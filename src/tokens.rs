//! `bedside token`: tokens for trying things, signed with the configuration's keys.

use std::time::{Duration, SystemTime};

use bedside_control_plane::token::{self as api, ApiRole, ApiToken};
use bedside_sfu::core::api::Private;
use bedside_signaling::token::{self as room, KeyPair, RoomToken, VideoGrant};

use crate::cli::{Role, Token};
use crate::config::{Config, DEMO_KEY, DEMO_SECRET};

/// The token that the command line asks for.
pub(crate) fn mint(wanted: Token) -> anyhow::Result<String> {
    let now = SystemTime::now();
    match wanted {
        Token::Room { room, identity, name, ttl, file } => {
            let keys = keys_or_demo(&Config::load(&file.sources())?);
            let token = RoomToken {
                identity: Private::new(identity),
                name: Private::new(name),
                grant: VideoGrant::join(room),
                ..RoomToken::default()
            };
            Ok(room::issue(&keys, &token, ttl, now))
        }
        Token::Api { role, user, clinic, ttl, file } => {
            let keys = keys_or_demo(&Config::load(&file.sources())?);
            let role = match role {
                Role::Doctor => ApiRole::Doctor,
                Role::Patient => ApiRole::Patient,
                Role::Service => ApiRole::Service,
                Role::Admin => ApiRole::Admin,
            };
            Ok(api_token(&keys, role, &user, &clinic, ttl, now))
        }
    }
}

/// A bearer token for the API.
pub(crate) fn api_token(
    keys: &KeyPair,
    role: ApiRole,
    user: &str,
    clinic: &str,
    ttl: Duration,
    now: SystemTime,
) -> String {
    let token = ApiToken {
        user_id: user.to_owned(),
        name: None,
        role,
        clinic: clinic.to_owned(),
        session: None,
        link: None,
        expires_at: (now + ttl).into(),
    };
    api::issue(keys, &token)
}

/// The configuration's key pair.
pub(crate) fn keys(config: &Config) -> KeyPair {
    KeyPair { key: config.api_key.clone(), secret: config.api_secret.clone() }
}

/// The configuration's key pair, or the demo's where there is none.
pub(crate) fn keys_or_demo(config: &Config) -> KeyPair {
    if !config.api_key.is_empty() && !config.api_secret.reveal().is_empty() {
        return keys(config);
    }
    warn(&format!(
        "no api_key and api_secret are configured: signing with {DEMO_KEY}/{DEMO_SECRET}"
    ));
    KeyPair { key: DEMO_KEY.to_owned(), secret: Private::new(DEMO_SECRET.to_owned()) }
}

fn warn(text: &str) {
    use std::io::Write as _;
    // Standard output carries the token alone. Nobody to read the warning is no reason to fail.
    let _closed = writeln!(std::io::stderr(), "warning: {text}");
}
