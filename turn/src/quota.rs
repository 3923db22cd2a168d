//! Who may have how many: participants and their allocations, addresses, ports; and how often a
//! stranger is answered.
//!
//! The [`Ledger`] is one for the whole node and is asked only when an allocation comes or goes.
//! What counts strangers belongs to one listener and never grows.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;

use crate::{Config, Quotas, Relay};

/// How long a reserved port is kept (RFC 8656 §7.2).
const RESERVED_FOR: Duration = Duration::from_secs(30);
/// From one port to the next: odd and large, so that neighbours in time are none in number.
const PORT_STEP: usize = 7_919;

/// An address family; its number indexes what there is one of per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4 = 0,
    V6 = 1,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// From the number in attributes (RFC 8656 §18.8).
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::V4),
            2 => Some(Self::V6),
            _ => None,
        }
    }

    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }

    pub(crate) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// One thing per family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PerFamily<T> {
    v4: T,
    v6: T,
}

impl<T> PerFamily<T> {
    pub(crate) const fn get(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    pub(crate) const fn get_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// Why nothing is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// 486: this participant or this address has enough.
    Quota,
    /// 508: nobody can have more, or not such a port.
    Capacity,
}

/// What shows that a reserved port is meant for its owner.
type Token = [u8; 8];
/// The ports of an allocation.
type LeasedPorts = PerFamily<Option<u16>>;

/// What an allocation wants of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Any,
    /// EVEN-PORT.
    Even,
    /// EVEN-PORT with the R bit: and the next one kept for later.
    Pair,
    /// RESERVATION-TOKEN.
    Reserved(Token),
}

/// Whose allocation it would be, and what it wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) participant: &'a str,
    pub(crate) client: SocketAddr,
    pub(crate) wanted: PerFamily<bool>,
    pub(crate) wish: Wish,
}

/// What an allocation holds of the ledger; given back by [`Ledger::close`].
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) relay: Relay,
    pub(crate) participant: Arc<str>,
    pub(crate) ports: LeasedPorts,
    /// The port behind this one waits for who shows this.
    pub(crate) token: Option<Token>,
    stay: u64,
    household: IpAddr,
}

/// A participant who is present.
#[derive(Debug)]
struct Guest {
    name: Arc<str>,
    /// Another one when the same participant comes again.
    stay: u64,
    allocations: u32,
}

#[derive(Debug)]
struct Reservation {
    token: Token,
    stay: u64,
    family: Family,
    port: u16,
    until: Instant,
}

/// Who is there and has what.
#[derive(Debug)]
pub struct Ledger {
    quotas: Quotas,
    guests: HashMap<Arc<str>, Guest>,
    households: HashMap<IpAddr, u32>,
    ports: PerFamily<Ports>,
    reservations: Vec<Reservation>,
    tokens: hmac::Key,
    stays: u64,
    relays: u64,
}

impl Ledger {
    /// With nobody in it.
    pub fn new(config: &Config) -> Self {
        let ports = |family| {
            let ours = config.peers.iter().filter(|peer| Family::of(peer.ip()) == family);
            Ports::new(config, &ours.map(SocketAddr::port).collect::<Vec<_>>())
        };
        Self {
            quotas: config.quotas,
            guests: HashMap::new(),
            households: HashMap::new(),
            ports: PerFamily { v4: ports(Family::V4), v6: ports(Family::V6) },
            reservations: Vec::new(),
            tokens: config.secret.derive("reservation tokens"),
            stays: 0,
            relays: 0,
        }
    }

    /// This participant may allocate from now on.
    pub fn allow(&mut self, participant: &str) {
        if self.guests.contains_key(participant) {
            return;
        }
        self.stays += 1;
        let name: Arc<str> = participant.into();
        let guest = Guest { name: Arc::clone(&name), stay: self.stays, allocations: 0 };
        self.guests.insert(name, guest);
    }

    /// This participant has left: what it has is no longer good.
    pub fn free(&mut self, participant: &str) {
        if let Some(guest) = self.guests.remove(participant) {
            self.drop_reservations(|reservation| reservation.stay == guest.stay);
        }
    }

