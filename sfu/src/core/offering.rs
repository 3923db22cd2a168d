//! Offers of our own: to clients that receive on a connection of its own, where the server offers.
//!
//! The first section carries data channels, the others one track each. A section whose track has gone
//! is offered idle once before it takes another: inactive, or open where inactive ones are not taken
//! up again. There is one offer at a time, and no peer before its
//! answer: only that says whose certificate to expect.

use std::sync::Arc;
use std::time::Duration;

use rand_chacha::rand_core::Rng as _;

use super::api::{LeaveReason, MediaKind, SessionEvent, TrackSid};
use super::context::Context;
use super::ice::Credentials;
use super::link::{Link, Way};
use super::negotiation::{MOST_SECTIONS, bind};
use super::participant::Participant;
use super::peer::{ChannelRole, DtlsRole, IceRole, Peer, PeerConfig};
use super::room::Room;
use super::sdp::{
    self, Description, Direction, Extension, Local, OfferSection, PayloadType, SectionKind, Setup,
};
use super::subscription::Subscription;
use super::track::Track;

/// Whoever has not answered within this has lost the thread, and joins again.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// The name of the section with the data channels.
const DATA: &str = "0";
/// The payload type of redundant sound.
const RED: u8 = 63;
/// Header extensions of what we send. One id means one thing in all sections.
const EXTENSIONS: [(u8, Extension); 3] = [
    (3, Extension::TransportCc),
    (5, Extension::PlayoutDelay),
    (12, Extension::DependencyDescriptor),
];

/// A codec as we offer it: payload type, and the one that repairs it (0 = none).
#[derive(Debug)]
struct Offered {
    name: &'static str,
    kind: MediaKind,
    types: (u8, u8),
    rate: &'static str,
    fmtp: &'static str,
}

/// All that we offer; the first of a kind stands in sections that carry nothing.
const CODECS: [Offered; 8] = [
    codec("opus", (111, 0), "48000/2", "minptime=10;useinbandfec=1"),
    codec("VP8", (96, 97), "90000", ""),
    codec("VP9", (98, 99), "90000", "profile-id=0"),
    codec(
        "H264",
        (102, 103),
        "90000",
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
    ),
    codec("AV1", (45, 46), "90000", ""),
    codec("H265", (49, 50), "90000", ""),
    codec("PCMU", (0, 0), "8000", ""),
    codec("PCMA", (8, 0), "8000", ""),
];

/// Only video is repaired by a stream of its own.
const fn codec(
    name: &'static str,
    types: (u8, u8),
    rate: &'static str,
    fmtp: &'static str,
) -> Offered {
    let kind = if types.1 == 0 { MediaKind::Audio } else { MediaKind::Video };
    Offered { name, kind, types, rate, fmtp }
}

/// What we have offered to a participant.
#[derive(Debug, Default)]
pub(super) struct Offering {
    /// The sections behind the one for data, in order.
    slots: Vec<Slot>,
    /// Of the peer to be.
    credentials: Option<Credentials>,
    /// The last offer's name.
    id: u32,
    session: u64,
}

/// One section for media. Subscriptions are named by their order, which is never used twice.
#[derive(Debug)]
struct Slot {
    kind: MediaKind,
    /// The codec it carried last.
    codec: &'static Offered,
    /// The subscription it is for.
    holds: Option<u64>,
    /// The one it was for in the last offer.
    told: Option<u64>,
    /// The client has rejected it: it stays rejected.
    dead: bool,
}

impl Offering {
    /// A section for a subscription: one that was idle in the last offer too, or a new one.
    fn place(&mut self, sub: &Subscription, codec: &'static Offered) {
        let free = |slot: &&mut Slot| {
            slot.kind == sub.kind && !slot.dead && slot.holds.is_none() && slot.told.is_none()
        };
        if let Some(slot) = self.slots.iter_mut().find(free) {
            (slot.holds, slot.codec) = (Some(sub.order), codec);
        } else if self.slots.len() + 1 < MOST_SECTIONS {
            let (kind, holds) = (sub.kind, Some(sub.order));
            self.slots.push(Slot { kind, codec, holds, told: None, dead: false });
        }
    }

    /// Whether the last offer is not all that there is to say.
    fn is_behind(&self) -> bool {
        self.slots.iter().any(|slot| slot.holds != slot.told)
    }
}

