//! Addresses: which ones people are told, and who can reach them.

use std::net::IpAddr;

use super::finding::Finding;
use crate::config::Config;

/// Is it an address of a local network or of this machine? Browsers ask before a page that came from
/// a public address may reach one (Local Network Access).
pub(crate) fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_local(ip.into()),
            None => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        },
    }
}

/// The page's address: its form, and what its name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublicAddress {
    pub(super) https: bool,
    pub(super) host: String,
}

/// Reads `https://host[:port][/…]`.
pub(super) fn public_address(url: &str) -> Option<PublicAddress> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let https = match scheme {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    (!host.is_empty()).then(|| PublicAddress { https, host: host.to_owned() })
}

/// What people open; `found` is what its name leads to, by this machine's resolver.
pub(super) fn page(url: &str, found: &[IpAddr]) -> Vec<Finding> {
    const CHECK: &str = "public_url";
    if url.is_empty() {
        let says =
            "neither http.public_url nor tls.names is set: links name the address that is bound.";
        let fix = "set http.public_url = \"https://YOUR-HOST\"";
        return vec![Finding::warning(CHECK, says, fix)];
    }
    let Some(address) = public_address(url) else {
        let says = format!("http.public_url is {url:?}, which is no web address.");
        return vec![Finding::error(CHECK, says, "set http.public_url = \"https://YOUR-HOST\"")];
    };
    let loopback = address.host == "localhost"
        || address.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let mut findings = Vec::new();
    if !address.https && !loopback {
        findings.push(Finding::error(
            CHECK,
            format!("{url} is not https: browsers give no camera and microphone to it."),
            "set http.public_url = \"https://…\" and a certificate (tls.…) or a TLS proxy",
        ));
    }
    if found.is_empty() {
        let host = &address.host;
        findings.push(Finding::error(
            CHECK,
            format!("the name {host} leads to no address."),
            format!("make an A or AAAA record for {host}; look with: getent ahosts {host}"),
        ));
    }
    if findings.is_empty() {
        let list = list(found);
        findings.push(Finding::ok(CHECK, format!("people open {url}, which leads to {list}.")));
    }
    findings
}

/// The addresses that media is told to come to; `page` is what the page's name leads to, and `own` are
/// those of this machine.
pub(super) fn media(config: &Config, advertise: &[IpAddr], page: &[IpAddr]) -> Vec<Finding> {
    const CHECK: &str = "advertise";
    let mut findings = Vec::new();
    let bind = config.media.bind;
    if advertise.is_empty() || advertise.iter().any(IpAddr::is_unspecified) {
        let says = "there is no address that clients can be told for their media.";
        return vec![Finding::error(CHECK, says, "set media.advertise = [\"PUBLIC-ADDRESS\"]")];
    }
    if bind.is_loopback() && advertise.iter().any(|ip| !ip.is_loopback()) {
        findings.push(Finding::error(
            CHECK,
            format!("media.bind is {bind}, so nobody reaches {}.", list(advertise)),
            "set media.bind = \"0.0.0.0\" (or \"::\")",
        ));
    }
    let v6 = advertise.iter().any(IpAddr::is_ipv6);
    if v6 && bind.is_ipv4() {
        findings.push(Finding::error(
            CHECK,
            format!("an IPv6 address is advertised and media.bind is {bind}."),
            "set media.bind = \"::\", which serves both families",
        ));
    }
    let page_is_public = page.iter().any(|ip| !is_local(*ip));
    if advertise.iter().all(|ip| is_local(*ip)) {
        let list = list(advertise);
        findings.push(if page_is_public {
            Finding::warning(
                "local_network",
                format!(
                    "only {list} is advertised, while the page is public: Chromium drops such \
                     addresses unless the person allows the local network, and nobody outside \
                     reaches them."
                ),
                "add the public address to media.advertise",
            )
        } else {
            Finding::warning(
                "local_network",
                format!("only {list} is advertised: people outside this network get no media."),
                "add the public address to media.advertise, if there are such people",
            )
        });
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("media comes to {}.", list(advertise))));
    }
    findings
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn local_addresses_are_told_from_public_ones() {
        let local = ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.1.1", "::1"];
        for ip in ips(&local).into_iter().chain(ips(&["fd00::1", "fe80::1", "::ffff:10.0.0.1"])) {
            assert!(is_local(ip), "{ip}");
        }
        for ip in ips(&["203.0.113.7", "172.32.0.1", "2001:db8::1", "::ffff:203.0.113.7"]) {
            assert!(!is_local(ip), "{ip}");
        }
    }

    #[test]
    fn the_page_is_secure_and_its_name_leads_somewhere() {
        let page_at = |url: &str, found: &[&str]| page(url, &ips(found));
        let found = page_at("https://video.clinic.example/", &["203.0.113.7"]);
        assert_eq!(found[0].level, Level::Ok);
        assert_eq!(page_at("http://127.0.0.1:8000", &["127.0.0.1"])[0].level, Level::Ok);
        for (url, found, level) in [
            ("", &[][..], Level::Warning),
            ("http://video.clinic.example", &["203.0.113.7"][..], Level::Error),
            ("https://video.clinic.example", &[], Level::Error),
            ("video.clinic.example", &["203.0.113.7"], Level::Error),
            ("ftp://video.clinic.example", &["203.0.113.7"], Level::Error),
        ] {
            let findings = page_at(url, found);
            assert!(findings.iter().all(|f| f.level == level && f.fix.is_some()), "{findings:?}");
        }
        for (url, host) in [("https://[2001:db8::1]:8443/x", "2001:db8::1"), ("http://a:1", "a")] {
            assert_eq!(public_address(url).unwrap().host, host);
        }
        assert_eq!(public_address("https://"), None);
    }

    #[test]
    fn private_addresses_alone_are_a_warning() {
        let told = |bind: &str, advertise: &[&str], page: &[&str]| {
            let mut config = Config::default();
            config.media.bind = bind.parse().unwrap();
            let findings = media(&config, &ips(advertise), &ips(page));
            (findings[0].check, findings[0].level)
        };
        let page = ["203.0.113.7"];
        assert_eq!(told("0.0.0.0", &["203.0.113.7"], &page), ("advertise", Level::Ok));
        assert_eq!(told("0.0.0.0", &["10.0.0.1", "203.0.113.7"], &page).1, Level::Ok);
        assert_eq!(told("0.0.0.0", &["10.0.0.1"], &page), ("local_network", Level::Warning));
        assert_eq!(told("0.0.0.0", &["10.0.0.1"], &[]), ("local_network", Level::Warning));
        assert_eq!(told("127.0.0.1", &["203.0.113.7"], &page), ("advertise", Level::Error));
        assert_eq!(told("0.0.0.0", &["2001:db8::1"], &page), ("advertise", Level::Error));
        assert_eq!(told("::", &["2001:db8::1", "203.0.113.7"], &page).1, Level::Ok);
        assert_eq!(told("0.0.0.0", &[], &page), ("advertise", Level::Error));
        assert_eq!(told("0.0.0.0", &["0.0.0.0"], &page), ("advertise", Level::Error));
    }
}
