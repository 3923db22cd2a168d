//! Random sequences of everything that people, the node's owner and strangers can do. Whatever
//! happens: nothing panics, nobody sees a number twice, a clock going back or a gap that we made,
//! every offer is answered, and when all are gone nothing is left.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bedside_sfu::core::api::{
    Command, Grant, LeaveReason, Output, Path, Private, Quality, Request, SessionEvent, Source,
    TrackPermission, TrackSid,
};
use bedside_sfu::core::peer::Identity;
use bedside_sfu::core::rtcp::{self, ReportBlock, SenderInfo};
use bedside_sfu::core::sdp::Direction;
use rand_chacha::rand_core::Rng as _;

use crate::world::{ROOM, World, identity, server};

const NAMES: [&str; 5] = ["ann", "ben", "cleo", "dan", "eve"];

struct Run {
    world: World,
    ssrc: u32,
    /// Numbers of publishers jump, contents are garbage: order is no longer ours to keep.
    wild: bool,
    hidden: bool,
}

impl Run {
    fn new(seed: u8, identity: Arc<Identity>) -> Self {
        let limit = if seed.is_multiple_of(5) { 3 } else { 0 };
        let mut world = World::with(seed, identity, limit, None);
        if seed % 3 == 1 {
            (world.loss_up, world.loss_down) = (10, 20);
        }
        world.bad_answers = if seed % 2 == 1 { 40 } else { 0 };
        Self { world, ssrc: 1_000, wild: seed % 4 == 3, hidden: seed % 7 == 2 }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.world.rng.next_u32() as usize % limit.max(1)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.world.rng.next_u32() % 100 < percent
    }

    /// Someone who is in the room, as far as it knows.
    fn somebody(&mut self) -> Option<usize> {
        let people = self.world.people.iter().enumerate();
        let here: Vec<usize> =
            people.filter(|(_, person)| !person.ended).map(|(who, _)| who).collect();
        let at = self.below(here.len());
        here.get(at).copied()
    }

    fn grant(&mut self) -> Grant {
        let mut grant = Grant { hidden: self.hidden && self.chance(30), ..Grant::default() };
        if self.chance(20) {
            grant.publish = self.chance(50);
            grant.subscribe = self.chance(50);
            grant.publish_data = self.chance(50);
            if self.chance(30) {
                grant.sources = vec![Source::Microphone];
            }
        }
        grant
    }

    fn tracks(&self) -> Vec<TrackSid> {
        let rooms = self.world.core.snapshot();
        let people = rooms.iter().flat_map(|room| &room.participants);
        let tracks = people.flat_map(|(info, _)| &info.tracks);
        tracks.map(|track| track.sid.clone()).collect()
    }

    fn some_tracks(&mut self) -> Vec<TrackSid> {
        let mut tracks = self.tracks();
        tracks.push(TrackSid("TR_nobody".into()));
        let (at, len) = (self.below(tracks.len()), self.below(3) + 1);
        tracks.into_iter().skip(at).take(len).collect()
    }

    fn step(&mut self) {
        let Some(who) = self.somebody() else { return self.join() };
        match self.below(27) {
            0 | 1 => self.join(),
            2..=5 => self.publish(who),
            6 => self.unpublish(who),
            7 => self.mute(who),
            8 => {
                let (tracks, subscribe) = (self.some_tracks(), self.chance(60));
                self.world.request(who, Request::Subscribe { tracks, subscribe });
            }
            9 | 10 => self.settings(who),
            11 => self.permission(who),
            12 => self.leave(who),
            13 => self.resume(who),
            14 => {
                let mut rng = self.world.rng.clone();
                self.world.people[who].restart_ice(&mut rng);
                self.world.rng = rng;
                self.world.offer(who);
            }
            15 => {
                let (identity, grant) =
                    (Private(self.world.people[who].name.clone()), self.grant());
                self.world.command(Command::UpdateGrant { room: ROOM, identity, grant });
            }
            16 => self.owner(who),
            17 | 18 => self.garbage(who),
            19 | 20 => self.control(who),
            21 => self.source(who),
            22 => self.address(who),
            23 => self.bad_offer(who),
            24 => self.message(who),
            25 => self.answer(who),
            _ => self.time(),
        }
    }

    fn join(&mut self) {
        let name = NAMES[self.below(NAMES.len())];
        // The old one of that name learns of its end by an event; whoever was cut off does not.
        let (grant, adaptive) = (self.grant(), self.chance(30));
        let two = self.chance(30);
        let who = self.world.enter_by(name, grant, adaptive, two);
        if self.chance(85) && !self.world.people[who].ended {
            if self.chance(40) {
                self.world.people[who].receive_on(2, 2);
            }
            self.world.offer(who);
        }
    }

