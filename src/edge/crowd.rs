//! How many may be there at a time: in all, and from one address.
//!
//! Somebody who has not said anything whole yet is unsettled. Where there is no place left, the one who
//! has been unsettled for longest goes, of the same address where that is what is full. So those who
//! open connections and say nothing keep nobody out, not even their neighbours.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bedside_control_plane::address::TrustedProxies;
use tokio::sync::Notify;

/// Everybody who is there.
#[derive(Debug)]
pub(crate) struct Crowd {
    places: usize,
    per_address: usize,
    proxies: TrustedProxies,
    next: AtomicU64,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    unsettled: BTreeMap<u64, (IpAddr, Arc<Notify>)>,
    parties: HashMap<IpAddr, Party>,
}

/// Those of one address.
#[derive(Debug, Default)]
struct Party {
    open: usize,
    unsettled: BTreeSet<u64>,
}

/// What happens to somebody who comes.
enum Entry {
    In(Seat),
    Refused,
    Full,
}

impl Crowd {
    /// `places` in all, `per_address` of them for one; `proxies` come for many.
    pub(crate) fn new(places: usize, per_address: usize, proxies: TrustedProxies) -> Arc<Self> {
        Arc::new(Self {
            places: places.max(1),
            per_address: per_address.max(1),
            proxies,
            next: AtomicU64::new(0),
            state: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// A place for somebody from this address, unless that address has all of its own. Waits while
    /// there is none at all.
    pub(super) async fn seat(self: &Arc<Self>, from: IpAddr) -> Option<Seat> {
        loop {
            let freed = self.freed.notified();
            match self.enter(from) {
                Entry::In(seat) => return Some(seat),
                Entry::Refused => return None,
                Entry::Full => freed.await,
            }
        }
    }

    fn enter(self: &Arc<Self>, from: IpAddr) -> Entry {
        let from = from.to_canonical();
        let bounded = !self.proxies.trusts(from);
        let from = household(from);
        let mut state = self.state();
        let party = state.parties.get(&from);
        if bounded && party.is_some_and(|party| party.open >= self.per_address) {
            let oldest = party.and_then(|party| party.unsettled.first()).copied();
            let Some(oldest) = oldest else { return Entry::Refused };
            state.send_away(oldest);
        }
        if state.open >= self.places {
            let oldest = state.unsettled.first_key_value().map(|(number, _)| *number);
            let Some(oldest) = oldest else { return Entry::Full };
            state.send_away(oldest);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let away = Arc::new(Notify::new());
        state.open += 1;
        state.unsettled.insert(number, (from, Arc::clone(&away)));
        let party = state.parties.entry(from).or_default();
        party.open += 1;
        party.unsettled.insert(number);
        let settled = AtomicBool::new(false);
        Entry::In(Seat { crowd: Arc::clone(self), number, from, away, settled })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Its place is free at once; it goes as soon as it looks.
    fn send_away(&mut self, number: u64) {
        let Some((from, away)) = self.unsettled.remove(&number) else { return };
        self.leave(from, Some(number));
        away.notify_one();
    }

    fn leave(&mut self, from: IpAddr, unsettled: Option<u64>) {
        self.open -= 1;
        let Some(party) = self.parties.get_mut(&from) else { return };
        party.open -= 1;
        if let Some(number) = unsettled {
            party.unsettled.remove(&number);
        }
        if party.open == 0 {
            self.parties.remove(&from);
        }
    }
}

/// Whose an address is: with IPv6 everybody has a whole network of them.
const fn household(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// A place of one connection.
#[derive(Debug)]
pub(super) struct Seat {
    crowd: Arc<Crowd>,
    number: u64,
    from: IpAddr,
    away: Arc<Notify>,
    settled: AtomicBool,
}

impl Seat {
    /// It has said something whole, and is not sent away any more.
    pub(super) fn settle(&self) {
        if self.settled.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.crowd.state();
        // Who was sent away in the meantime stays so.
        if state.unsettled.remove(&self.number).is_some() {
            if let Some(party) = state.parties.get_mut(&self.from) {
                party.unsettled.remove(&self.number);
            }
            self.settled.store(true, Ordering::Relaxed);
        }
    }

    /// Waits until it must go.
    pub(super) async fn sent_away(&self) {
        self.away.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.crowd.state();
        if self.settled.load(Ordering::Relaxed) {
            state.leave(self.from, None);
        } else if state.unsettled.remove(&self.number).is_some() {
            state.leave(self.from, Some(self.number));
        } else {
            return;
        }
        drop(state);
        self.crowd.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bedside_control_plane::address::Header;
    use tokio::time::timeout;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn crowd(places: usize, per_address: usize) -> Arc<Crowd> {
        Crowd::new(places, per_address, TrustedProxies::default())
    }

    async fn settled(crowd: &Arc<Crowd>, from: IpAddr) -> Seat {
        let seat = crowd.seat(from).await.unwrap();
        seat.settle();
        seat
    }

    async fn is_away(seat: &Seat) -> bool {
        timeout(Duration::ZERO, seat.sent_away()).await.is_ok()
    }

    #[tokio::test]
    async fn the_silent_make_way_for_their_neighbours() {
        let crowd = crowd(100, 2);
        let busy = settled(&crowd, HERE).await;
        let silent = crowd.seat(HERE).await.unwrap();
        let other = crowd.seat(THERE).await.unwrap();
        let third = settled(&crowd, HERE).await;
        assert!(is_away(&silent).await);
        assert!(!is_away(&busy).await && !is_away(&other).await && !is_away(&third).await);
        assert!(crowd.seat(HERE).await.is_none(), "both are busy");
        drop(third);
        assert!(crowd.seat(HERE).await.is_some());
        // Too late to settle.
        silent.settle();
        drop(silent);
        assert_eq!(crowd.state().open, 2);
    }

    #[tokio::test]
    async fn a_full_house_sends_the_oldest_silent_one_away_or_waits() {
        let crowd = crowd(2, 100);
        let first = crowd.seat(HERE).await.unwrap();
        let second = crowd.seat(THERE).await.unwrap();
        let third = settled(&crowd, THERE).await;
        assert!(is_away(&first).await && !is_away(&second).await);
        second.settle();
        let waiting = crowd.seat(HERE);
        tokio::pin!(waiting);
        assert!(timeout(Duration::from_millis(20), &mut waiting).await.is_err());
        drop(third);
        assert!(waiting.await.is_some());
    }

    #[tokio::test]
    async fn a_trusted_proxy_comes_for_many_and_a_network_for_one() {
        let proxies = TrustedProxies::new(vec!["192.0.2.1/32".parse().unwrap()], Header::default());
        let crowd = Crowd::new(100, 1, proxies);
        let one = settled(&crowd, HERE).await;
        let two = settled(&crowd, "::ffff:192.0.2.1".parse().unwrap()).await;
        let six = settled(&crowd, "2001:db8::1".parse().unwrap()).await;
        assert!(crowd.seat("2001:db8::2".parse().unwrap()).await.is_none());
        assert!(crowd.seat("2001:db8:0:1::1".parse().unwrap()).await.is_some());
        drop((one, two, six));
        assert_eq!(crowd.state().open, 0);
        assert!(crowd.state().parties.is_empty() && crowd.state().unsettled.is_empty());
    }
}
