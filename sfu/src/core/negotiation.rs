//! Offers and answers: which section carries which track, in both directions.
//!
//! Clients offer and we answer at once with everything we have. When a client lacks sections for what
//! it is to receive, it is asked to add some and offer again: one question at a time. Clients that
//! receive on a connection of its own are offered that one by us (`offering`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_chacha::rand_core::Rng as _;

use super::api::{AddTrack, LeaveReason, MediaKind, SessionEvent, TrackSid};
use super::context::Context;
use super::ice::Credentials;
use super::link::Link;
use super::offering::Offering;
use super::participant::Participant;
use super::peer::{ChannelRole, DtlsRole, IceRole, Peer, PeerConfig};
use super::room::Room;
use super::sdp::{
    self, Description, Direction, Extension, Fill, Local, OpusWish, Section, SectionKind, Setup,
};
use super::streams::Bound;
use super::subscription::Binding;
use super::track::{Track, choose_codec};

/// Changes that come together are asked about together.
const ASK_SOON: Duration = Duration::from_millis(10);
/// The least distance of two questions.
const ASK_DISTANCE: Duration = Duration::from_millis(150);
/// An announcement not followed by an offer within this is forgotten.
const PENDING_LIMIT: Duration = Duration::from_secs(30);
/// Sections of a client's offers at the most: browsers write up to 6 kB each, and no offer may be longer
/// than [`sdp::MAX_LEN`].
pub(super) const MOST_SECTIONS: usize = 80;
/// A question not followed by an offer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// One participant's negotiation.
#[derive(Debug, Default)]
pub(super) struct Negotiation {
    /// Its last offer.
    pub(super) offer: Option<Arc<Description>>,
    /// Announced tracks that no section carries yet, oldest first.
    pub(super) pending: VecDeque<Pending>,
    /// Sections whose track has ended; they are answered with port 0.
    ended: BTreeSet<String>,
    /// Sections whose track was taken back, with the client's id of it. It may go on sending there.
    taken_back: BTreeMap<String, Option<String>>,
    session: u64,
    version: u32,
    /// What we have offered, to clients that are offered to.
    pub(super) offering: Offering,
    /// A question is planned.
    ask_at: Option<Instant>,
    /// A question waits for its offer until then.
    asked_until: Option<Instant>,
    last_asked: Option<Instant>,
}

/// An announced track that no section carries yet.
#[derive(Debug)]
pub(super) struct Pending {
    /// Its id.
    pub(super) sid: TrackSid,
    /// What was announced.
    pub(super) announced: AddTrack,
    /// When.
    pub(super) since: Instant,
}

impl Negotiation {
    /// Forgets announcements that no offer has followed: a later track must not be taken for one of
    /// them.
    pub(super) fn forget_old(&mut self, now: Instant) {
        self.pending.retain(|other| now.saturating_duration_since(other.since) < PENDING_LIMIT);
    }

    /// A track in this section was taken from the client.
    pub(super) fn take_back(&mut self, mid: &str) {
        let offer = self.offer.clone();
        let section = offer.iter().flat_map(|offer| &offer.sections).find(|one| one.mid == mid);
        if let Some(section) = section {
            self.taken_back.insert(mid.to_owned(), cid(section).map(str::to_owned));
        }
    }

    /// What is sent there was taken back, and was not announced again.
    fn is_taken_back(&self, section: &Section) -> bool {
        let sent = cid(section);
        self.taken_back.get(&section.mid).is_some_and(|taken| taken.as_deref() == sent)
            && !self.pending.iter().any(|other| Some(&*other.announced.cid) == sent)
    }

    /// A new session has heard no question.
    pub(super) fn forget_question(&mut self) {
        self.asked_until = None;
    }

    /// A question, or an offer of ours, has left and waits for so long.
    pub(super) fn wait(&mut self, now: Instant, limit: Duration) {
        self.ask_at = None;
        self.last_asked = Some(now);
        self.asked_until = Some(now + limit);
    }

    /// Whether a question or an offer of ours has not been answered yet.
    pub(super) const fn is_waiting(&self) -> bool {
        self.asked_until.is_some()
    }

    /// When [`Room::ask_for_sections`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.asked_until.or(self.ask_at)
    }
}

