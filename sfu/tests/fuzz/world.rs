//! The engine, its people, and a network without delay between them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedside_sfu::core::Rng;
use bedside_sfu::core::api::{
    ClientTraits, Command, DataChannelKind, DataSender, Event, Grant, Input, Join, Output, Path,
    Private, Profile, Relayed, Request, Resume, RoomKey, RoomSpec, SessionKey,
};
use bedside_sfu::core::engine::{Core, CoreConfig, Limits, WallClock};
use bedside_sfu::core::peer::{Crypto, Identity};
use bytes::Bytes;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::person::Person;
use crate::receiver::Receiver;

pub const ROOM: RoomKey = RoomKey(1);

pub struct World {
    pub core: Core,
    pub now: Instant,
    pub people: Vec<Person>,
    pub rng: Rng,
    pub deadline: Option<Instant>,
    /// Of what people send, in 1/256.
    pub loss_up: u8,
    pub loss_down: u8,
    /// How many answers of 256 are not what they should be.
    pub bad_answers: u8,
    start: Instant,
    next_tick: Instant,
    identity: Arc<Identity>,
    sessions: u64,
}

fn relay(sender: &DataSender<'_>, _kind: DataChannelKind, message: &[u8]) -> Option<Relayed> {
    let (sequence, body) = message.split_first_chunk()?;
    let payload = [sender.sid.as_bytes(), body].concat();
    Some(Relayed {
        payload: Bytes::from(payload),
        to_identities: vec![],
        to_sids: vec![],
        sequence: u32::from_be_bytes(*sequence),
    })
}

pub fn identity() -> Arc<Identity> {
    Arc::new(Identity::generate().unwrap())
}

impl World {
    pub fn new(seed: u8) -> Self {
        Self::with(seed, identity(), 0, None)
    }

    pub fn with(
        seed: u8,
        identity: Arc<Identity>,
        max_participants: u32,
        empty_timeout: Option<Duration>,
    ) -> Self {
        let now = Instant::now();
        let config = CoreConfig {
            shard: 0,
            candidates: vec![server()],
            tcp_candidates: Vec::new(),
            identity: Arc::clone(&identity),
            relay,
            wall: WallClock { at: now, unix_micros: 1_800_000_000_000_000 },
            limits: Limits::default(),
            crypto: Crypto::Clear,
        };
        let mut world = Self {
            core: Core::new(now, config, [seed; 32]),
            now,
            people: Vec::new(),
            rng: Rng::from_seed([seed ^ 0xA5; 32]),
            deadline: None,
            loss_up: 0,
            loss_down: 0,
            bad_answers: 0,
            start: now,
            next_tick: now,
            identity,
            sessions: 0,
        };
        world.open(max_participants, empty_timeout);
        world
    }

    pub fn open(&mut self, max_participants: u32, empty_timeout: Option<Duration>) {
        self.command(Command::OpenRoom(Box::new(RoomSpec {
            room: ROOM,
            name: Private("room".into()),
            metadata: Private(String::new()),
            max_participants,
            empty_timeout,
            departure_timeout: empty_timeout,
            playout_delay: None,
        })));
    }

    pub fn command(&mut self, command: Command) {
        self.core.handle_input(self.now, Input::Command(command));
        self.settle();
    }

    pub fn request(&mut self, who: usize, request: Request) {
        let person = &self.people[who];
        let Some(session) = person.session.filter(|_| !person.ended) else { return };
        self.command(Command::Request { session, request });
    }

    pub fn session(&mut self) -> SessionKey {
        self.sessions += 1;
        SessionKey(self.sessions)
    }

    /// A person joins and offers.
    pub fn join(&mut self, name: &str) -> usize {
        let who = self.enter(name, Grant::default(), false);
        self.offer(who);
        who
    }

    /// A person joins and does not offer yet.
    pub fn enter(&mut self, name: &str, grant: Grant, adaptive: bool) -> usize {
        self.enter_by(name, grant, adaptive, false)
    }

    /// … with one connection, or two.
    pub fn enter_by(&mut self, name: &str, grant: Grant, adaptive: bool, two: bool) -> usize {
        let session = self.session();
        let who = self.people.len();
        let address = SocketAddr::from(([10, 0, (who >> 8) as u8, who as u8], 40_000));
        let mut person = Person::new(name, address, Arc::clone(&self.identity), &mut self.rng);
        person.session = Some(session);
        person.receiver =
            two.then(|| Receiver::new(who, Crypto::Clear, Arc::clone(&self.identity)));
        self.people.push(person);
        self.command(Command::Join(Box::new(Join {
            room: ROOM,
            session,
            profile: Profile { identity: Private(name.into()), ..Profile::default() },
            grant,
            auto_subscribe: true,
            adaptive_stream: adaptive,
            allow_pause: true,
            client: ClientTraits { two_connections: two, ..ClientTraits::default() },
        })));
        who
    }

    pub fn resume(&mut self, who: usize) {
        let session = self.session();
        let person = &mut self.people[who];
        let Some(participant) = person.sid.clone() else { return };
        person.session = Some(session);
        person.ended = false;
        person.open_offers.clear();
        let identity = Private(person.name.clone());
        self.command(Command::Resume(Box::new(Resume {
            room: ROOM,
            session,
            participant,
            identity,
        })));
    }

    pub fn offer(&mut self, who: usize) {
        let (id, sdp) = self.people[who].write_offer();
        self.request(who, Request::Offer { id, sdp });
    }

