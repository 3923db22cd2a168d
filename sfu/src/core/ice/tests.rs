//! The lite agent and its codec; the controlling agent is tested with it in `peer::tests`.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use rand_chacha::rand_core::SeedableRng as _;

use super::*;

fn path(port: u16) -> Path {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Path::Udp { local: at(2000), remote: at(port) }
}

fn credentials(seed: u64) -> Credentials {
    Credentials::random(&mut Rng::seed_from_u64(seed))
}

/// Builds requests as a browser would, and wrong ones.
struct Request {
    username: String,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Request {
    fn to(agent: &Agent) -> Self {
        Self {
            username: format!("{}:them", agent.credentials().ufrag),
            attributes: vec![(0x0024, vec![110, 0, 1, 255]), (0x802A, vec![7; 8])],
        }
    }

    fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.attributes.push((kind, value.to_vec()));
        self
    }

    fn nominating(self) -> Self {
        self.with(0x0025, &[])
    }

    fn sealed(self, pwd: &str) -> Vec<u8> {
        // No two requests are the same one.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let mut transaction = *b"transact0000";
        let number = MADE.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        transaction[8..].copy_from_slice(&number);
        let mut out = stun::start(0x0001, &transaction);
        stun::attribute(&mut out, 0x0006, &[self.username.as_bytes()]);
        for (kind, value) in &self.attributes {
            stun::attribute(&mut out, *kind, &[value]);
        }
        stun::finish(out, &stun::key(pwd))
    }
}

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text.replace(char::is_whitespace, "")).unwrap()
}

/// RFC 5769 §2.1.
fn sample_request() -> Vec<u8> {
    bytes(
        "0001 0058 2112a442 b7e7a701bc34d686fa87dfae
         8022 0010 5354554e207465737420636c69656e74 0024 0004 6e0001ff
         8029 0008 932ff9b151263b36 0006 0009 6576746a3a68367659 202020
         0008 0014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2 8028 0004 e57a3bcf",
    )
}

const SAMPLE_PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

#[test]
fn the_sample_request_of_rfc_5769_verifies() {
    let request = sample_request();
    let message = Message::parse(&request).unwrap();
    assert_eq!((message.class, message.username), (Class::Request, Some("evtj:h6vY")));
    assert!(message.unknown.kinds().is_empty());
    assert!(!message.use_candidate);
    assert!(message.verify(&stun::key(SAMPLE_PASSWORD)));
    assert!(!message.verify(&stun::key("another password")));
    assert_eq!(stun_username(&request), Some("evtj"));
}

