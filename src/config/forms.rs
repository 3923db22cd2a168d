//! How times and secrets are written in a configuration.

use std::time::Duration;

/// The longest time that can be set: ten years, which no clock's arithmetic stumbles over.
pub(super) const LONGEST_PERIOD: Duration = Duration::from_secs(3650 * 86_400);

/// A length of time: a whole number and `ms`, `s`, `m`, `h` or `d`, ten years at the most.
pub(crate) fn parse_period(text: &str) -> Option<Duration> {
    read_period(text).filter(|period| *period <= LONGEST_PERIOD)
}

fn read_period(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(split)?;
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// Durations in the file.
pub(super) mod period {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Duration,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        match value.subsec_millis() {
            0 => out.collect_str(&format_args!("{}s", value.as_secs())),
            _ => out.collect_str(&format_args!("{}ms", value.as_millis())),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_period(&text)
            .ok_or_else(|| de::Error::custom("a number with ms, s, m, h or d is expected"))
    }
}

/// Time zones by their IANA names.
pub(super) mod timezone {
    use bedside_control_plane::Timezone;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Timezone,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.serialize_str(value.name())
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Timezone, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(|_| de::Error::custom("a time zone like Asia/Kolkata is expected"))
    }
}

/// Secrets go in and never come out.
pub(super) mod secret {
    use bedside_sfu::core::api::Private;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Private<String>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.serialize_str(if value.reveal().is_empty() { "" } else { "<redacted>" })
    }

    pub(in crate::config) fn deserialize<'de, D>(from: D) -> Result<Private<String>, D::Error>
    where
        D: Deserializer<'de>,
    {
        String::deserialize(from).map(Private::new)
    }
}

/// A database's address is worth seeing; who signs in there is not.
pub(super) mod database_url {
    use bedside_sfu::core::api::Private;
    use serde::Serializer;

    pub(in crate::config) use super::secret::deserialize;

    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Private<String>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        let url = value.reveal();
        if url.is_empty() || url.starts_with("sqlite:") {
            return out.serialize_str(url);
        }
        // A query may carry `password=` as well, and what is not understood may carry anything.
        let (address, query) = match url.split_once('?') {
            Some((_, query)) if query.contains('@') => return out.serialize_str("<redacted>"),
            Some((address, _)) => (address, "?<redacted>"),
            None => (url.as_str(), ""),
        };
        let Some((scheme, rest)) = address.split_once("://") else {
            return out.serialize_str("<redacted>");
        };
        let (who, host) =
            rest.rsplit_once('@').map_or(("", rest), |(_, host)| ("<redacted>@", host));
        out.collect_str(&format_args!("{scheme}://{who}{host}{query}"))
    }
}

/// An address, or an empty text for none.
pub(super) mod optional_address {
    use std::net::SocketAddr;

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<SocketAddr>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(address) => out.collect_str(address),
            None => out.serialize_str(""),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .map(Some)
            .map_err(|_| de::Error::custom("an address with its port is expected"))
    }
}
