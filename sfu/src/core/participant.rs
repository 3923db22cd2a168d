//! One person's presence in a room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use slab::Slab;

use super::api::{
    ClientTraits, Grant, Join, ParticipantSid, ParticipantState, Profile, SessionKey,
    TrackPermission, TrackSid,
};
use super::bandwidth::Downlink;
use super::bwe::Estimator;
use super::layers::Wish;
use super::link::Links;
use super::negotiation::Negotiation;
use super::protection::Protection;
use super::quality::Connection;
use super::settling::Settling;
use super::speakers::Voice;
use super::stay::Tally;
use super::streams::Streams;
use super::subscription::Subscription;
use super::uplink::Uplink;
use super::watching::Watch;

/// A participant that never becomes active is removed.
const JOIN_LIMIT: Duration = Duration::from_secs(60);

/// Below this a line has no room for a sound twice.
const TIGHT_BPS: u64 = 100_000;

/// From this loss on repair is sent twice.
const LOSSY: f32 = 0.08;

/// A participant and all that is its own.
#[derive(Debug)]
pub(super) struct Participant {
    /// Its id.
    pub(super) sid: ParticipantSid,
    /// What others see.
    pub(super) profile: Arc<Profile>,
    /// Its rights.
    pub(super) grant: Grant,
    /// What we know of its software.
    pub(super) client: ClientTraits,
    /// Where it stands.
    pub(super) state: ParticipantState,
    /// Wall clock at the join.
    pub(super) joined_at_ms: i64,
    /// Change counter.
    pub(super) version: u32,
    /// Up to where it knows what the room's bulletin tells.
    pub(super) news_to: u64,
    /// Its newest signal session, while there is one.
    pub(super) session: Option<SessionKey>,
    /// Its peers; made at the first offers and answers.
    pub(super) links: Links,
    /// Offers, answers and what they left open.
    pub(super) negotiation: Negotiation,
    /// What it sends.
    pub(super) streams: Streams,
    /// What it receives.
    pub(super) subscriptions: Slab<Subscription>,
    /// Subscriptions by our media stream.
    pub(super) sending: FxHashMap<u32, usize>,
    /// What it wants to receive.
    pub(super) wants: Wants,
    /// It watches somebody, and is never told of tracks.
    pub(super) watch: Option<Watch>,
    /// Who may receive its tracks.
    pub(super) audience: Audience,
    /// Its data messages.
    pub(super) data: DataState,
    /// How loud it is.
    pub(super) voice: Voice,
    /// What its stay adds up to.
    pub(super) tally: Tally,
    /// How it is sent to.
    pub(super) downlink: Downlink,
    /// Its videos may be paused when its link carries too little.
    pub(super) allow_pause: bool,
    /// Last measured round trip.
    pub(super) round_trip: Duration,
    /// Redundancy of the sound it gets.
    pub(super) protection: Protection,
    /// How full the way from it is.
    pub(super) uplink: Uplink,
    /// Layer and clock of each of our streams, as we last reported them.
    pub(super) described: FxHashMap<u32, (usize, u32)>,
    /// How good its connection is.
    pub(super) connection: Connection,
    /// When it must go.
    pub(super) presence: Presence,
}

/// What a participant wants to receive.
#[derive(Debug)]
pub(super) struct Wants {
    /// Everything it has not refused.
    pub(super) automatic: bool,
    /// Said of single tracks.
    pub(super) said: BTreeMap<TrackSid, bool>,
    /// Data tracks that it asked for.
    pub(super) data: BTreeSet<TrackSid>,
    /// Settings of single tracks; they outlive a subscription.
    pub(super) settings: BTreeMap<TrackSid, Wish>,
    /// Before anything was said of a track.
    pub(super) initial: Wish,
    /// When settings are applied.
    pub(super) settling: Settling,
}

impl Wants {
    /// Whether it wants a track.
    pub(super) fn track(&self, sid: &TrackSid) -> bool {
        self.said.get(sid).copied().unwrap_or(self.automatic)
    }

    /// How it wants a track.
    pub(super) fn wish(&self, sid: &TrackSid) -> Wish {
        self.settings.get(sid).copied().unwrap_or(self.initial)
    }
}

/// Who may receive a participant's tracks.
#[derive(Debug)]
pub(super) struct Audience {
    /// Everyone.
    pub(super) everyone: bool,
    /// Otherwise these.
    pub(super) allowed: Vec<TrackPermission>,
    /// When they are applied.
    pub(super) settling: Settling,
}