/// RFC 5769 §2.2 and §2.3.
#[test]
fn the_sample_responses_of_rfc_5769_verify() {
    let over_ipv4 = bytes(
        "0101 003c 2112a442 b7e7a701bc34d686fa87dfae
         8022 000b 7465737420766563746f72 20 0020 0008 0001a147e112a643
         0008 0014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7 8028 0004 c07d4c96",
    );
    let over_ipv6 = bytes(
        "0101 0048 2112a442 b7e7a701bc34d686fa87dfae
         8022 000b 7465737420766563746f72 20
         0020 0014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9
         0008 0014 a382954e4be67bf11784c97c8292c275bfe3ed41 8028 0004 c8fb0b4c",
    );
    let cases = [
        (over_ipv4, "192.0.2.1:32853"),
        (over_ipv6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ];
    for (response, address) in cases {
        let message = Message::parse(&response).unwrap();
        assert_eq!(message.class, Class::Success);
        assert!(message.verify(&stun::key(SAMPLE_PASSWORD)));
        let address: SocketAddr = address.parse().unwrap();
        assert_eq!(Message::mapped_address(&response), Some(address));
        // Ours says the same.
        let ours = stun::success(&message.transaction, address, &stun::key(SAMPLE_PASSWORD));
        assert_eq!(Message::mapped_address(&ours), Some(address));
        assert!(Message::parse(&ours).unwrap().verify(&stun::key(SAMPLE_PASSWORD)));
    }
}

#[test]
fn every_authenticated_check_is_answered_where_it_came_from_and_none_is_sent() {
    let now = Instant::now();
    let mut agent = Agent::lite(credentials(1));
    let pwd = agent.credentials().pwd.clone();
    for port in 1..=5 {
        let check = Request::to(&agent).sealed(&pwd);
        assert_eq!(agent.handle(now, path(port), &check), Ok(()));
        let (to, answer) = agent.poll_transmit().unwrap();
        assert_eq!(to, path(port));
        let message = Message::parse(&answer).unwrap();
        let asked = Message::parse(&check).unwrap().transaction;
        assert_eq!((message.class, message.transaction), (Class::Success, asked));
        assert!(message.verify(&stun::key(&pwd)));
        let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert_eq!(Message::mapped_address(&answer), Some(mapped));
        assert!(agent.poll_transmit().is_none());
    }
    assert_eq!(agent.poll_timeout(), None);
}

#[test]
fn the_newest_nomination_decides_and_before_it_the_first_proof() {
    let now = Instant::now();
    let mut agent = Agent::lite(credentials(1));
    let pwd = agent.credentials().pwd.clone();
    let plain = |agent: &Agent| Request::to(agent).sealed(&pwd);
    let nominating = |agent: &Agent| Request::to(agent).nominating().sealed(&pwd);
    let mut selected = Vec::new();
    for (port, nominates) in [(1, false), (2, false), (3, true), (1, false), (2, true), (3, true)] {
        let check = if nominates { nominating(&agent) } else { plain(&agent) };
        agent.handle(now, path(port), &check).unwrap();
        selected.push(agent.selected().unwrap());
    }
    assert_eq!(selected, [1, 1, 3, 3, 2, 3].map(path));
    assert!((1..=3).all(|port| agent.is_proved(path(port))) && !agent.is_proved(path(4)));
}

#[test]
fn a_closed_path_gives_way_to_the_newest_of_the_others() {
    let now = Instant::now();
    let mut agent = Agent::lite(credentials(1));
    let pwd = agent.credentials().pwd.clone();
    for port in [1, 2, 3] {
        let check = Request::to(&agent).sealed(&pwd);
        let at = now + Duration::from_secs(u64::from(port));
        agent.handle(at, path(port), &check).unwrap();
    }
    while agent.poll_event().is_some() {}
    agent.forget(path(9));
    assert_eq!((agent.selected(), agent.poll_event()), (Some(path(1)), None));
    agent.forget(path(1));
    assert_eq!(agent.poll_event(), Some(AgentEvent::Forgot(path(1))));
    assert_eq!(agent.selected(), Some(path(3)));
    agent.forget(path(2));
    agent.forget(path(3));
    assert_eq!(agent.selected(), None);
    agent.handle(now, path(4), &Request::to(&agent).sealed(&pwd)).unwrap();
    assert_eq!(agent.selected(), Some(path(4)), "the first proof of what follows");
}

#[test]
fn nothing_unauthenticated_changes_anything() {
    let now = Instant::now();
    let mut agent = Agent::lite(credentials(1));
    let pwd = agent.credentials().pwd.clone();
    let good = Request::to(&agent).nominating().sealed(&pwd);
    let mut wrong = vec![
        Request::to(&agent).nominating().sealed("wrong password"),
        Request { username: "nobody:them".into(), attributes: Vec::new() }.sealed(&pwd),
        Request { username: "no colon".into(), attributes: Vec::new() }.sealed(&pwd),
        // 420 is only for those who have the password.
        Request::to(&agent).with(0x0031, b"what").sealed("wrong password"),
        sample_request(),
    ];
    // Without integrity; of another class or method; with a wrong cookie.
    wrong.push([&good[..2], &[0, 0], &good[4..20]].concat());
    for kind in [0x0011_u16, 0x0101, 0x0111, 0x0003, 0x4001] {
        wrong.push([&kind.to_be_bytes()[..], &good[2..]].concat());
    }
    for length in 0..good.len() {
        wrong.push(good[..length].to_vec());
    }
    // All but the name of the FINGERPRINT: behind the integrity it is just one more to ignore.
    let fingerprint = good.len() - 8;
    for bit in
        (0..8 * good.len()).filter(|bit| !(fingerprint..fingerprint + 2).contains(&(bit / 8)))
    {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        wrong.push(flipped);
    }
    for datagram in wrong {
        assert!(agent.handle(now, path(1), &datagram).is_err(), "{datagram:02x?}");
        let _ = stun_username(&datagram);
    }
    assert!(agent.poll_event().is_none() && agent.poll_transmit().is_none());
    assert_eq!((agent.selected(), agent.is_proved(path(1))), (None, false));
    assert_eq!(agent.handle(now, path(1), &good), Ok(()));
}

#[test]
fn unknown_attributes_are_refused_by_name_and_optional_ones_are_not() {
    let now = Instant::now();
    let mut agent = Agent::lite(credentials(1));
    let pwd = agent.credentials().pwd.clone();
    let odd = Request::to(&agent).nominating().with(0x0031, b"what").with(0x7777, b"").sealed(&pwd);
    assert_eq!(agent.handle(now, path(1), &odd), Ok(()), "it is authenticated");
    let (to, answer) = agent.poll_transmit().unwrap();
    let message = Message::parse(&answer).unwrap();
    assert_eq!((to, message.class), (path(1), Class::Error));
    assert!(message.verify(&stun::key(&pwd)));
    let names = [0, 0x0A, 0, 4, 0x00, 0x31, 0x77, 0x77];
    assert!(answer.windows(8).any(|window| window == names));
    assert!(answer.windows(4).any(|window| window == [0, 0, 4, 20]));
    assert_eq!(agent.selected(), None, "a refused check proves nothing");

    let optional = Request::to(&agent).with(0x8FFF, b"optional").sealed(&pwd);
    agent.handle(now, path(1), &optional).unwrap();
    assert_eq!(agent.selected(), Some(path(1)));
}

#[test]
fn role_attributes_say_nothing_to_an_agent_that_cannot_change() {
    let now = Instant::now();
    let mut agent = Agent::lite(credentials(1));
    let pwd = agent.credentials().pwd.clone();
    // ICE-CONTROLLED: the other side claims our role.
    let check = Request::to(&agent).with(0x8029, &[255; 8]).sealed(&pwd);
    agent.handle(now, path(1), &check).unwrap();
    let (_, answer) = agent.poll_transmit().unwrap();
    assert_eq!(Message::parse(&answer).unwrap().class, Class::Success);
}

#[test]
fn a_restart_takes_effect_with_the_first_check_and_old_paths_end_later() {
    let now = Instant::now();
    let mut agent = Agent::lite(credentials(1));
    let pwd = agent.credentials().pwd.clone();
    let old = Request::to(&agent).nominating().sealed(&pwd);
    let other = Request::to(&agent).nominating().sealed(&pwd);
    agent.handle(now, path(1), &old).unwrap();
    agent.handle(now, path(2), &other).unwrap();
    agent.restart(credentials(2));
    assert_eq!(agent.ufrags().count(), 2);
    agent.handle(now, path(1), &old).unwrap();

    let pwd = agent.credentials().pwd.clone();
    let new = Request::to(&agent).sealed(&pwd);
    agent.handle(now, path(1), &new).unwrap();
    assert_eq!(agent.ufrags().collect::<Vec<_>>(), [credentials(2).ufrag]);
    assert_eq!(agent.handle(now, path(1), &old), Err(Refusal::Unauthenticated));
    assert_eq!(agent.selected(), Some(path(1)), "nominated before the restart");

    assert_eq!(agent.poll_timeout(), Some(now + FORGET_AFTER));
    agent.handle_timeout(now + FORGET_AFTER);
    assert!(agent.is_proved(path(1)) && !agent.is_proved(path(2)));
    assert_eq!(agent.poll_timeout(), None);
    let events: Vec<AgentEvent> = std::iter::from_fn(|| agent.poll_event()).collect();
    let wanted = [
        AgentEvent::Proved(path(1)),
        AgentEvent::Proved(path(2)),
        AgentEvent::UfragsChanged,
        AgentEvent::UfragsChanged,
        AgentEvent::Forgot(path(2)),
    ];
    assert_eq!(events, wanted);
}

#[test]
fn sending_leaves_a_path_that_the_restart_did_not_prove_again() {
    let now = Instant::now();
    let mut agent = Agent::lite(credentials(1));
    let pwd = agent.credentials().pwd.clone();
    agent.handle(now, path(1), &Request::to(&agent).nominating().sealed(&pwd)).unwrap();
    agent.restart(credentials(2));
    let pwd = agent.credentials().pwd.clone();
    agent.handle(now, path(2), &Request::to(&agent).sealed(&pwd)).unwrap();
    assert_eq!(agent.selected(), Some(path(1)));
    agent.handle_timeout(now + FORGET_AFTER);
    assert_eq!(agent.selected(), Some(path(2)));
}

#[test]
fn paths_and_credentials_are_bounded() {
    let mut now = Instant::now();
    let mut agent = Agent::lite(credentials(1));
    let pwd = agent.credentials().pwd.clone();
    for port in 1..=20 {
        now += Duration::from_secs(1);
        let check = Request::to(&agent);
        let check = if port == 1 { check.nominating() } else { check };
        agent.handle(now, path(port), &check.sealed(&pwd)).unwrap();
    }
    let proved: Vec<u16> = (1..=20).filter(|port| agent.is_proved(path(*port))).collect();
    assert_eq!(proved, [1, 14, 15, 16, 17, 18, 19, 20], "the one in use stays");

    let first = agent.credentials().ufrag.clone();
    for seed in 2..20 {
        agent.restart(credentials(seed));
    }
    let ufrags: Vec<&str> = agent.ufrags().collect();
    assert_eq!(ufrags.len(), MAX_CREDENTIALS);
    assert_eq!((ufrags[0], ufrags[3]), (first.as_str(), credentials(19).ufrag.as_str()));
}

#[test]
fn credentials_have_the_lengths_and_letters_of_rfc_8445() {
    let one = credentials(1);
    assert!(one.ufrag.len() >= 4 && one.pwd.len() >= 22);
    let ice_char = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    assert!(one.ufrag.chars().chain(one.pwd.chars()).all(ice_char));
    assert_ne!(one, credentials(2));
    assert!(!format!("{one:?}").contains(&one.pwd));
}

/// Not a test: prints what an answered check costs, see `srtp::tests::cost_of_a_packet`.
#[test]
#[ignore = "measures, proves nothing"]
fn cost_of_an_answer() {
    let start = Instant::now();
    let mut agent = Agent::lite(credentials(1));
    let check = Request::to(&agent).nominating().sealed(&agent.credentials().pwd.clone());
    for _ in 0..100_000 {
        agent.handle(start, path(1), &check).unwrap();
        assert!(agent.poll_transmit().is_some());
    }
    #[allow(clippy::print_stdout, reason = "the figure is the whole purpose")]
    {
        println!("a check and its answer: {:?}", start.elapsed() / 100_000);
    }
}