/// What an offer changed, to be told before and after its answer.
#[derive(Default)]
struct Changes {
    published: Vec<usize>,
    ended: Vec<usize>,
}

impl Room {
    /// Answers an offer. One that cannot be answered ends the participant: its client joins anew.
    pub(super) fn offer(&mut self, ctx: &mut Context<'_>, key: usize, id: u32, text: &str) {
        let Ok(offer) = sdp::parse(text) else {
            ctx.counters.bad_offers += 1;
            return self.remove(ctx, key, LeaveReason::StateMismatch);
        };
        if let Err(reason) = self.prepare_link(ctx, key, &offer) {
            ctx.counters.bad_offers += 1;
            return self.remove(ctx, key, reason);
        }
        let offer = Arc::new(offer);
        let Some(participant) = self.participants.get_mut(key) else { return };
        participant.streams.learn(ctx.now, &offer);
        participant.negotiation.offer = Some(Arc::clone(&offer));
        if !participant.links.split {
            participant.negotiation.asked_until = None;
            participant.negotiation.ask_at = None;
        }
        participant.negotiation.forget_old(ctx.now);
        let offered = |mid: &String| offer.sections.iter().any(|section| section.mid == *mid);
        participant.negotiation.ended.retain(offered);
        let split = participant.links.split;
        if !split {
            self.release_sections(key, &offer);
            self.open_outlets(ctx, key, &offer);
        }
        let mut changes = Changes::default();
        let sections = offer.sections.iter();
        let fills: Vec<Fill> =
            sections.map(|section| self.fill(key, section, &mut changes)).collect();
        // A recycled line may have taken a track's section away without ever showing it inactive.
        let alive = |mid: &str| offer.sections.iter().any(|section| section.mid == mid);
        let lost =
            self.tracks.iter().filter(|(_, track)| track.owner == key && !alive(&track.info.mid));
        changes.ended.extend(lost.map(|(track, _)| track));
        for track in &changes.ended {
            // Who got a backup gets the first codec again, if it can be read.
            let main = self.tracks.get(*track).and_then(|track| track.primary);
            changes.published.extend(main);
            self.end_track(*track);
        }
        if !changes.ended.is_empty() {
            self.follow_all(ctx);
        }
        if !changes.published.is_empty() || !changes.ended.is_empty() {
            // Others must know the participant's tracks before their answers carry them.
            self.announce(ctx, key);
        }
        if !split {
            self.follow(ctx, key);
            self.find_unreadable(ctx, key, &offer);
            self.learn_receiver(ctx.now, key);
        }
        self.answer(ctx, key, id, &offer, &fills);
        for track in changes.published {
            self.reconcile_all(ctx, track);
            self.backup_came(ctx, track);
        }
        if split {
            return;
        }
        self.start_forwarding(ctx, key);
        if self.shortfall(key) != (0, 0) {
            self.needs_offer(ctx.now, key);
        }
    }

    /// Makes the peer at the first offer, restarts its ICE when the offer's user name changed.
    fn prepare_link(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        offer: &Description,
    ) -> Result<(), LeaveReason> {
        let participant = self.participants.get(key).ok_or(LeaveReason::StateMismatch)?;
        let way = participant.links.source_way();
        let route = self.route(key, way);
        let participant = self.participants.get_mut(key).ok_or(LeaveReason::StateMismatch)?;
        if let Some(link) = participant.links.source() {
            let before = participant.negotiation.offer.as_ref();
            if before.is_some_and(|before| before.ufrag != offer.ufrag || before.pwd != offer.pwd) {
                let local = Credentials::of_shard(ctx.rng, ctx.config.shard);
                ctx.routes.ufrags.insert(local.ufrag.clone(), route);
                link.peer.restart_ice(local);
                // Names of restarts that were never taken up must not stay in the table.
                self.peer_events(ctx, key, way);
            }
            return Ok(());
        }
        let active = match offer.setup {
            Setup::Passive => true,
            Setup::Active => false,
            Setup::ActPass => participant.client.dtls_active,
        };
        let local = Credentials::of_shard(ctx.rng, ctx.config.shard);
        ctx.routes.ufrags.insert(local.ufrag.clone(), route);
        let config = PeerConfig {
            identity: Arc::clone(&ctx.config.identity),
            role: if active { DtlsRole::Active } else { DtlsRole::Passive },
            remote_fingerprint: offer.fingerprint.clone(),
            ice: IceRole::Lite { local },
            allow_cm: participant.client.allow_cm,
            crypto: ctx.config.crypto,
            channels: ChannelRole::Wait,
        };
        participant.negotiation.session = u64::from(ctx.rng.next_u32());
        let peer = Peer::new(ctx.now, config).map_err(|_| LeaveReason::MediaFailure)?;
        let link = Link::new(ctx.now, peer, route, ctx.ssrc(), active);
        participant.links.put(way, link);
        Ok(())
    }