    pub(crate) fn is_present(&self, participant: &str) -> bool {
        self.guests.contains_key(participant)
    }

    /// Is it still the stay that this was given to?
    pub(crate) fn is_good(&self, lease: &Lease) -> bool {
        self.guests.get(&*lease.participant).is_some_and(|guest| guest.stay == lease.stay)
    }

    /// Gives an allocation on listener `listener` what it needs.
    pub(crate) fn open(
        &mut self,
        now: Instant,
        listener: u8,
        claim: &Claim<'_>,
    ) -> Result<Lease, Denied> {
        let quotas = self.quotas;
        let household = household(claim.client.ip());
        let guest = self.guests.get(claim.participant).ok_or(Denied::Quota)?;
        let from_there = self.households.get(&household).copied().unwrap_or(0);
        if guest.allocations >= quotas.allocations_of_participant
            || from_there >= quotas.allocations_from_address
        {
            return Err(Denied::Quota);
        }
        let (name, stay) = (Arc::clone(&guest.name), guest.stay);
        self.expire(now);
        let (ports, token) = self.take_ports(now, stay, claim)?;
        if let Some(guest) = self.guests.get_mut(claim.participant) {
            guest.allocations += 1;
        }
        *self.households.entry(household).or_insert(0) += 1;
        self.relays += 1;
        let relay = Relay(self.relays << 8 | u64::from(listener));
        Ok(Lease { relay, participant: name, ports, token, stay, household })
    }

    /// Takes it back.
    pub(crate) fn close(&mut self, lease: &Lease) {
        for family in Family::BOTH {
            if let Some(port) = *lease.ports.get(family) {
                self.ports.get_mut(family).release(port);
            }
        }
        if let Some(guest) = self.guests.get_mut(&*lease.participant)
            && guest.stay == lease.stay
        {
            guest.allocations -= 1;
        }
        if let Some(count) = self.households.get_mut(&lease.household) {
            *count -= 1;
            if *count == 0 {
                self.households.remove(&lease.household);
            }
        }
    }

    /// Takes back one of two ports.
    pub(crate) fn close_family(&mut self, lease: &mut Lease, family: Family) {
        if let Some(port) = lease.ports.get_mut(family).take() {
            self.ports.get_mut(family).release(port);
        }
    }

    fn take_ports(
        &mut self,
        now: Instant,
        stay: u64,
        claim: &Claim<'_>,
    ) -> Result<(LeasedPorts, Option<Token>), Denied> {
        let mut taken = PerFamily::default();
        if let Wish::Reserved(token) = claim.wish {
            let wanted = |r: &Reservation| r.token == token && r.stay == stay;
            let at = self.reservations.iter().position(wanted).ok_or(Denied::Capacity)?;
            let reservation = self.reservations.swap_remove(at);
            *taken.get_mut(reservation.family) = Some(reservation.port);
            return Ok((taken, None));
        }
        for family in Family::BOTH.into_iter().filter(|family| *claim.wanted.get(*family)) {
            let port = self.ports.get_mut(family).take(claim.wish);
            let Some(port) = port else {
                for family in Family::BOTH {
                    if let Some(port) = taken.get_mut(family).take() {
                        self.ports.get_mut(family).release(port);
                    }
                }
                return Err(Denied::Capacity);
            };
            *taken.get_mut(family) = Some(port);
        }
        let first = Family::BOTH.into_iter().find_map(|f| taken.get(f).map(|port| (f, port)));
        let token = match (claim.wish, first) {
            (Wish::Pair, Some((family, port))) => Some(self.reserve(now, stay, family, port + 1)),
            (Wish::Any | Wish::Even | Wish::Reserved(_) | Wish::Pair, _) => None,
        };
        Ok((taken, token))
    }