    fn publish(&mut self, who: usize) {
        if self.world.people[who].sections.len() > 60 {
            return;
        }
        self.ssrc += 100;
        let rids: &[&str] = [&[""][..], &[""], &["q", "h", "f"], &["q", "h"]][self.below(4)];
        let video = rids.len() > 1 || self.chance(50);
        let cid = format!("c{}", self.ssrc);
        let announced = self.world.people[who].publish(&cid, self.ssrc, rids, video);
        let order = self.below(8);
        if order != 0 {
            self.world.request(who, Request::AddTrack(Box::new(announced.clone())));
        }
        if order > 1 {
            self.world.offer(who);
        }
        if order == 0 && self.chance(50) {
            self.world.offer(who);
            self.world.request(who, Request::AddTrack(Box::new(announced)));
        }
    }

    fn unpublish(&mut self, who: usize) {
        let person = &mut self.world.people[who];
        let count = person.sources.len();
        let Some(source) =
            person.sources.get_mut(self.world.rng.next_u32() as usize % count.max(1))
        else {
            return;
        };
        source.ended = true;
        let section = person.sections.iter_mut().find(|section| section.mid == source.mid).unwrap();
        section.direction = Direction::Inactive;
        self.world.offer(who);
    }

    fn mute(&mut self, who: usize) {
        let muted = self.chance(50);
        let count = self.world.people[who].sources.len();
        let at = self.below(count);
        let Some(source) = self.world.people[who].sources.get_mut(at) else { return };
        source.muted = muted;
        let cid = source.cid.clone();
        let track = self.world.people[who].log.iter().rev().find_map(|event| match event {
            SessionEvent::TrackPublished { cid: other, track } if *other == cid => {
                Some(track.sid.clone())
            }
            _ => None,
        });
        if let Some(track) = track {
            self.world.request(who, Request::Mute { track, muted });
        }
    }

    fn settings(&mut self, who: usize) {
        let quality = [Quality::Low, Quality::Medium, Quality::High][self.below(3)];
        let (disabled, height) = (self.chance(30), [0, 0, 180, 720][self.below(4)]);
        let tracks = self.some_tracks();
        let request =
            Request::TrackSettings { tracks, disabled, quality, width: 0, height, fps: 0 };
        self.world.request(who, request);
    }

    fn permission(&mut self, who: usize) {
        let allowed = TrackPermission {
            sid: None,
            identity: Some(Private(NAMES[self.below(NAMES.len())].into())),
            all_tracks: self.chance(50),
            tracks: self.some_tracks(),
        };
        let all_participants = self.chance(60);
        let request = Request::SubscriptionPermission { all_participants, allowed: vec![allowed] };
        self.world.request(who, request);
    }

    fn leave(&mut self, who: usize) {
        if self.chance(50) {
            return self.world.request(who, Request::Leave);
        }
        let Some(session) = self.world.people[who].session else { return };
        self.world.command(Command::SessionGone { session });
    }

    fn resume(&mut self, who: usize) {
        // With the connection still open, after it was lost, or for someone long gone.
        let who = if self.chance(20) { self.below(self.world.people.len()) } else { who };
        let before = self.world.people[who].session;
        self.world.resume(who);
        if let Some(session) = before.filter(|_| self.chance(50)) {
            self.world.command(Command::SessionGone { session });
        }
        if self.world.people[who].ended {
            return;
        }
        let sync = Request::SyncState {
            published: vec![],
            subscription: self.chance(50).then(|| (self.some_tracks(), self.chance(50))),
            disabled: self.some_tracks(),
            received: self.world.people[who].sid.clone().map(|sid| (sid, 0)).into_iter().collect(),
        };
        self.world.request(who, sync);
        if self.chance(80) && !self.world.people[who].ended {
            self.world.offer(who);
        }
    }

    fn owner(&mut self, who: usize) {
        let identity = Private(self.world.people[who].name.clone());
        match self.below(12) {
            0 => {
                let reason = LeaveReason::RoomDeleted;
                self.world.command(Command::CloseRoom { room: ROOM, reason });
                self.world.open(0, None);
            }
            1..=3 => {
                let reason = LeaveReason::ParticipantRemoved;
                self.world.command(Command::Remove { room: ROOM, identity, reason });
            }
            _ => {
                let Some(track) = self.tracks().into_iter().next() else { return };
                self.world.command(Command::MuteTrack { room: ROOM, track, muted: true });
            }
        }
    }