    /// Subscriptions let go of sections that the offer no longer has.
    fn release_sections(&mut self, key: usize, offer: &Description) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        for (_, subscription) in &mut participant.subscriptions {
            let Some(binding) = &subscription.binding else { continue };
            let alive = |section: &&Section| {
                section.mid == binding.mid
                    && section.receives()
                    && media_kind(section.kind) == Some(subscription.kind)
            };
            if offer.sections.iter().find(alive).is_none() {
                subscription.binding = None;
                subscription.pause();
            }
        }
    }

    fn fill(&mut self, key: usize, section: &Section, changes: &mut Changes) -> Fill {
        let Some(kind) = media_kind(section.kind) else { return Fill::Idle };
        if let Some(fill) = self.fill_watched(key, section) {
            return fill;
        }
        let own = self.track_in(key, &section.mid);
        let is_kind =
            |track: &usize| self.tracks.get(*track).is_some_and(|track| track.kind() == kind);
        let (own, foreign) = (own.filter(is_kind), own.filter(|track| !is_kind(track)));
        changes.ended.extend(foreign);
        let Some(participant) = self.participants.get_mut(key) else { return Fill::Idle };
        if section.sends() && own.is_none() && participant.negotiation.is_taken_back(section) {
            return Fill::Idle;
        }
        participant.negotiation.taken_back.remove(&section.mid);
        let ended = &mut participant.negotiation.ended;
        if section.sends() {
            ended.remove(&section.mid);
            let track = own.or_else(|| {
                let track = self.publish(key, kind, section)?;
                changes.published.push(track);
                Some(track)
            });
            return self.fill_sending(track, kind, section);
        }
        if let Some(track) = own {
            changes.ended.push(track);
            ended.insert(section.mid.clone());
        }
        if section.rejected
            || section.direction == Direction::Inactive && ended.contains(&section.mid)
        {
            return Fill::Reject;
        }
        self.fill_receiving(key, kind, section)
    }

    fn fill_sending(&self, track: Option<usize>, kind: MediaKind, section: &Section) -> Fill {
        if let Some(track) = track.and_then(|track| self.tracks.get(track)) {
            return Fill::Receive {
                codec: track.codec_name.clone(),
                rtx: kind == MediaKind::Video,
                red: track.red_type.is_some(),
                opus: OpusWish {
                    dtx: !track.info.announced.disable_dtx,
                    stereo: track.info.announced.stereo,
                },
            };
        }
        // Not announced yet: take its usual codec, so that nothing is missing when it is.
        match choose_codec(kind, &[], section) {
            Some(codec) => Fill::Receive {
                codec: codec.name.clone(),
                rtx: kind == MediaKind::Video,
                red: false,
                opus: OpusWish::default(),
            },
            None => Fill::Idle,
        }
    }

    /// Pairs a sending section with its announcement: by the client's id of the track or of one of its
    /// codecs, else the oldest of that kind, because some clients' ids differ from their SDP.
    fn publish(&mut self, key: usize, kind: MediaKind, section: &Section) -> Option<usize> {
        let participant = self.participants.get_mut(key)?;
        let pending = &mut participant.negotiation.pending;
        let cid = cid(section);
        let of_kind = |add: &AddTrack| add.kind == kind;
        let by_cid =
            |other: &Pending| of_kind(&other.announced) && Some(&*other.announced.cid) == cid;
        let by_codec = |other: &Pending| {
            let mut codecs = other.announced.codecs.iter();
            of_kind(&other.announced) && codecs.any(|codec| Some(&*codec.cid) == cid)
        };
        let at = pending
            .iter()
            .position(by_cid)
            .or_else(|| pending.iter().position(by_codec))
            .or_else(|| pending.iter().position(|other| of_kind(&other.announced)))?;
        let Pending { sid, announced, since: _ } = pending.remove(at)?;
        let backup_of = announced.backup_of.clone();
        let track = Track::from_section(key, sid, announced, section)?;
        let streams: Vec<(u32, bool)> = track
            .layers
            .iter()
            .flat_map(|layer| [(layer.ssrc, false), (layer.repair_ssrc, true)])
            .filter(|(ssrc, _)| *ssrc != 0)
            .collect();
        let track = self.tracks.insert(track);
        for (ssrc, repair) in streams {
            participant.streams.bind(ssrc, Bound { track, layer: 0, repair });
        }
        if backup_of.is_some_and(|of| !self.join_backup(track, &of)) {
            self.end_track(track);
            return None;
        }
        Some(track)
    }

    /// An announced track whose section was offered before it: pairs them now.
    pub(super) fn publish_held(&mut self, ctx: &mut Context<'_>, key: usize, kind: MediaKind) {
        let Some(participant) = self.participants.get(key) else { return };
        let Some(offer) = participant.negotiation.offer.clone() else { return };
        let held = offer.sections.iter().find(|section| {
            section.sends()
                && media_kind(section.kind) == Some(kind)
                && self.track_in(key, &section.mid).is_none()
                && !participant.negotiation.is_taken_back(section)
        });
        let Some(section) = held else { return };
        let answered = choose_codec(kind, &[], section).map(|codec| codec.name.clone());
        let Some(track) = self.publish(key, kind, section) else { return };
        let as_answered = self.tracks.get(track).is_some_and(|track| {
            answered.is_some_and(|name| name.eq_ignore_ascii_case(&track.codec_name))
        });
        self.announce(ctx, key);
        self.reconcile_all(ctx, track);
        self.backup_came(ctx, track);
        if !as_answered {
            self.needs_offer(ctx.now, key);
        }
    }

    /// A section the client wants to receive on: what it carries already, or the oldest subscription
    /// without a section that it can read.
    fn fill_receiving(&mut self, key: usize, kind: MediaKind, section: &Section) -> Fill {
        let Some(participant) = self.participants.get_mut(key) else { return Fill::Idle };
        if !section.receives() || participant.links.split {
            return Fill::Idle;
        }
        let reads_red = participant.client.reads_red;
        let tracks = &self.tracks;
        let readable = |track: usize| {
            let track = tracks.get(track)?;
            bind(track, section, reads_red)
        };
        let holds = |binding: &Binding| binding.mid == section.mid;
        let mut waiting: Vec<(bool, u64, usize)> = participant
            .subscriptions
            .iter()
            .filter(|(_, other)| other.kind == kind)
            .filter(|(_, other)| other.binding.as_ref().is_none_or(holds))
            .map(|(at, other)| (other.binding.is_none(), other.order, at))
            .collect();
        waiting.sort_unstable();
        for (_, _, at) in waiting {
            let Some(subscription) = participant.subscriptions.get_mut(at) else { continue };
            let Some(binding) = readable(subscription.track) else {
                // The section no longer has its codec.
                if subscription.binding.take().is_some() {
                    subscription.pause();
                }
                continue;
            };
            let Some(track) = tracks.get(subscription.track) else { continue };
            let (ssrc, repair_ssrc) = (subscription.ssrc, subscription.repair_ssrc);
            let rtx_ssrc = binding.repair_type.map(|_| repair_ssrc);
            let red = binding.red_type.is_some();
            subscription.binding = Some(binding);
            let sid = subscription.sid.0.to_string();
            let (codec, owner) = (track.codec_name.clone(), track.owner);
            let publisher = self.participants.get(owner).map_or("", |owner| &owner.sid.0);
            let stream = format!("{publisher}|{sid}");
            return Fill::Send { codec, rtx_ssrc, red, stream, track: sid, ssrc };
        }
        Fill::Idle
    }

    /// Subscriptions that no section of the client can ever carry, because it has not the codec.
    fn find_unreadable(&mut self, ctx: &mut Context<'_>, key: usize, offer: &Description) {
        let Some(participant) = self.participants.get(key) else { return };
        let reads_red = participant.client.reads_red;
        let mut unreadable = Vec::new();
        for (at, subscription) in &participant.subscriptions {
            let of_kind = |section: &&Section| {
                section.receives() && media_kind(section.kind) == Some(subscription.kind)
            };
            let mut sections = offer.sections.iter().filter(of_kind).peekable();
            let Some(track) = self.tracks.get(subscription.track) else { continue };
            let open = subscription.binding.is_none() && !subscription.unreadable;
            if open
                && sections.peek().is_some()
                && sections.all(|section| bind(track, section, reads_red).is_none())
            {
                unreadable.push(at);
            }
        }
        for at in unreadable {
            self.unreadable(ctx, key, at);
        }
    }

    /// Whether a client has a codec, as far as is known: whoever is offered to tells by its answer.
    pub(super) fn can_read(&self, key: usize, kind: MediaKind, codec: &str) -> bool {
        let Some(participant) = self.participants.get(key) else { return false };
        let offer = participant.negotiation.offer.as_ref().filter(|_| !participant.links.split);
        let mut sections = offer.into_iter().flat_map(|offer| &offer.sections);
        participant.links.split
            || sections.any(|section| {
                section.receives()
                    && media_kind(section.kind) == Some(kind)
                    && section.codec(codec).is_some()
            })
    }

    /// What the participant tells of what it receives from us. In a bundle one id means one thing.
    pub(super) fn learn_receiver(&mut self, now: Instant, key: usize) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        let bindings = participant.subscriptions.iter().filter_map(|(_, sub)| sub.binding.as_ref());
        let number_id = bindings.map(|binding| binding.number_id).max();
        if let (Some(link), Some(number_id)) = (&mut participant.links.down, number_id) {
            link.receives(now, number_id);
        }
    }

    fn answer(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        id: u32,
        offer: &Description,
        fills: &[Fill],
    ) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        let Some(link) = participant.links.source() else { return };
        participant.negotiation.version += 1;
        let local = Local {
            credentials: link.peer.credentials(),
            fingerprint: ctx.config.identity.fingerprint(),
            setup: if link.active { DtlsRole::Active } else { DtlsRole::Passive },
            candidates: &ctx.config.candidates,
            tcp_candidates: &ctx.config.tcp_candidates,
            session: participant.negotiation.session,
            version: participant.negotiation.version,
        };
        let sdp = sdp::write_answer(offer, &local, fills);
        // Whose tracks the answer carries must be known before.
        self.tell_news_to(ctx, key);
        let Some(participant) = self.participants.get(key) else { return };
        let split = participant.links.split;
        // Who watches is not told of tracks.
        let told = !split && participant.watch.is_none();
        let carried = participant.subscriptions.iter().filter(|_| told);
        let carried = carried.filter_map(|(_, subscription)| {
            let binding = subscription.binding.as_ref()?;
            Some((binding.mid.clone(), subscription.sid.clone()))
        });
        let mid_to_track = carried.collect();
        ctx.tell(participant.session, SessionEvent::Answer { id, sdp, mid_to_track });
    }

    /// New sections can carry media now: ask for keyframes where one is needed.
    pub(super) fn start_forwarding(&mut self, ctx: &mut Context<'_>, key: usize) {
        let Some(participant) = self.participants.get(key) else { return };
        let idle = participant.subscriptions.iter().filter(|(_, other)| other.current.is_none());
        let tracks: Vec<usize> = idle.map(|(_, other)| other.track).collect();
        for track in tracks {
            self.retarget(ctx, track);
        }
    }

    /// Somebody must offer again, soon, together with what else comes up: the client, which is asked
    /// to, or we.
    pub(super) fn needs_offer(&mut self, now: Instant, key: usize) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        let negotiation = &mut participant.negotiation;
        let earliest = negotiation.last_asked.map_or(now, |last| last + ASK_DISTANCE);
        let at = earliest.max(now + ASK_SOON);
        let at = *negotiation.ask_at.get_or_insert(at);
        self.wake(at);
    }

    /// Asks a client for sections, or offers it some, when it is time.
    pub(super) fn ask_for_sections(&mut self, ctx: &mut Context<'_>, key: usize) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        let split = participant.links.split;
        let negotiation = &mut participant.negotiation;
        if let Some(until) = negotiation.asked_until {
            if until > ctx.now {
                return;
            }
            negotiation.asked_until = None;
            if split {
                return self.unanswered(ctx, key);
            }
            negotiation.ask_at.get_or_insert(ctx.now);
        }
        if negotiation.ask_at.is_none_or(|at| at > ctx.now) {
            return;
        }
        negotiation.ask_at = None;
        if split {
            return self.offer_ours(ctx, key);
        }
        // Without a first offer there is nothing to add to; it will be answered with everything.
        if participant.session.is_none() || negotiation.offer.is_none() {
            return;
        }
        negotiation.wait(ctx.now, ASK_AGAIN);
        let session = participant.session;
        let (audio, video) = self.shortfall(key);
        ctx.tell(session, SessionEvent::SectionsNeeded { audio, video });
    }

    /// Sections that the client must add: audio, video.
    fn shortfall(&self, key: usize) -> (u32, u32) {
        let Some(participant) = self.participants.get(key) else { return (0, 0) };
        let short = |kind| {
            let waiting = participant.subscriptions.iter().filter(|(_, other)| {
                other.kind == kind && other.binding.is_none() && !other.unreadable
            });
            (waiting.count() as u32).saturating_sub(free_sections(participant, kind))
        };
        let offered =
            participant.negotiation.offer.as_ref().map_or(0, |offer| offer.sections.len());
        let room = MOST_SECTIONS.saturating_sub(offered) as u32;
        let audio = short(MediaKind::Audio).min(room);
        (audio, short(MediaKind::Video).min(room - audio))
    }

    fn track_in(&self, owner: usize, mid: &str) -> Option<usize> {
        let here = |track: &Track| track.owner == owner && track.info.mid == mid;
        self.tracks.iter().find(|(_, track)| here(track)).map(|(key, _)| key)
    }
}