    fn reserve(&mut self, now: Instant, stay: u64, family: Family, port: u16) -> Token {
        let name = [&(self.relays + 1).to_be_bytes()[..], &port.to_be_bytes()].concat();
        let mut token = [0; 8];
        for (to, from) in token.iter_mut().zip(hmac::sign(&self.tokens, &name).as_ref()) {
            *to = *from;
        }
        let until = now + RESERVED_FOR;
        self.reservations.push(Reservation { token, stay, family, port, until });
        token
    }

    fn expire(&mut self, now: Instant) {
        self.drop_reservations(|reservation| reservation.until <= now);
    }

    fn drop_reservations(&mut self, gone: impl Fn(&Reservation) -> bool) {
        let ports = &mut self.ports;
        self.reservations.retain(|reservation| {
            let gone = gone(reservation);
            if gone {
                ports.get_mut(reservation.family).release(reservation.port);
            }
            !gone
        });
    }
}

/// The ports of one family.
#[derive(Debug)]
struct Ports {
    first: u16,
    /// Not to be had.
    taken: Vec<bool>,
    next: usize,
}

impl Ports {
    /// Those of the range, without our own real ones, which must stay told apart.
    fn new(config: &Config, ours: &[u16]) -> Self {
        let taken = config.ports.clone().map(|port| port == 0 || ours.contains(&port)).collect();
        Self { first: *config.ports.start(), taken, next: 0 }
    }

    fn take(&mut self, wish: Wish) -> Option<u16> {
        let count = self.taken.len();
        let begin = self.next;
        let fits = |at: usize| {
            let port = usize::from(self.first) + at;
            let free = |at: usize| self.taken.get(at) == Some(&false);
            free(at)
                && match wish {
                    Wish::Any | Wish::Reserved(_) => true,
                    Wish::Even => port.is_multiple_of(2),
                    Wish::Pair => port.is_multiple_of(2) && free(at + 1),
                }
        };
        let at = (0..count).map(|step| (begin + step) % count).find(|at| fits(*at))?;
        self.next = (at + PORT_STEP) % count;
        let end = if wish == Wish::Pair { at + 1 } else { at };
        for place in self.taken.get_mut(at..=end).unwrap_or_default() {
            *place = true;
        }
        u16::try_from(usize::from(self.first) + at).ok()
    }

    fn release(&mut self, port: u16) {
        let at = usize::from(port.saturating_sub(self.first));
        if let Some(place) = self.taken.get_mut(at) {
            *place = false;
        }
    }
}

