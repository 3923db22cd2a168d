//! Section `proxies`: who stands in front of us, and how it names the people behind it.

use bedside_control_plane::address::{Header, TrustedProxies};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Who stands in front of us.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Proxies {
    /// Networks of the proxies whose word is believed; empty = nobody's.
    pub(crate) trusted: Vec<IpNet>,
    /// The one header that they set; any other is a stranger's.
    pub(crate) header: ProxyHeader,
}

/// How proxies name the people behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProxyHeader {
    /// `X-Forwarded-For`, as most do.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl Proxies {
    /// What reads a request's address.
    pub(crate) fn trust(&self) -> TrustedProxies {
        let header = match self.header {
            ProxyHeader::XForwardedFor => Header::XForwardedFor,
            ProxyHeader::Forwarded => Header::Forwarded,
        };
        TrustedProxies::new(self.trusted.clone(), header)
    }
}