impl Audience {
    /// Whether a subscriber may receive a track. Recorders always may.
    pub(super) fn admits(&self, subscriber: &Participant, track: &TrackSid) -> bool {
        if self.everyone || subscriber.grant.recorder {
            return true;
        }
        let names = |line: &&TrackPermission| {
            line.sid.as_ref() == Some(&subscriber.sid)
                || line.identity.as_ref() == Some(&subscriber.profile.identity)
        };
        let mut lines = self.allowed.iter().filter(names);
        lines.any(|line| line.all_tracks || line.tracks.contains(track))
    }
}

/// A participant's data messages.
#[derive(Debug, Default)]
pub(super) struct DataState {
    /// Last reliable sequence it sent.
    pub(super) last_sequence: u32,
    /// Its reliable channel is open.
    pub(super) open: bool,
    /// Reliable messages of the room from this one on wait for its channel.
    pub(super) waiting_from: u64,
}

/// When a participant must go.
#[derive(Debug)]
pub(super) struct Presence {
    /// Its media is answering.
    pub(super) reachable: bool,
    /// It goes then, unless something happens before.
    pub(super) leave_at: Option<Instant>,
}

impl Participant {
    /// A participant that has just joined.
    pub(super) fn new(now: Instant, now_ms: i64, sid: ParticipantSid, join: &Join) -> Self {
        Self {
            sid,
            profile: Arc::new(join.profile.clone()),
            grant: join.grant.clone(),
            client: join.client.clone(),
            state: ParticipantState::Joined,
            joined_at_ms: now_ms,
            // Some clients keep what they knew of this person while its version is newer, also when
            // it joined again, and also when the server was started again in between.
            version: u32::try_from(now_ms / 1000).unwrap_or(1).max(1),
            news_to: 0,
            session: Some(join.session),
            links: Links { split: join.client.two_connections, ..Links::default() },
            negotiation: Negotiation::default(),
            streams: Streams::default(),
            subscriptions: Slab::new(),
            sending: FxHashMap::default(),
            wants: Wants {
                automatic: join.auto_subscribe,
                said: BTreeMap::new(),
                data: BTreeSet::new(),
                settings: BTreeMap::new(),
                initial: Wish::initial(join.adaptive_stream),
                settling: Settling::default(),
            },
            watch: None,
            audience: Audience {
                everyone: true,
                allowed: Vec::new(),
                settling: Settling::default(),
            },
            data: DataState::default(),
            voice: Voice::default(),
            tally: Tally::default(),
            downlink: Downlink::default(),
            allow_pause: join.allow_pause,
            round_trip: Duration::from_millis(100),
            protection: Protection::default(),
            uplink: Uplink::default(),
            described: FxHashMap::default(),
            connection: Connection::default(),
            presence: Presence { reachable: false, leave_at: Some(now + JOIN_LIMIT) },
        }
    }

    /// Media transport is up, or was.
    pub(super) fn was_active(&self) -> bool {
        self.state == ParticipantState::Active
    }

    /// The share of packets that the way to it loses, 0..=1, before any repair.
    pub(super) fn downlink_loss(&self) -> f32 {
        self.estimator().map_or_else(|| self.protection.reported(), Estimator::loss)
    }

    /// What the way to it carries, as far as it is known.
    pub(super) fn downlink_estimate(&self) -> Option<u64> {
        self.estimator().map(Estimator::target_bps)
    }

    /// Whether the way to it has room for little more than sound as it is.
    pub(super) fn downlink_is_tight(&self) -> bool {
        self.estimator().is_some_and(|estimator| estimator.target_bps() < TIGHT_BPS)
    }

    /// How often a packet of a picture is repaired at once: an answer that is lost costs a viewer
    /// another round trip of standstill.
    pub(super) fn repair_times(&self) -> u32 {
        if self.downlink_loss() >= LOSSY && !self.downlink_is_tight() { 2 } else { 1 }
    }

    /// The estimator of the way to it, while it hears of what arrives.
    fn estimator(&self) -> Option<&Estimator> {
        let estimator = self.links.down.as_ref()?.estimator.as_deref()?;
        estimator.is_informed().then_some(estimator)
    }

    /// The subscription of a track, in whichever codec.
    pub(super) fn subscription_of(&self, track: &TrackSid) -> Option<usize> {
        self.subscriptions.iter().find(|(_, other)| other.sid == *track).map(|(key, _)| key)
    }
}