/// Whose an address is: with IPv6 everybody has a whole network of them.
pub(crate) const fn household(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// Sources that are remembered at once. With more of them the one that was quiet for the longest
/// is forgotten, so a flood that seems to come from everywhere makes nobody answer one address
/// more often than this listener's rate.
const SETS: usize = 2_048;
const WAYS: usize = 4;
/// Answers that may come at once, as seconds of the rate: people behind one address join together.
const BURST_SECONDS: u32 = 3;

/// Bounds how often an address that has proved nothing is answered.
#[derive(Debug)]
pub(crate) struct Strangers {
    per_second: u32,
    seed: u64,
    start: Instant,
    places: Vec<[Source; WAYS]>,
}

/// One address, as far as it is remembered.
#[derive(Clone, Copy, Debug, Default)]
struct Source {
    tag: u64,
    /// When it was answered last, in ms; 0: nobody's place.
    at: u64,
    /// Thousandths of an answer that it may still have.
    left: u64,
}

impl Strangers {
    pub(crate) fn new(now: Instant, per_second: u32, seed: u64) -> Self {
        // The clock begins above zero, which means an empty place.
        let start = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        Self { per_second, seed, start, places: vec![[Source::default(); WAYS]; SETS] }
    }

    /// May this address be answered now?
    pub(crate) fn may_answer(&mut self, now: Instant, from: IpAddr) -> bool {
        let rate = u64::from(self.per_second);
        let full = rate * 1_000 * u64::from(BURST_SECONDS);
        let at = now.saturating_duration_since(self.start).as_millis();
        let at = u64::try_from(at).unwrap_or(u64::MAX).max(1);
        let tag = self.tag(household(from));
        let set = usize::try_from(tag % SETS as u64).unwrap_or(0);
        let Some(set) = self.places.get_mut(set) else { return false };
        let known = set.iter().position(|source| source.at != 0 && source.tag == tag);
        let quiet = set.iter().enumerate().min_by_key(|(_, source)| source.at);
        let quiet = quiet.map_or(0, |(place, _)| place);
        let place = known.unwrap_or(quiet);
        let Some(source) = set.get_mut(place) else { return false };
        if known.is_none() {
            *source = Source { tag, at, left: full };
        }
        let gained = at.saturating_sub(source.at).saturating_mul(rate);
        let left = source.left.saturating_add(gained).min(full);
        let may = left >= 1_000;
        *source = Source { tag, at, left: if may { left - 1_000 } else { left } };
        may
    }

    /// A number for an address that nobody outside can choose.
    fn tag(&self, address: IpAddr) -> u64 {
        let (high, low) = match address {
            IpAddr::V4(ip) => (u64::from(u32::from(ip)), 4),
            IpAddr::V6(ip) => ((ip.to_bits() >> 64) as u64, 6),
        };
        mix(mix(high ^ self.seed).wrapping_add(low) ^ self.seed.rotate_left(32))
    }
}

/// Spreads the bits of a number over all of it (splitmix64's finish).
const fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    fn config() -> Config {
        let peers = vec!["192.0.2.1:50001".parse().unwrap()];
        let mut config = Config::new(Secret::new(b"s"), peers, Vec::new());
        config.ports = 50_000..=50_007;
        config
    }

    fn claim(participant: &str, wish: Wish) -> Claim<'_> {
        let client = "198.51.100.1:1000".parse().unwrap();
        Claim { participant, client, wanted: PerFamily { v4: true, v6: false }, wish }
    }

    fn port(lease: &Lease) -> u16 {
        lease.ports.get(Family::V4).unwrap()
    }

    #[test]
    fn ports_are_unique_never_ours_and_come_back() {
        let now = Instant::now();
        let mut ledger = Ledger::new(&config());
        ledger.allow("a");
        let leases: Vec<Lease> =
            (0..7).map(|_| ledger.open(now, 0, &claim("a", Wish::Any)).unwrap()).collect();
        let mut ports: Vec<u16> = leases.iter().map(port).collect();
        ports.sort_unstable();
        assert_eq!(ports, [50_000, 50_002, 50_003, 50_004, 50_005, 50_006, 50_007]);
        let full = ledger.open(now, 0, &claim("a", Wish::Any));
        assert_eq!(full.unwrap_err(), Denied::Capacity);
        ledger.close(&leases[3]);
        let again = ledger.open(now, 7, &claim("a", Wish::Any)).unwrap();
        assert_eq!(port(&again), port(&leases[3]));
        assert!(leases.iter().all(|lease| lease.relay != again.relay), "a number is never reused");
        assert_eq!(again.relay.0 & 0xFF, 7);
    }

    #[test]
    fn an_even_port_and_the_one_behind_it() {
        let now = Instant::now();
        let mut ledger = Ledger::new(&config());
        for name in ["a", "b"] {
            ledger.allow(name);
        }
        let even = ledger.open(now, 0, &claim("a", Wish::Even)).unwrap();
        assert_eq!(port(&even) % 2, 0);
        let pair = ledger.open(now, 0, &claim("a", Wish::Pair)).unwrap();
        let token = pair.token.unwrap();
        assert_eq!(port(&pair) % 2, 0);
        let thief = ledger.open(now, 0, &claim("b", Wish::Reserved(token)));
        assert_eq!(thief.unwrap_err(), Denied::Capacity);
        let second = ledger.open(now, 0, &claim("a", Wish::Reserved(token))).unwrap();
        assert_eq!(port(&second), port(&pair) + 1);
        let twice = ledger.open(now, 0, &claim("a", Wish::Reserved(token)));
        assert_eq!(twice.unwrap_err(), Denied::Capacity, "once");
    }

    #[test]
    fn a_reservation_ends_by_time_and_with_its_owner() {
        let now = Instant::now();
        let mut ledger = Ledger::new(&config());
        ledger.allow("a");
        let free = |ledger: &Ledger| ledger.ports.v4.taken.iter().filter(|taken| !**taken).count();
        let before = free(&ledger);
        let token = ledger.open(now, 0, &claim("a", Wish::Pair)).unwrap().token.unwrap();
        assert_eq!(free(&ledger), before - 2);
        let late = ledger.open(now + RESERVED_FOR, 0, &claim("a", Wish::Reserved(token)));
        assert_eq!(late.unwrap_err(), Denied::Capacity);
        assert_eq!(free(&ledger), before - 1);
        ledger.open(now, 0, &claim("a", Wish::Pair)).unwrap();
        ledger.free("a");
        assert_eq!(free(&ledger), before - 2);
    }

    #[test]
    fn one_participant_and_one_address_have_so_many() {
        let now = Instant::now();
        let mut config = config();
        config.quotas.allocations_of_participant = 2;
        config.quotas.allocations_from_address = 3;
        let mut ledger = Ledger::new(&config);
        for name in ["a", "b"] {
            ledger.allow(name);
        }
        let open = |ledger: &mut Ledger, name| ledger.open(now, 0, &claim(name, Wish::Any));
        let first = open(&mut ledger, "a").unwrap();
        open(&mut ledger, "a").unwrap();
        assert_eq!(open(&mut ledger, "a").unwrap_err(), Denied::Quota, "a has two");
        open(&mut ledger, "b").unwrap();
        assert_eq!(open(&mut ledger, "b").unwrap_err(), Denied::Quota, "the address has three");
        ledger.close(&first);
        open(&mut ledger, "b").unwrap();
        assert_eq!(open(&mut ledger, "nobody").unwrap_err(), Denied::Quota);
    }

    #[test]
    fn who_comes_again_does_not_inherit() {
        let now = Instant::now();
        let mut ledger = Ledger::new(&config());
        ledger.allow("a");
        let lease = ledger.open(now, 0, &claim("a", Wish::Any)).unwrap();
        ledger.allow("a");
        assert!(ledger.is_good(&lease), "allowed twice is the same stay");
        ledger.free("a");
        assert!(!ledger.is_good(&lease) && !ledger.is_present("a"));
        ledger.allow("a");
        assert!(!ledger.is_good(&lease), "another stay");
        ledger.close(&lease);
        assert!(ledger.households.is_empty());
        assert_eq!(ledger.guests["a"].allocations, 0);
    }

    #[test]
    fn a_stranger_is_answered_so_often_and_its_neighbours_too() {
        let start = Instant::now();
        let mut strangers = Strangers::new(start, 10, 5);
        let from: IpAddr = "192.0.2.1".parse().unwrap();
        let mut answered =
            |now, from| (0..1_000).filter(|_| strangers.may_answer(now, from)).count();
        assert_eq!(answered(start, from), 30, "a burst");
        assert_eq!(answered(start + Duration::from_secs(1), from), 10);
        assert_eq!(answered(start + Duration::from_secs(1), "192.0.2.2".parse().unwrap()), 30);
        let one_network = answered(start, "2001:db8::1".parse().unwrap())
            + answered(start, "2001:db8::ffff".parse().unwrap());
        assert_eq!(one_network, 30);
        assert_eq!(answered(start + Duration::from_secs(3_600), from), 30);
    }

    #[test]
    fn a_flood_from_everywhere_does_not_make_one_address_forgotten() {
        let start = Instant::now();
        let mut strangers = Strangers::new(start, 10, 5);
        let victim: IpAddr = "192.0.2.1".parse().unwrap();
        let mut answered = 0;
        for packet in 0..100_000_u32 {
            let now = start + Duration::from_micros(u64::from(packet) * 100);
            answered += usize::from(strangers.may_answer(now, victim));
            strangers
                .may_answer(now, IpAddr::from((packet.wrapping_mul(2_654_435_761)).to_be_bytes()));
        }
        assert!(answered <= 30 + 10 * 10, "{answered} in ten seconds");
    }
}