/// The client's id of what it sends in a section.
fn cid(section: &Section) -> Option<&str> {
    section.msid.as_ref().map(|(_, track)| track.as_str())
}

/// Sections of the last offer that could carry something more.
fn free_sections(participant: &Participant, kind: MediaKind) -> u32 {
    let Some(offer) = &participant.negotiation.offer else { return 0 };
    let taken = |mid: &str| {
        let bindings =
            participant.subscriptions.iter().filter_map(|(_, other)| other.binding.as_ref());
        bindings.into_iter().any(|binding| binding.mid == mid)
    };
    let free = offer.sections.iter().filter(|section| {
        section.direction == Direction::RecvOnly
            && section.receives()
            && media_kind(section.kind) == Some(kind)
            && !taken(&section.mid)
    });
    free.count() as u32
}

/// How a section would carry a track; `None` when its writer has not the codec.
pub(super) fn bind(track: &Track, section: &Section, reads_red: bool) -> Option<Binding> {
    let codec = section.codec(&track.codec_name)?;
    let payload_type = codec.pt;
    let feeds = codec.feedback.iter().any(|kind| kind == "transport-cc");
    let red = section.red_of(payload_type).filter(|_| reads_red && track.may_repeat);
    let video = track.kind() == MediaKind::Video;
    Some(Binding {
        mid: section.mid.clone(),
        payload_type,
        repair_type: section.rtx_of(payload_type).filter(|_| video).map(|rtx| rtx.pt),
        red_type: red.map(|red| red.pt),
        playout_id: section.extension_id(Extension::PlayoutDelay).unwrap_or(0),
        descriptor_id: section.extension_id(Extension::DependencyDescriptor).unwrap_or(0),
        number_id: section.extension_id(Extension::TransportCc).filter(|_| feeds).unwrap_or(0),
    })
}

pub(super) const fn media_kind(kind: SectionKind) -> Option<MediaKind> {
    match kind {
        SectionKind::Audio => Some(MediaKind::Audio),
        SectionKind::Video => Some(MediaKind::Video),
        SectionKind::Application | SectionKind::Other => None,
    }
}
