//! Who is at the other end of a request, when proxies stand between.
//!
//! A proxy adds the address it sees at the right end of a header; whatever stands further left came
//! with the request and may be invented. So the list is read from the right, for as long as the one
//! who wrote the entry is trusted: the first address that is no proxy of ours is the client's. Only
//! the one header is read that our proxies are known to set: a second one would be the client's own.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// Addresses that a header may name; a longer chain of our own proxies is a loop.
const HOPS: usize = 32;

/// The address that a request comes from: an extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// What is limited as one: a host in IPv4, a network in IPv6, where a host has a whole one.
    pub(crate) fn neighbourhood(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(_) => self.0,
            IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        }
    }
}

/// How proxies name the people behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Header {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The proxies whose word is believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    header: Header,
}

impl TrustedProxies {
    /// Those in `networks`, which set `header`.
    pub const fn new(networks: Vec<IpNet>, header: Header) -> Self {
        Self { networks, header }
    }

    /// The address behind a request that came from `peer` with these headers.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let mut address = peer.to_canonical();
        if !self.trusts(address) {
            return ClientAddress(address);
        }
        let name = match self.header {
            Header::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            Header::Forwarded => HeaderName::from_static("forwarded"),
        };
        // Several lines of one name are one list (RFC 9110 §5.3).
        let lines: Vec<&str> =
            headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default()).collect();
        for entry in lines.iter().rev().flat_map(|line| line.rsplit(',')).take(HOPS) {
            let named = match self.header {
                Header::XForwardedFor => read_address(entry.trim()),
                Header::Forwarded => read_forwarded(entry),
            };
            // What is unknown or hidden cannot be looked behind: its proxy stands for it.
            let Some(named) = named else { break };
            address = named;
            if !self.trusts(address) {
                break;
            }
        }
        ClientAddress(address)
    }

    /// Whether this is one of them.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// `for=` of one element (RFC 7239 §4). A comma inside quotes splits it wrongly, which then reads
/// as no address.
fn read_forwarded(element: &str) -> Option<IpAddr> {
    let mut named = element.split(';').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value.trim())
    });
    let value = named.next()?;
    // Twice the same parameter is not for us to choose from.
    if named.next().is_some() {
        return None;
    }
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    read_address(value)
}

/// An address, perhaps with a port, in brackets where both have colons.
fn read_address(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, port) = rest.split_once(']')?;
        let fine = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return inside.parse::<Ipv6Addr>().ok().filter(|_| fine).map(canonical);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = text.split_once(':')?;
    let address: std::net::Ipv4Addr = address.parse().ok()?;
    is_port(port).then_some(IpAddr::V4(address))
}