    /// Datagrams that nobody of good will would send.
    fn garbage(&mut self, who: usize) {
        let mut bytes = vec![0; self.below(200) + 1];
        self.world.rng.fill_bytes(&mut bytes);
        bytes[0] = [0, 1, 22, 23, 64, 128, 144, 160, 191][self.below(9)];
        // Random bytes behind an honest address would be honest media in clear: only what cannot be
        // bound may come from there, or nothing can be said of order any more.
        let stranger = SocketAddr::from(([192, 0, 2, 1], 1_000));
        let from_person = self.wild || bytes[0] < 23;
        let remote = if from_person { self.world.people[who].address } else { stranger };
        if self.wild && self.chance(60) {
            let ms = 40;
            if let Some(packet) = self.world.people[who].tick(ms).into_iter().next() {
                bytes = packet;
                let at = self.below(bytes.len());
                bytes[at] ^= 1 << self.below(8);
            }
        }
        self.world.put(Path::Udp { local: server(), remote }, bytes);
        self.world.settle();
    }

    fn control(&mut self, who: usize) {
        let streams: Vec<u32> = self.world.people[who].streams.keys().copied().collect();
        let (at, random) = (self.below(streams.len()), self.world.rng.next_u32());
        let media = streams.get(at).copied().filter(|_| random % 8 != 0).unwrap_or(random);
        let own = self.world.people[who].sources.last().map(|source| source.layers[0].ssrc);
        let numbers: Vec<u16> =
            (0..300u32).map(|at| (random >> 3).wrapping_add(at * 3) as u16).collect();
        let ntp = u64::from(random) << 32 | u64::from(random.rotate_left(7));
        let info = SenderInfo { ntp, rtp_timestamp: random, packets: 1, octets: 1 };
        let [a, b, c, d] = random.to_be_bytes();
        let block = ReportBlock {
            ssrc: media,
            fraction_lost: a,
            lost: i32::from(b) - 100,
            highest: random,
            jitter: random,
            lsr: u32::from(c) << 24 | random >> 9,
            dlsr: u32::from(d) << 12,
        };
        let seen = self.world.people[who].streams.get(&media);
        let seen: Vec<u16> = seen
            .map(|it| it.seen.keys().rev().take(40).map(|at| *at as u16).collect())
            .unwrap_or_default();
        let kind = self.below(6);
        self.world.people[who].rtcp(|out| match kind {
            0 => rtcp::write_nack(out, 1, media, &numbers),
            1 => rtcp::write_nack(out, 1, media, &seen),
            2 => (0..40).for_each(|_| rtcp::write_pli(out, 1, media)),
            3 => rtcp::write_sender_report(out, own.unwrap_or(media), &info, &[block]),
            4 => rtcp::write_receiver_report(out, 1, &[block]),
            _ => rtcp::write_bye(out, &[media]),
        });
        self.world.settle();
    }

    /// A publisher's encoder does something rare.
    fn source(&mut self, who: usize) {
        let what = self.below(5);
        self.ssrc += 100;
        let ssrc = self.ssrc;
        let jump = [2u16, 100, 256, 300, 4_000, 32_000][self.below(6)];
        let lossy = self.world.loss_up > 0 || self.wild;
        let count = self.world.people[who].sources.len();
        let at = self.below(count);
        let Some(source) = self.world.people[who].sources.get_mut(at) else { return };
        let layers = source.layers.len();
        let layer = &mut source.layers[ssrc as usize / 100 % layers];
        match what {
            0 => source.pads = source.video && !source.pads,
            1 => layer.active = !layer.active,
            2 => (layer.ssrc, layer.key_wanted) = (ssrc, true),
            // Small gaps are loss, and loss is seen.
            _ if lossy || jump > 256 => layer.sequence = layer.sequence.wrapping_add(jump),
            _ => layer.key_wanted = true,
        }
    }

    fn address(&mut self, who: usize) {
        let now = self.world.now;
        let port = 20_000 + self.below(20_000) as u16;
        self.world.people[who].move_to(now, SocketAddr::from(([10, 1, 1, who as u8], port)));
        self.world.settle();
    }

    fn bad_offer(&mut self, who: usize) {
        let (id, mut sdp) = self.world.people[who].write_offer();
        match self.below(3) {
            0 => sdp.truncate(self.below(sdp.len())),
            1 => sdp = sdp.replace("a=mid:1", "a=mid:0"),
            _ => {
                let at = self.below(sdp.len());
                sdp.replace_range(at..at + 1, "\u{7f}");
            }
        }
        self.world.request(who, Request::Offer { id, sdp });
    }

