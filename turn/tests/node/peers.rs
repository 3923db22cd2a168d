//! The relay is closed: for addresses that have opened other relays, each way of asking is tried.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::client::Client;
use crate::{PEER, address, config, mirrored};

/// IPv4 addresses that lead inside, or nowhere.
const SPECIAL_V4: [&str; 19] = [
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "8.8.8.8",
];

const SPECIAL_V6: [&str; 10] = [
    "::",
    "::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "100::1",
    "2001:4860:4860::8888",
];

/// The forms in which IPv6 carries an IPv4 address.
fn carried(ip: Ipv4Addr) -> [Ipv6Addr; 6] {
    let low = u128::from(u32::from(ip));
    let text = |text: &str| u128::from(text.parse::<Ipv6Addr>().unwrap());
    [
        text("::ffff:0:0") | low,
        low,
        text("2002::") | low << 80,
        text("64:ff9b::") | low,
        text("64:ff9b:1::") | low,
        text("2001::") | !low & 0xFFFF_FFFF,
    ]
    .map(Ipv6Addr::from)
}

fn special() -> Vec<SocketAddr> {
    let v4 = SPECIAL_V4.map(|text| text.parse::<Ipv4Addr>().unwrap());
    let v6 = SPECIAL_V6.map(|text| text.parse::<IpAddr>().unwrap());
    let carried = v4.iter().flat_map(|ip| carried(*ip)).map(IpAddr::V6);
    let all = v4.iter().copied().map(IpAddr::V4).chain(v6).chain(carried);
    all.map(|ip| SocketAddr::new(ip, 40_000)).collect()
}

#[test]
fn nothing_is_relayed_to_special_addresses() {
    let mut config = config();
    // An address of ours that is not in the list, so that all of the list is foreign.
    config.peers = vec![address("203.0.113.77:40000"), address("[2001:db8::77]:40000")];
    config.relayed = config.peers.iter().map(SocketAddr::ip).collect();
    let (node, mirror) = mirrored(config);
    node.allow("ann");
    let mut client = Client::udp(node.local()[0], "ann");
    let own = client.allocate().unwrap();
    let mut other = Client::udp(node.local()[0], "ann");
    let theirs = other.allocate().unwrap();
    // What is allowed, so that a permission for one address cannot stand for all.
    client.permit(address("203.0.113.77:40000")).unwrap();
    client.permit(address("[2001:db8::77]:40000")).unwrap();
    let peers = special();
    assert!(peers.len() >= 60, "{}", peers.len());
    for peer in peers {
        assert_eq!(client.permit(peer), Err(403), "CreatePermission {peer}");
        assert_eq!(client.bind(0x4000, peer), Err(403), "ChannelBind {peer}");
        client.send(peer, b"anybody there?");
        client.send_channel(0x4000, b"anybody there?");
    }
    // Ports of ours that carry no media, our relayed addresses and those of others, the server.
    let near = [5432, 5672, 9090, 443].map(|port| SocketAddr::new(own[0].ip(), port));
    for peer in near.into_iter().chain(own).chain(theirs) {
        assert_eq!(client.bind(0x4000, peer), Err(403), "ChannelBind {peer}");
        client.send(peer, b"anybody there?");
    }
    assert_eq!(client.bind(0x4000, node.local()[0]), Err(403));
    // What came last has been read when this is answered.
    client.refresh(600).unwrap();
    assert!(mirror.seen.lock().unwrap().is_empty(), "{:?}", mirror.seen.lock().unwrap());
    assert!(client.wire.receive(Duration::from_millis(50)).is_none());
    assert_eq!(node.counters().to_media, 0);
    client.send(address("203.0.113.77:40000"), b"media");
    assert!(client.wire.receive(Duration::from_secs(30)).is_some(), "the way that is open");
}

#[test]
fn sockets_on_loopback_hear_nothing() {
    let (node, _mirror) = mirrored(config());
    node.allow("ann");
    let mut client = Client::udp(node.local()[0], "ann");
    client.allocate().unwrap();
    client.permit(address(PEER)).unwrap();
    let victims: Vec<std::net::UdpSocket> = ["127.0.0.1:0", "127.0.0.2:0", "[::1]:0"]
        .iter()
        .map(|at| std::net::UdpSocket::bind(at).unwrap())
        .collect();
    for victim in &victims {
        let at = victim.local_addr().unwrap();
        assert_eq!(client.bind(0x4000, at), Err(403), "{at}");
        client.send(at, b"hello");
    }
    // Not even the media address itself is reached by the network.
    let media = std::net::UdpSocket::bind(PEER);
    client.send(address(PEER), b"hello");
    client.refresh(600).unwrap();
    let silent = |socket: &std::net::UdpSocket| {
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        socket.recv(&mut [0; 64]).is_err()
    };
    assert!(victims.iter().chain(&media).all(silent));
}
