//! ICE: the lite agent of the server and a small controlling agent for the headless client.
//!
//! Both answer every authenticated check and keep a small set of *proved* paths: those that an
//! authenticated check came over. Packets are taken from all of them and sent to one, the newest
//! that was nominated. Nothing that is not authenticated changes any state; a role conflict is
//! none to an agent whose role cannot change, so the role attributes are not looked at.

mod controlling;
mod stun;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use rand_chacha::rand_core::Rng as _;

use super::Rng;
use super::api::Path;
use controlling::Checker;
use stun::{Class, Message, Transaction};

/// One side's short-term credentials (RFC 8445 §5.3).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name fragment; routes a first packet.
    pub ufrag: String,
    /// Password; authenticates.
    pub pwd: String,
}

impl Credentials {
    /// Fresh ones: 48 random bits to route by and 144 to authenticate by.
    pub fn random(rng: &mut Rng) -> Self {
        Self { ufrag: random_word(rng, 8), pwd: random_word(rng, 24) }
    }

    /// Fresh ones of a shard, whose number [`shard_of`] reads back.
    pub fn of_shard(rng: &mut Rng, shard: u16) -> Self {
        let Self { ufrag, pwd } = Self::random(rng);
        let letter = |number: u16| ALPHABET.get(usize::from(number & 63)).map(|b| char::from(*b));
        let mut named: String = [letter(shard >> 6), letter(shard)].into_iter().flatten().collect();
        named.push_str(&ufrag);
        Self { ufrag: named, pwd }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// RFC 8445 §5.3 allows these.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The shard that a user name fragment of ours belongs to: a connection that all shards share is
/// handed to it.
pub fn shard_of(ufrag: &str) -> Option<u16> {
    let number = |letter: &u8| ALPHABET.iter().position(|known| known == letter);
    let [high, low] = ufrag.as_bytes().first_chunk()?;
    u16::try_from(number(high)? << 6 | number(low)?).ok()
}

fn random_word(rng: &mut Rng, length: usize) -> String {
    let mut bytes = vec![0; length];
    rng.fill_bytes(&mut bytes);
    bytes.iter().filter_map(|b| ALPHABET.get(usize::from(b & 63))).map(|b| char::from(*b)).collect()
}

/// The local ufrag that a Binding request names, to route an unknown path's first packet by.
///
/// Nothing is verified here. `None`: not a Binding request, or one without a user name.
pub fn stun_username(data: &[u8]) -> Option<&str> {
    let (header, mut rest) = data.split_at_checked(20)?;
    if !header.starts_with(&[0, 1]) || header.get(4..8)? != [0x21, 0x12, 0xa4, 0x42] {
        return None;
    }
    while let Some((&[kind_high, kind_low, length_high, length_low], tail)) =
        rest.split_first_chunk()
    {
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        if [kind_high, kind_low] == [0, 6] {
            let name = std::str::from_utf8(tail.get(..length)?).ok()?;
            return name.split_once(':').map(|(local, _)| local);
        }
        rest = tail.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// What the agent tells the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AgentEvent {
    Proved(Path),
    Forgot(Path),
    UfragsChanged,
}

/// Why a STUN datagram changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed,
    Unauthenticated,
}

/// Paths that packets are taken from, at the most.
const MAX_PROVED: usize = 8;
/// Credentials that may be valid at once: the ones in use, and restarts not yet taken up.
const MAX_CREDENTIALS: usize = 4;
/// Requests remembered, to know one that somebody plays back from an address of his own. A browser
/// asks every few seconds, so this is some minutes.
const MAX_HEARD: usize = 64;
/// How long a path of before a restart is still listened to.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// An ICE agent.
#[derive(Debug)]
pub(super) struct Agent {
    /// Newest last. The older ones are valid until the first check with a newer one.
    locals: Vec<Local>,
    proved: Vec<Proved>,
    selected: Option<Path>,
    checker: Option<Checker>,
    /// The latest authenticated requests, and where they came over.
    heard: VecDeque<(Transaction, Path)>,
    events: VecDeque<AgentEvent>,
    transmits: VecDeque<(Path, Vec<u8>)>,
}

#[derive(Debug)]
struct Local {
    credentials: Credentials,
    key: hmac::Key,
}

impl Local {
    fn new(credentials: Credentials) -> Self {
        Self { key: stun::key(&credentials.pwd), credentials }
    }
}

#[derive(Clone, Copy, Debug)]
struct Proved {
    path: Path,
    checked_at: Instant,
    /// Set by a restart, taken back by a check after it.
    forget_at: Option<Instant>,
}

impl Agent {
    /// The server's agent: answers checks, sends none.
    pub(super) fn lite(local: Credentials) -> Self {
        Self {
            locals: vec![Local::new(local)],
            proved: Vec::with_capacity(MAX_PROVED),
            selected: None,
            checker: None,
            heard: VecDeque::new(),
            events: VecDeque::new(),
            transmits: VecDeque::new(),
        }
    }

    /// The headless client's agent: checks the candidates from `now` on.
    pub(super) fn controlling(
        now: Instant,
        local: Credentials,
        remote: &Credentials,
        candidates: Vec<Path>,
    ) -> Self {
        let checker = Checker::new(now, &local, remote, candidates);
        Self { checker: Some(checker), ..Self::lite(local) }
    }

    /// The newest local credentials.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.locals.last().expect("never empty: only older ones are dropped").credentials
    }

    /// Every valid local ufrag, newest last.
    pub(super) fn ufrags(&self) -> impl Iterator<Item = &str> {
        self.locals.iter().map(|local| local.credentials.ufrag.as_str())
    }

    /// Adds credentials for a restart.
    pub(super) fn restart(&mut self, local: Credentials) {
        if self.locals.len() == MAX_CREDENTIALS {
            // Restarts that nobody took up; the first ones may be in use.
            self.locals.remove(1);
        }
        self.locals.push(Local::new(local));
        self.events.push_back(AgentEvent::UfragsChanged);
    }

    /// The controlling agent learns new credentials or candidates and checks them at once.
    pub(super) fn set_remote(&mut self, now: Instant, remote: &Credentials, candidates: Vec<Path>) {
        let local = &self.locals.last().expect("never empty").credentials;
        if let Some(checker) = &mut self.checker {
            checker.restart(now, local, remote, candidates);
        }
    }

    /// Where to send, whatever the keys say.
    pub(super) fn selected(&self) -> Option<Path> {
        self.selected
    }

    /// Whether packets from this path are ours.
    pub(super) fn is_proved(&self, path: Path) -> bool {
        self.proved.iter().any(|proved| proved.path == path)
    }

    pub(super) fn poll_event(&mut self) -> Option<AgentEvent> {
        self.events.pop_front()
    }

    pub(super) fn poll_transmit(&mut self) -> Option<(Path, Vec<u8>)> {
        self.transmits.pop_front()
    }

    /// Takes a STUN datagram. `Ok`: it was authenticated.
    pub(super) fn handle(&mut self, now: Instant, path: Path, data: &[u8]) -> Result<(), Refusal> {
        let message = Message::parse(data).ok_or(Refusal::Malformed)?;
        match message.class {
            Class::Request => self.handle_request(now, path, &message),
            Class::Success | Class::Error => self.handle_answer(now, path, &message),
            Class::Indication => Err(Refusal::Unauthenticated),
        }
    }

    fn handle_request(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message<'_>,
    ) -> Result<(), Refusal> {
        let (ufrag, _) = message
            .username
            .and_then(|name| name.split_once(':'))
            .ok_or(Refusal::Unauthenticated)?;
        let known = self.locals.iter().enumerate();
        let (number, local) = known
            .filter(|(_, local)| local.credentials.ufrag == ufrag)
            .find(|(_, local)| message.verify(&local.key))
            .ok_or(Refusal::Unauthenticated)?;
        if is_played_back(&mut self.heard, message.transaction, path) {
            return Err(Refusal::Unauthenticated);
        }
        if !message.unknown.kinds().is_empty() {
            let refusal =
                stun::unknown_attribute(&message.transaction, &message.unknown, &local.key);
            self.transmits.push_back((path, refusal));
            return Ok(());
        }
        let answer = stun::success(&message.transaction, mapped(path), &local.key);
        self.transmits.push_back((path, answer));
        self.drop_locals_before(now, number);
        self.prove(now, path);
        if self.checker.is_none() && (message.use_candidate || self.selected.is_none()) {
            self.selected = Some(path);
        }
        Ok(())
    }

    fn handle_answer(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message<'_>,
    ) -> Result<(), Refusal> {
        let checker = self.checker.as_mut().ok_or(Refusal::Unauthenticated)?;
        if !checker.take_answer(now, path, message) {
            return Err(Refusal::Unauthenticated);
        }
        if message.class == Class::Success {
            if checker.settle(now, path) {
                self.selected = Some(path);
            }
            // The checks name the credentials they were made with; older ones have served.
            let in_use = |local: &Local| checker.is_for(&local.credentials.ufrag);
            let number = self.locals.iter().position(in_use).unwrap_or(0);
            self.drop_locals_before(now, number);
            self.prove(now, path);
        }
        Ok(())
    }

    /// The other side has taken up a restart: older credentials end at once, older paths later.
    fn drop_locals_before(&mut self, now: Instant, number: usize) {
        if number == 0 {
            return;
        }
        self.locals.drain(..number.min(self.locals.len().saturating_sub(1)));
        for proved in &mut self.proved {
            proved.forget_at = Some(now + FORGET_AFTER);
        }
        self.events.push_back(AgentEvent::UfragsChanged);
    }

    fn prove(&mut self, now: Instant, path: Path) {
        if let Some(proved) = self.proved.iter_mut().find(|proved| proved.path == path) {
            proved.checked_at = now;
            proved.forget_at = None;
            return;
        }
        if self.proved.len() == MAX_PROVED {
            let selected = self.selected;
            let oldest = self
                .proved
                .iter()
                .enumerate()
                .filter(|(_, proved)| Some(proved.path) != selected)
                .min_by_key(|(_, proved)| proved.checked_at)
                .map(|(number, _)| number);
            if let Some(oldest) = oldest {
                let gone = self.proved.remove(oldest);
                self.events.push_back(AgentEvent::Forgot(gone.path));
            }
        }
        self.proved.push(Proved { path, checked_at: now, forget_at: None });
        self.events.push_back(AgentEvent::Proved(path));
    }

    /// A path's connection has ended: nothing is sent there any more. The newest of the others takes
    /// its place until the client nominates one.
    pub(super) fn forget(&mut self, path: Path) {
        let Some(number) = self.proved.iter().position(|proved| proved.path == path) else {
            return;
        };
        self.proved.remove(number);
        self.events.push_back(AgentEvent::Forgot(path));
        if self.selected == Some(path) {
            let newest = self.proved.iter().max_by_key(|proved| proved.checked_at);
            self.selected = newest.map(|proved| proved.path);
        }
    }

    /// When [`Agent::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let forget = self.proved.iter().filter_map(|proved| proved.forget_at).min();
        let check = self.checker.as_ref().and_then(Checker::poll_timeout);
        forget.into_iter().chain(check).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some(checker) = &mut self.checker {
            checker.handle_timeout(now, &mut self.transmits);
        }
        while let Some(number) = self
            .proved
            .iter()
            .position(|proved| proved.forget_at.is_some_and(|forget_at| forget_at <= now))
        {
            let gone = self.proved.remove(number).path;
            self.events.push_back(AgentEvent::Forgot(gone));
            if self.selected == Some(gone) {
                // Nothing was nominated since the restart: as at the start, the first proved.
                self.selected = self.proved.first().map(|proved| proved.path);
            }
        }
    }
}

/// Whether a request came before over another path. Whoever can listen, but not forge, could have the
/// media sent to himself by it. Repetitions over the same path are the client's own.
fn is_played_back(
    heard: &mut VecDeque<(Transaction, Path)>,
    transaction: Transaction,
    path: Path,
) -> bool {
    if let Some((_, from)) = heard.iter().find(|(other, _)| *other == transaction) {
        return *from != path;
    }
    if heard.len() == MAX_HEARD {
        heard.pop_front();
    }
    heard.push_back((transaction, path));
    false
}

/// The address that an answer reports back.
const fn mapped(path: Path) -> SocketAddr {
    match path {
        Path::Udp { remote, .. } | Path::Tcp { remote, .. } | Path::Relay { remote, .. } => remote,
    }
}

#[cfg(test)]
mod tests;