/// The name of a section for media.
fn mid(slot: usize) -> String {
    (slot + 1).to_string()
}

/// A codec of a track, as we offer it.
fn offered(track: &Track) -> Option<&'static Offered> {
    let named = |codec: &&Offered| codec.name.eq_ignore_ascii_case(&track.codec_name);
    CODECS.iter().find(named).filter(|codec| codec.kind == track.kind())
}

impl Room {
    /// The first offer to somebody who came in, with what there is already.
    pub(super) fn offer_first(&mut self, ctx: &mut Context<'_>, key: usize) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        if participant.links.split {
            participant.negotiation.offering.session = u64::from(ctx.rng.next_u32());
            self.offer_ours(ctx, key);
        }
    }

    /// The first offer to a new session of somebody: it may be behind another network now.
    pub(super) fn offer_again(&mut self, ctx: &mut Context<'_>, key: usize) {
        let route = self.route(key, Way::Down);
        let Some(participant) = self.participants.get_mut(key) else { return };
        if !participant.links.split {
            return;
        }
        if let Some(link) = &mut participant.links.down {
            let local = Credentials::of_shard(ctx.rng, ctx.config.shard);
            ctx.routes.ufrags.insert(local.ufrag.clone(), route);
            link.peer.restart_ice(local);
            self.peer_events(ctx, key, Way::Down);
        }
        self.offer_ours(ctx, key);
    }

    /// Offers all that a participant receives.
    pub(super) fn offer_ours(&mut self, ctx: &mut Context<'_>, key: usize) {
        self.place_all(ctx, key);
        let Some(participant) = self.participants.get_mut(key) else { return };
        // Whoever is away is offered to when it comes back.
        if participant.session.is_none() || participant.negotiation.is_waiting() {
            return;
        }
        let offering = &mut participant.negotiation.offering;
        offering.id += 1;
        offering.slots.iter_mut().for_each(|slot| slot.told = slot.holds);
        participant.negotiation.wait(ctx.now, ANSWER_LIMIT);
        let (id, session) = (participant.negotiation.offering.id, participant.session);
        let Some(participant) = self.participants.get(key) else { return };
        let offering = &participant.negotiation.offering;
        let mut sections = vec![empty_section(SectionKind::Application, DATA)];
        let mut mid_to_track: Vec<(String, TrackSid)> = Vec::new();
        for (at, slot) in offering.slots.iter().enumerate() {
            let held = participant.subscriptions.iter().map(|(_, sub)| sub);
            let held = held.into_iter().find(|sub| Some(sub.order) == slot.holds);
            let carried = held.and_then(|sub| Some((sub, self.tracks.get(sub.track)?)));
            if let Some((sub, _)) = carried {
                mid_to_track.push((mid(at), sub.sid.clone()));
            }
            sections.push(self.section(participant, at, slot, carried));
        }
        let fresh;
        let credentials = match (&participant.links.down, &offering.credentials) {
            (Some(link), _) => link.peer.credentials(),
            (None, Some(credentials)) => credentials,
            (None, None) => {
                fresh = Credentials::of_shard(ctx.rng, ctx.config.shard);
                &fresh
            }
        };
        let local = Local {
            credentials,
            fingerprint: ctx.config.identity.fingerprint(),
            setup: DtlsRole::Passive,
            candidates: &ctx.config.candidates,
            tcp_candidates: &ctx.config.tcp_candidates,
            session: offering.session,
            version: id,
        };
        let sdp = sdp::write_lite_offer(&local, &sections);
        let credentials = credentials.clone();
        // Whose tracks the offer carries must be known before.
        self.tell_news_to(ctx, key);
        if let Some(participant) = self.participants.get_mut(key) {
            participant.negotiation.offering.credentials = Some(credentials);
        }
        ctx.tell(session, SessionEvent::Offer { id, sdp, mid_to_track });
        self.wake(ctx.now + ANSWER_LIMIT);
    }

    /// Finds a section for each subscription.
    fn place_all(&mut self, ctx: &mut Context<'_>, key: usize) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        let Participant { negotiation, subscriptions, .. } = participant;
        let offering = &mut negotiation.offering;
        let alive: Vec<u64> = subscriptions.iter().map(|(_, sub)| sub.order).collect();
        for slot in &mut offering.slots {
            slot.holds = slot.holds.filter(|order| alive.contains(order));
        }
        let mut waiting: Vec<&mut Subscription> = subscriptions
            .iter_mut()
            .map(|(_, sub)| sub)
            .filter(|sub| !sub.unreadable)
            .filter(|sub| offering.slots.iter().all(|slot| slot.holds != Some(sub.order)))
            .collect();
        waiting.sort_by_key(|sub| sub.order);
        let mut unreadable = Vec::new();
        for sub in waiting {
            let Some(track) = self.tracks.get(sub.track) else { continue };
            match offered(track) {
                Some(codec) => offering.place(sub, codec),
                None => unreadable.push(sub.order),
            }
        }
        self.give_up_orders(ctx, key, &unreadable);
    }

    /// What these subscriptions are of cannot be read in its codec.
    fn give_up_orders(&mut self, ctx: &mut Context<'_>, key: usize, orders: &[u64]) {
        let Some(participant) = self.participants.get(key) else { return };
        let subs = participant.subscriptions.iter();
        let found = subs.filter(|(_, sub)| orders.contains(&sub.order)).map(|(at, _)| at);
        for at in found.collect::<Vec<_>>() {
            self.unreadable(ctx, key, at);
        }
    }

    /// A subscription is of another track now: the section that was for it is offered with the codec
    /// of that, whatever is still on the way about it.
    pub(super) fn offer_instead(&mut self, key: usize, order: u64, track: usize) {
        let codec = self.tracks.get(track).and_then(offered);
        let Some((participant, codec)) = self.participants.get_mut(key).zip(codec) else { return };
        let mut slots = participant.negotiation.offering.slots.iter_mut();
        let held = |slot: &&mut Slot| slot.holds == Some(order) || slot.told == Some(order);
        if let Some(slot) = slots.find(held).filter(|slot| !slot.dead) {
            (slot.holds, slot.told, slot.codec) = (Some(order), None, codec);
        }
    }

    fn section(
        &self,
        participant: &Participant,
        at: usize,
        slot: &Slot,
        carried: Option<(&Subscription, &Track)>,
    ) -> OfferSection {
        let kind = match slot.kind {
            MediaKind::Audio => SectionKind::Audio,
            MediaKind::Video => SectionKind::Video,
        };
        let section = empty_section(kind, &mid(at));
        if slot.dead {
            return section;
        }
        let red = participant.client.reads_red
            && carried.is_none_or(|(_, track)| track.may_repeat)
            && slot.codec.name == "opus";
        let open = participant.client.idle_stays_open;
        let stereo = carried.is_some_and(|(_, track)| track.info.announced.stereo);
        let section = OfferSection {
            codecs: payload_types(slot.codec, red, stereo),
            extensions: EXTENSIONS.to_vec(),
            direction: if open { Direction::SendOnly } else { Direction::Inactive },
            ..section
        };
        let Some((sub, track)) = carried else { return section };
        let publisher = self.participants.get(track.owner).map_or("", |owner| &owner.sid.0);
        OfferSection {
            direction: Direction::SendOnly,
            msid: Some((format!("{publisher}|{}", sub.sid.0), sub.sid.0.to_string())),
            ssrc: Some(sub.ssrc),
            rtx_ssrc: (slot.codec.types.1 != 0).then_some(sub.repair_ssrc),
            ..section
        }
    }

    /// The answer to our offer.
    pub(super) fn answer_came(&mut self, ctx: &mut Context<'_>, key: usize, id: u32, text: &str) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        let negotiation = &mut participant.negotiation;
        // Answers to an earlier session's offers may still come. Old clients do not name the offer.
        let expected = participant.links.split
            && negotiation.is_waiting()
            && (id == negotiation.offering.id || id == 0);
        if !expected {
            return;
        }
        negotiation.forget_question();
        let Ok(answer) = sdp::parse(text) else {
            ctx.counters.bad_offers += 1;
            return self.remove(ctx, key, LeaveReason::StateMismatch);
        };
        if let Err(reason) = self.meet(ctx, key, &answer) {
            ctx.counters.bad_offers += 1;
            return self.remove(ctx, key, reason);
        }
        self.bind_all(ctx, key, &answer);
        self.learn_receiver(ctx.now, key);
        self.start_forwarding(ctx, key);
        self.place_all(ctx, key);
        let behind = self.participants.get(key).map(|other| other.negotiation.offering.is_behind());
        if behind == Some(true) {
            self.needs_offer(ctx.now, key);
        }
    }

    /// Makes the peer at the first answer.
    fn meet(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        answer: &Description,
    ) -> Result<(), LeaveReason> {
        let route = self.route(key, Way::Down);
        let participant = self.participants.get_mut(key).ok_or(LeaveReason::StateMismatch)?;
        let credentials = &participant.negotiation.offering.credentials;
        let Some(local) = credentials.clone().filter(|_| participant.links.down.is_none()) else {
            return Ok(());
        };
        let active = answer.setup == Setup::Passive;
        let ufrag = local.ufrag.clone();
        let config = PeerConfig {
            identity: Arc::clone(&ctx.config.identity),
            role: if active { DtlsRole::Active } else { DtlsRole::Passive },
            remote_fingerprint: answer.fingerprint.clone(),
            ice: IceRole::Lite { local },
            allow_cm: participant.client.allow_cm,
            crypto: ctx.config.crypto,
            channels: ChannelRole::Offer,
        };
        let peer = Peer::new(ctx.now, config).map_err(|_| LeaveReason::MediaFailure)?;
        let link = Link::new(ctx.now, peer, route, ctx.ssrc(), active);
        ctx.routes.ufrags.insert(ufrag, route);
        participant.links.put(Way::Down, link);
        Ok(())
    }

    /// What the answer makes of each section.
    fn bind_all(&mut self, ctx: &mut Context<'_>, key: usize, answer: &Description) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        let Participant { negotiation, subscriptions, client, .. } = participant;
        let mut unreadable = Vec::new();
        for (at, slot) in negotiation.offering.slots.iter_mut().enumerate() {
            let name = mid(at);
            let section = answer.sections.iter().find(|section| section.mid == name);
            slot.dead |= section.is_some_and(|section| section.rejected);
            let Some(order) = slot.told else { continue };
            let held = subscriptions.iter_mut().find(|(_, sub)| sub.order == order);
            let Some((_, sub)) = held else { continue };
            let section = section.filter(|section| section.receives());
            let track = self.tracks.get(sub.track);
            sub.binding = track
                .zip(section)
                .and_then(|(track, section)| bind(track, section, client.reads_red));
            if sub.binding.is_none() {
                sub.pause();
            }
            // A section that is there without the codec will not get it by being offered again.
            if sub.binding.is_none() && (slot.dead || section.is_some()) && !sub.unreadable {
                slot.holds = None;
                unreadable.push(order);
            }
        }
        self.give_up_orders(ctx, key, &unreadable);
    }

    /// An offer was not answered in time.
    pub(super) fn unanswered(&mut self, ctx: &mut Context<'_>, key: usize) {
        if self.participants.get(key).is_some_and(|other| other.session.is_some()) {
            self.remove(ctx, key, LeaveReason::StateMismatch);
        }
    }
}