fn canonical(address: Ipv6Addr) -> IpAddr {
    IpAddr::V6(address).to_canonical()
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client(proxies: &TrustedProxies, peer: &str, lines: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, line) in lines {
            let value = HeaderValue::from_bytes(line.as_bytes()).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        proxies.client(peer.parse().unwrap(), &headers).0.to_string()
    }

    fn proxies(header: Header) -> TrustedProxies {
        let networks = ["10.0.0.0/8", "2001:db8:ffff::/48"];
        TrustedProxies::new(networks.map(|network| network.parse().unwrap()).to_vec(), header)
    }

    const XFF: &str = "x-forwarded-for";

    #[test]
    fn strangers_cannot_name_an_address() {
        let ours = proxies(Header::XForwardedFor);
        assert_eq!(client(&ours, "203.0.113.9", &[(XFF, "192.0.2.1")]), "203.0.113.9");
        let nobody = TrustedProxies::default();
        assert_eq!(client(&nobody, "10.0.0.1", &[(XFF, "192.0.2.1")]), "10.0.0.1");
        assert_eq!(client(&nobody, "::ffff:10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_list_is_read_from_the_right() {
        let ours = proxies(Header::XForwardedFor);
        let one = |line| client(&ours, "10.0.0.1", &[(XFF, line)]);
        assert_eq!(one("192.0.2.1"), "192.0.2.1");
        // What the client wrote itself stands left of what the proxy saw.
        assert_eq!(one("1.1.1.1, 192.0.2.1"), "192.0.2.1");
        assert_eq!(one("10.9.9.9, 192.0.2.1"), "192.0.2.1");
        assert_eq!(one("192.0.2.1,10.0.0.2 , 10.0.0.3"), "192.0.2.1");
        assert_eq!(one("192.0.2.1:5555"), "192.0.2.1");
        assert_eq!(one("[2001:db8::7]:443"), "2001:db8::7");
        assert_eq!(one("2001:db8::7, 2001:db8:ffff::1"), "2001:db8::7");
        assert_eq!(one("::ffff:192.0.2.1"), "192.0.2.1");
        // All of them are ours: a request from the inside.
        assert_eq!(one("10.0.0.5"), "10.0.0.5");
        let lines = [(XFF, "1.1.1.1"), (XFF, "192.0.2.1"), (XFF, "10.0.0.2")];
        assert_eq!(client(&ours, "10.0.0.1", &lines), "192.0.2.1");
    }

    #[test]
    fn what_is_no_address_ends_the_search() {
        let ours = proxies(Header::XForwardedFor);
        for line in
            ["", "unknown", "192.0.2.1, _hidden", "1.1.1.1, ", "999.1.1.1", "\u{e9}", "[::1"]
        {
            assert_eq!(client(&ours, "10.0.0.1", &[(XFF, line)]), "10.0.0.1", "{line}");
        }
        assert_eq!(client(&ours, "10.0.0.1", &[(XFF, "192.0.2.1, unknown, 10.0.0.2")]), "10.0.0.2");
        assert_eq!(client(&ours, "10.0.0.1", &[(XFF, "192.0.2.1:99999")]), "10.0.0.1");
        let long = "10.0.0.2,".repeat(100_000) + "10.0.0.2";
        assert_eq!(client(&ours, "10.0.0.1", &[(XFF, &long)]), "10.0.0.2");
    }

    #[test]
    fn only_the_header_of_our_proxies_is_read() {
        let forwarded = ("forwarded", "for=192.0.2.1;proto=https;by=10.0.0.1");
        let plain = (XFF, "198.51.100.1");
        let ours = proxies(Header::Forwarded);
        assert_eq!(client(&ours, "10.0.0.1", &[forwarded, plain]), "192.0.2.1");
        let ours = proxies(Header::XForwardedFor);
        assert_eq!(client(&ours, "10.0.0.1", &[forwarded, plain]), "198.51.100.1");
        assert_eq!(client(&ours, "10.0.0.1", &[forwarded]), "10.0.0.1");
    }

    #[test]
    fn forwarded_elements_are_read() {
        let ours = proxies(Header::Forwarded);
        let one = |line| client(&ours, "10.0.0.1", &[("forwarded", line)]);
        assert_eq!(one("for=1.1.1.1, For=\"[2001:db8::7]:4711\""), "2001:db8::7");
        assert_eq!(one("for=192.0.2.1, for=10.0.0.2;by=10.0.0.1"), "192.0.2.1");
        for line in ["for=unknown", "for=_a", "by=192.0.2.1", "192.0.2.1", "for=\"a,192.0.2.1"] {
            assert_eq!(one(line), "10.0.0.1", "{line}");
        }
        assert_eq!(one("for=192.0.2.1;for=192.0.2.2"), "10.0.0.1");
    }

    #[test]
    fn random_headers_do_no_harm() {
        let mut seed = 7_u64;
        let ours = [proxies(Header::XForwardedFor), proxies(Header::Forwarded)];
        for _ in 0..5000 {
            let mut bytes = Vec::new();
            for _ in 0..seed % 40 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let alphabet = b"for=\"[]:;,.0123456789abcdef_ \xff";
                bytes.push(alphabet[(seed >> 33) as usize % alphabet.len()]);
            }
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut headers = HeaderMap::new();
            for name in [XFF, "forwarded"] {
                headers.append(name, HeaderValue::from_bytes(&bytes).unwrap());
            }
            for proxies in &ours {
                proxies.client([10, 0, 0, 1].into(), &headers);
            }
        }
    }

    #[test]
    fn a_neighbourhood_is_one_in_limits() {
        let of = |text: &str| ClientAddress(text.parse().unwrap()).neighbourhood().to_string();
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