    /// Announces, offers and sends.
    pub fn publish(&mut self, who: usize, cid: &str, ssrc: u32, rids: &[&str], video: bool) {
        let announced = self.people[who].publish(cid, ssrc, rids, video);
        self.request(who, Request::AddTrack(Box::new(announced)));
        self.offer(who);
    }

    /// Lets everything that is under way arrive.
    pub fn settle(&mut self) {
        let mut offers = VecDeque::new();
        loop {
            let mut quiet = true;
            loop {
                match self.core.poll_output() {
                    Output::Timeout(at) => {
                        self.deadline = at;
                        break;
                    }
                    Output::Event(event) => offers.extend(self.event(event)),
                    Output::Transmit(transmit) => {
                        quiet = false;
                        let Path::Udp { remote, .. } = transmit.path else { continue };
                        let segments = transmit.contents.chunks(transmit.segment_size);
                        let segments: Vec<Vec<u8>> = segments.map(<[u8]>::to_vec).collect();
                        self.arrive(remote, segments);
                    }
                }
            }
            for who in 0..self.people.len() {
                self.people[who].work(self.now);
                for (path, bytes) in self.people[who].take_out() {
                    quiet = false;
                    let Path::Udp { local, remote } = path else { continue };
                    if !self.lost(self.loss_up, &bytes) {
                        self.put(Path::Udp { local: remote, remote: local }, bytes);
                    }
                }
            }
            if let Some(who) = offers.pop_front() {
                quiet = false;
                let (id, sdp) = self.people[who].write_offer();
                let (session, ended) = (self.people[who].session, self.people[who].ended);
                if let Some(session) = session.filter(|_| !ended) {
                    let request = Request::Offer { id, sdp };
                    let command = Command::Request { session, request };
                    self.core.handle_input(self.now, Input::Command(command));
                }
            }
            for who in 0..self.people.len() {
                if let Some((id, sdp)) = self.people[who].to_answer.take() {
                    quiet = false;
                    self.answer(who, id, sdp);
                }
            }
            if quiet {
                return;
            }
        }
    }

    /// Somebody answers, well or not.
    fn answer(&mut self, who: usize, id: u32, mut sdp: String) {
        let random = self.rng.next_u32();
        let (mut times, mut ids) = (1, vec![id]);
        if (random as u8) < self.bad_answers {
            match random >> 8 & 7 {
                0 => times = 0,
                1 => times = 2,
                2 => ids = vec![id.wrapping_sub(1), id.wrapping_add(1), id],
                3 => ids = vec![0],
                4 => sdp.truncate(random as usize % sdp.len()),
                5 => sdp = sdp.replace("a=mid:1", "a=mid:0"),
                6 => sdp = sdp.replace("m=video 9", "m=video 0"),
                _ => sdp = sdp.replace("a=recvonly", "a=inactive"),
            }
        }
        let (session, ended) = (self.people[who].session, self.people[who].ended);
        let Some(session) = session.filter(|_| !ended) else { return };
        for _ in 0..times {
            for id in &ids {
                let request = Request::Answer { id: *id, sdp: sdp.clone() };
                let command = Command::Request { session, request };
                self.core.handle_input(self.now, Input::Command(command));
            }
        }
    }

    fn lost(&mut self, rate: u8, bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|first| *first >= 128) && (self.rng.next_u32() as u8) < rate
    }

    fn arrive(&mut self, remote: SocketAddr, segments: Vec<Vec<u8>>) {
        for mut bytes in segments {
            if self.lost(self.loss_down, &bytes) {
                continue;
            }
            // An address may have been given to somebody else: the newest has it.
            let to = self.people.iter_mut().rfind(|person| person.is_at(remote));
            if let Some(person) = to {
                person.datagram(self.now, remote, &mut bytes);
            }
        }
    }

    /// A datagram reaches the server.
    pub fn put(&mut self, path: Path, mut bytes: Vec<u8>) {
        let data = &mut bytes[..];
        self.core.handle_input(self.now, Input::Datagram { path, received: self.now, data });
    }

    fn event(&mut self, event: Event) -> Option<usize> {
        let Event::Session { session, event } = event else { return None };
        let who = self.people.iter().position(|person| person.session == Some(session))?;
        self.people[who].told(self.now, event).then_some(who)
    }

    /// Runs until this much later; sources make their packets each 20 ms.
    pub fn run_ms(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            self.settle();
            if self.deadline.is_some_and(|at| at <= self.now) {
                self.core.handle_input(self.now, Input::Timeout);
                continue;
            }
            if self.next_tick <= self.now {
                let ms = (self.next_tick - self.start).as_millis() as u64;
                self.next_tick += Duration::from_millis(20);
                for who in 0..self.people.len() {
                    for packet in self.people[who].tick(ms) {
                        self.people[who].send(packet);
                    }
                }
                continue;
            }
            let peers = self.people.iter().filter_map(Person::due);
            let next = peers.chain(self.deadline).chain([self.next_tick]).min();
            match next {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
    }

    /// Time passes in which nobody sends media and clients' timers do not run.
    pub fn sleep_ms(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        let elapsed = (self.now - self.start).as_millis() as u64;
        self.next_tick = self.start + Duration::from_millis((elapsed / 20 + 1) * 20);
        for _ in 0..100 {
            self.settle();
            match self.deadline {
                Some(at) if at <= self.now => self.core.handle_input(self.now, Input::Timeout),
                _ => return,
            }
        }
        panic!("the engine's timeouts do not advance");
    }
}

pub fn server() -> SocketAddr {
    "127.0.0.1:7882".parse().unwrap()
}