fn empty_section(kind: SectionKind, mid: &str) -> OfferSection {
    OfferSection {
        kind,
        mid: mid.to_owned(),
        direction: Direction::Inactive,
        codecs: Vec::new(),
        extensions: Vec::new(),
        rids: Vec::new(),
        msid: None,
        ssrc: None,
        rtx_ssrc: None,
    }
}

/// A codec, what repairs it, and what repeats it.
fn payload_types(codec: &Offered, red: bool, stereo: bool) -> Vec<PayloadType> {
    let (pt, repair) = codec.types;
    let feedback: &[&str] = match codec.kind {
        MediaKind::Audio => &["transport-cc", "nack"],
        MediaKind::Video => &["transport-cc", "ccm fir", "nack", "nack pli"],
    };
    let plain = |pt: u8, name: &str, fmtp: String| PayloadType {
        pt,
        name: name.to_owned(),
        rate: codec.rate.to_owned(),
        fmtp,
        feedback: Vec::new(),
    };
    let stereo = if stereo { ";sprop-stereo=1" } else { "" };
    let media = PayloadType {
        feedback: feedback.iter().map(|kind| (*kind).to_owned()).collect(),
        ..plain(pt, codec.name, format!("{}{stereo}", codec.fmtp))
    };
    let red = red.then(|| plain(RED, "red", format!("{pt}/{pt}")));
    let repair = (repair != 0).then(|| plain(repair, "rtx", format!("apt={pt}")));
    red.into_iter().chain([media]).chain(repair).collect()
}