    /// An answer that nobody waits for, or garbage in place of one.
    fn answer(&mut self, who: usize) {
        let id = self.below(12) as u32;
        let mut sdp = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n".to_owned();
        if self.chance(50) {
            let (offer, text) = self.world.people[who].write_offer();
            self.world.people[who].open_offers.remove(&offer);
            sdp = text;
        }
        self.world.request(who, Request::Answer { id, sdp });
    }

    fn message(&mut self, who: usize) {
        let mut bytes = vec![23, 0, 0, 0, 0];
        bytes[1] = self.below(3) as u8;
        bytes.extend_from_slice(&self.world.rng.next_u32().to_be_bytes());
        self.world.people[who].send(bytes);
        self.world.settle();
    }

    fn time(&mut self) {
        match self.below(12) {
            0 => self.world.sleep_ms(16_000),
            1 => self.world.sleep_ms(70_000),
            2 => self.world.sleep_ms(700),
            _ => {
                let ms = self.below(400) as u64;
                self.world.run_ms(ms);
            }
        }
    }

    fn check(&self) {
        let counters = self.world.core.counters();
        assert_eq!(counters.room_panics, 0, "a room panicked");
        let rooms = self.world.core.snapshot();
        let people: Vec<_> = rooms.iter().flat_map(|room| &room.participants).collect();
        assert_eq!(counters.rooms, rooms.len() as u64);
        assert_eq!(counters.participants, people.len() as u64);
        let identities: BTreeSet<_> =
            people.iter().map(|(info, _)| &info.profile.identity).collect();
        assert_eq!(identities.len(), people.len(), "one person twice");
        let sessions: BTreeSet<_> = people.iter().filter_map(|(_, session)| *session).collect();
        for person in self.world.people.iter().filter(|person| !person.ended) {
            let attached = person.session.is_some_and(|session| sessions.contains(&session));
            assert!(person.open_offers.is_empty() || !attached, "an offer without an answer");
        }
    }

    fn check_streams(&self) {
        if self.wild {
            return;
        }
        for person in &self.world.people {
            for stream in person.streams.values() {
                stream.check_order();
                if self.world.loss_up == 0 && self.world.loss_down == 0 {
                    assert_eq!(stream.missing(), 0, "{} sees a gap of our making", person.name);
                    stream.check_pictures();
                }
            }
        }
    }

    /// Everyone goes, then the room: nothing is left.
    fn end(mut self) -> u64 {
        self.world.run_ms(300);
        self.check();
        self.check_streams();
        let reason = LeaveReason::RoomClosed;
        self.world.command(Command::CloseRoom { room: ROOM, reason });
        let left = format!("{:?}", self.world.core);
        let empty = "Routes { paths: {}, ufrags: {}, sessions: {}, relayed: {} }";
        assert!(left.contains(empty), "routes are left");
        assert!(matches!(self.world.core.poll_output(), Output::Timeout(None)), "a timer is left");
        let counters = *self.world.core.counters();
        assert_eq!((counters.rooms, counters.participants), (0, 0));
        assert_eq!((counters.tracks, counters.subscriptions), (0, 0));
        assert_eq!(counters.room_panics, 0);
        counters.rtp_packets_out
    }
}

fn run(seeds: std::ops::Range<u8>) {
    let identity = identity();
    let mut forwarded = 0;
    for seed in seeds {
        let mut run = Run::new(seed, Arc::clone(&identity));
        for step in 0..60 {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                run.step();
                run.check();
            }));
            assert!(done.is_ok(), "seed {seed}, step {step}");
            if run.chance(50) {
                run.world.run_ms(60);
            }
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.end()));
        forwarded += done.unwrap_or_else(|_| panic!("seed {seed}, at the end"));
    }
    assert!(forwarded > 3_000, "media flows in these worlds: {forwarded} packets");
}

#[test]
fn sequences_first() {
    run(0..64);
}

#[test]
fn sequences_second() {
    run(64..128);
}

#[test]
fn sequences_third() {
    run(128..192);
}

#[test]
fn sequences_last() {
    run(192..255);
}

#[test]
fn a_timer_is_never_forgotten() {
    let mut world = World::with(9, identity(), 0, Some(Duration::from_secs(5)));
    world.join("ann");
    world.people[0].peer = None;
    world.sleep_ms(70_000);
    world.sleep_ms(70_000);
    world.sleep_ms(10_000);
    assert!(world.core.snapshot().is_empty(), "who is silent is gone, and the empty room too");
}
