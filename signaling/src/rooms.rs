//! The directory of open rooms, and who decides about them.
//!
//! A room of the engine has a key; clients know its name. The directory is the one place that
//! pairs them. It also keeps who is in each room, as the engine tells it: that answers "is it
//! full?" before an upgrade, and gives the keeper of books a whole snapshot when it asks for one.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bedside_sfu::core::api::{
    LeaveReason, NodeEvent, ParticipantInfo, ParticipantSid, ParticipantState, PlayoutDelay,
    Private, RoomInfo, RoomKey, RoomSnapshot, RoomSpec, Stay,
};
use futures_util::future::BoxFuture;

use crate::token::Claims;

/// What a room is to be like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomPlan {
    /// How many participants at the most; 0 = no limit.
    pub max_participants: u32,
    /// Free text that every client gets.
    pub metadata: String,
    /// Close the room when it has stood empty this long before anybody comes; `None`: only by
    /// command.
    pub empty_timeout: Option<Duration>,
    /// Close the room when it has stood empty this long after the last one left; `None`: only by
    /// command.
    pub departure_timeout: Option<Duration>,
    /// The keeper of books decides all this: nobody else can, and who joins an open room brings the
    /// newest word of it. Without, what a room was opened with holds until an administrator changes
    /// it.
    pub fixed: bool,
    /// How long receivers hold pictures back; `None`: as publishers say.
    pub playout_delay: Option<PlayoutDelay>,
}

/// What somebody wishes of a room; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomSettings {
    /// How many participants at the most.
    pub max_participants: Option<u32>,
    /// How long it stands empty before anybody comes.
    pub empty_timeout: Option<Duration>,
    /// How long it stands empty when everybody has left.
    pub departure_timeout: Option<Duration>,
    /// Free text that every client gets.
    pub metadata: Option<Private<String>>,
    /// How long receivers hold pictures back.
    pub playout_delay: Option<PlayoutDelay>,
}

impl RoomSettings {
    /// As messages tell them: 0 and nothing leave a setting as it is.
    pub(crate) fn new(
        max_participants: u32,
        (empty, departure): (u32, u32),
        metadata: String,
        (min, max): (u32, u32),
    ) -> Self {
        let some = |number: u32| (number > 0).then_some(number);
        let seconds = |number| some(number).map(|s| Duration::from_secs(s.into()));
        let delay = |ms: u32| u16::try_from(ms).unwrap_or(u16::MAX);
        Self {
            max_participants: some(max_participants),
            empty_timeout: seconds(empty),
            departure_timeout: seconds(departure),
            metadata: (!metadata.is_empty()).then(|| Private::new(metadata)),
            playout_delay: (min > 0 || max > 0)
                .then(|| PlayoutDelay { min_ms: delay(min), max_ms: delay(max) }),
        }
    }

    /// Changes a plan. Of a fixed one only what is nothing to the keeper of books.
    pub(crate) fn apply(&self, plan: &mut RoomPlan) {
        if let Some(metadata) = &self.metadata {
            plan.metadata.clone_from(metadata.reveal());
        }
        if plan.fixed {
            return;
        }
        plan.max_participants = self.max_participants.unwrap_or(plan.max_participants);
        plan.empty_timeout = self.empty_timeout.or(plan.empty_timeout);
        plan.departure_timeout = self.departure_timeout.or(plan.departure_timeout);
        plan.playout_delay = self.playout_delay.or(plan.playout_delay);
    }
}

/// Why the doorkeeper does not let somebody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoorRefusal {
    /// No such room, and it may not be made.
    #[error("requested room does not exist")]
    NoRoom,
    /// The person may not come in (any more).
    #[error("not allowed")]
    NotAllowed,
    /// The room is full.
    #[error("room is full")]
    Full,
    /// No new rooms now.
    #[error("server is draining")]
    Draining,
}

/// Decides who comes in. Asked at each join, each resume and each validation, so it must not take
/// long; a join is refused when it does.
pub trait Doorkeeper: Send + Sync + 'static {
    /// The plan of the room that the verified token names, or why its bearer stays outside.
    fn room<'a>(&'a self, claims: &'a Claims) -> BoxFuture<'a, Result<RoomPlan, DoorRefusal>>;

    /// The plan of a room that an administrator wants to be there before anybody comes, or why it
    /// is not to be.
    fn create<'a>(&'a self, room: &'a str) -> BoxFuture<'a, Result<RoomPlan, DoorRefusal>>;

    /// Somebody with a good token administered a room, looked into it, or tried to. It must not
    /// wait; who keeps no books passes over it.
    fn administered(&self, _call: &Administered<'_>) {}
}

/// A call of an administrator that is over.
#[derive(Clone, Copy, Debug)]
pub struct Administered<'a> {
    /// The room that it named.
    pub room: &'a str,
    /// Whose it was.
    pub claims: &'a Claims,
    /// The name of the call.
    pub call: &'static str,
    /// The HTTP status of its answer.
    pub status: u16,
}

/// What happened in the rooms, for the keeper of books.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A room was opened.
    RoomStarted {
        /// Its name.
        room: String,
        /// Its facts.
        info: RoomInfo,
    },
    /// A room's settings or metadata changed.
    RoomChanged {
        /// Its name.
        room: String,
        /// Its facts now.
        info: RoomInfo,
    },
    /// A room is gone.
    RoomFinished {
        /// Its name.
        room: String,
        /// Why.
        reason: LeaveReason,
    },
    /// A participant came in, became active, changed or left.
    Participant {
        /// The room's name.
        room: String,
        /// Its state now.
        info: ParticipantInfo,
    },
    /// A participant's media fell silent or came back.
    Reachable {
        /// The room's name.
        room: String,
        /// Who.
        identity: Private<String>,
        /// Answering now.
        reachable: bool,
    },
    /// A participant is about to leave: what its stay was like.
    Measured {
        /// The room's name.
        room: String,
        /// Who.
        identity: Private<String>,
        /// What was measured.
        stay: Stay,
    },
    /// Facts were lost. This is the whole truth: every open room with everyone in it.
    Snapshot {
        /// Name, facts and participants of each room.
        rooms: Vec<(String, Option<RoomInfo>, Vec<ParticipantInfo>)>,
    },
}

/// So many marks of messages are remembered of a room.
const NONCES: usize = 256;

/// Pairs names with keys.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    rooms: BTreeMap<String, OpenRoom>,
    names: BTreeMap<RoomKey, String>,
}

/// One open room.
#[derive(Debug)]
struct OpenRoom {
    key: RoomKey,
    plan: RoomPlan,
    /// Its facts, once the engine has told them.
    info: Option<RoomInfo>,
    participants: BTreeMap<ParticipantSid, ParticipantInfo>,
    /// Marks of the last messages that administrators sent.
    nonces: VecDeque<Vec<u8>>,
}

impl Directory {
    /// The key of an open room.
    pub(crate) fn key(&self, name: &str) -> Option<RoomKey> {
        self.rooms.get(name).map(|room| room.key)
    }

    /// Every open room.
    pub(crate) fn keys(&self) -> Vec<RoomKey> {
        self.names.keys().copied().collect()
    }

    /// How many rooms are open, and how many participants are in them.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.rooms.len(), self.rooms.values().map(|room| room.participants.len()).sum())
    }

    /// Enters a room that is about to be opened, and says how the engine is to open it.
    pub(crate) fn open(&mut self, name: &str, key: RoomKey, plan: &RoomPlan) -> RoomSpec {
        let room = OpenRoom {
            key,
            plan: plan.clone(),
            info: None,
            participants: BTreeMap::new(),
            nonces: VecDeque::new(),
        };
        if let Some(old) = self.rooms.insert(name.to_owned(), room) {
            self.names.remove(&old.key);
        }
        self.names.insert(key, name.to_owned());
        spec(name, key, plan)
    }

    /// How the engine is to know an open room from now on; `Some` if the change changes anything.
    pub(crate) fn replan(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut RoomPlan),
    ) -> Option<RoomSpec> {
        let room = self.rooms.get_mut(name)?;
        let before = room.plan.clone();
        change(&mut room.plan);
        (room.plan != before).then(|| spec(name, room.key, &room.plan))
    }

    /// The plan of an open room.
    pub(crate) fn plan(&self, name: &str) -> Option<&RoomPlan> {
        self.rooms.get(name).map(|room| &room.plan)
    }

    /// An open room as clients are told of it, with the people who are in it now.
    pub(crate) fn room(&self, name: &str) -> Option<RoomInfo> {
        let room = self.rooms.get(name)?;
        let counted =
            || room.participants.values().filter(|info| !info.grant.hidden && !info.grant.recorder);
        let publishers = counted().filter(|info| !info.tracks.is_empty()).count();
        Some(RoomInfo {
            participants: u32::try_from(counted().count()).unwrap_or(u32::MAX),
            publishers: u32::try_from(publishers).unwrap_or(u32::MAX),
            recording: room.participants.values().any(|info| info.grant.recorder),
            ..room.info.clone()?
        })
    }

    /// Was no message with this mark sent to the room? It is from now on.
    pub(crate) fn is_news(&mut self, name: &str, nonce: &[u8]) -> bool {
        let Some(room) = self.rooms.get_mut(name) else { return true };
        if room.nonces.iter().any(|known| known == nonce) {
            return false;
        }
        room.nonces.truncate(NONCES - 1);
        room.nonces.push_front(nonce.to_vec());
        true
    }

    /// The names of all open rooms.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.rooms.keys().map(String::as_str)
    }

    /// Everybody in a room.
    pub(crate) fn participants(&self, name: &str) -> impl Iterator<Item = &ParticipantInfo> {
        self.rooms.get(name).into_iter().flat_map(|room| room.participants.values())
    }

    /// Strikes a room out, unless its name has a newer key by now.
    pub(crate) fn close(&mut self, key: RoomKey) -> Option<String> {
        let name = self.names.remove(&key)?;
        if self.rooms.get(&name).is_some_and(|room| room.key == key) {
            self.rooms.remove(&name);
        }
        Some(name)
    }

    /// Would somebody of this identity be one too many? Hidden participants and recorders do not
    /// count, and the same person again replaces its earlier self.
    pub(crate) fn is_full(&self, name: &str, identity: &str, max_participants: u32) -> bool {
        let Some(room) = self.rooms.get(name) else { return false };
        let others = room.participants.values().filter(|info| {
            !info.grant.hidden && !info.grant.recorder && info.profile.identity.reveal() != identity
        });
        max_participants != 0 && others.count() >= max_participants as usize
    }

    /// Is somebody of this identity in the room?
    pub(crate) fn has(&self, name: &str, identity: &str) -> bool {
        self.rooms.get(name).is_some_and(|room| {
            room.participants.values().any(|info| info.profile.identity.reveal() == identity)
        })
    }

    /// Keeps up with the engine and words the event for the keeper of books.
    pub(crate) fn apply(&mut self, key: RoomKey, event: NodeEvent) -> Option<Fact> {
        let name = self.names.get(&key)?.clone();
        let room = self.rooms.get_mut(&name).filter(|room| room.key == key);
        Some(match event {
            NodeEvent::RoomStarted { info } => {
                if let Some(room) = room {
                    room.info = Some(info.clone());
                }
                Fact::RoomStarted { room: name, info }
            }
            NodeEvent::RoomChanged { info } => {
                if let Some(room) = room {
                    room.info = Some(info.clone());
                }
                Fact::RoomChanged { room: name, info }
            }
            NodeEvent::Confirmed { number: _ } => return None,
            NodeEvent::RoomFinished { reason } => {
                self.close(key);
                Fact::RoomFinished { room: name, reason }
            }
            NodeEvent::Participant { info } => {
                if let Some(room) = room {
                    room.note(&info);
                }
                Fact::Participant { room: name, info }
            }
            NodeEvent::Measured { participant: _, identity, stay } => {
                Fact::Measured { room: name, identity, stay }
            }
            NodeEvent::Reachable { participant: _, identity, reachable } => {
                Fact::Reachable { room: name, identity, reachable }
            }
        })
    }

    /// Takes over the whole truth about the rooms of one shard.
    pub(crate) fn resync(&mut self, rooms: &[RoomSnapshot], of_shard: impl Fn(RoomKey) -> bool) {
        let gone = |key: &RoomKey| of_shard(*key) && rooms.iter().all(|r| r.room != *key);
        for key in self.keys().into_iter().filter(gone) {
            self.close(key);
        }
        for snapshot in rooms {
            let Some(name) = self.names.get(&snapshot.room) else { continue };
            let Some(room) = self.rooms.get_mut(name).filter(|r| r.key == snapshot.room) else {
                continue;
            };
            room.info = Some(snapshot.info.clone());
            room.participants.clear();
            for (info, _) in &snapshot.participants {
                room.note(info);
            }
        }
    }

    /// Everybody in every room.
    pub(crate) fn people(&self) -> impl Iterator<Item = (&str, &ParticipantInfo)> {
        self.rooms
            .iter()
            .flat_map(|(name, room)| room.participants.values().map(|info| (name.as_str(), info)))
    }

    /// Everything, for [`Fact::Snapshot`].
    pub(crate) fn snapshot(&self) -> Fact {
        let rooms = self.rooms.iter().map(|(name, room)| {
            (name.clone(), room.info.clone(), room.participants.values().cloned().collect())
        });
        Fact::Snapshot { rooms: rooms.collect() }
    }
}

impl OpenRoom {
    fn note(&mut self, info: &ParticipantInfo) {
        match info.state {
            ParticipantState::Disconnected(_) => self.participants.remove(&info.sid),
            ParticipantState::Joined | ParticipantState::Active => {
                self.participants.insert(info.sid.clone(), info.clone())
            }
        };
    }
}

fn spec(name: &str, room: RoomKey, plan: &RoomPlan) -> RoomSpec {
    RoomSpec {
        room,
        name: Private::new(name.to_owned()),
        metadata: Private::new(plan.metadata.clone()),
        max_participants: plan.max_participants,
        empty_timeout: plan.empty_timeout,
        departure_timeout: plan.departure_timeout,
        playout_delay: plan.playout_delay,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bedside_sfu::core::api::{Grant, Profile};

    use super::*;

    fn info(sid: &str, identity: &str, state: ParticipantState) -> ParticipantInfo {
        let identity = Private::new(identity.to_owned());
        ParticipantInfo {
            sid: ParticipantSid(sid.into()),
            profile: Arc::new(Profile { identity, ..Profile::default() }),
            grant: Grant::default(),
            state,
            tracks: Vec::new(),
            data_tracks: Vec::new(),
            joined_at_ms: 0,
            version: 1,
        }
    }

    fn come(directory: &mut Directory, key: u64, sid: &str, identity: &str) {
        let info = info(sid, identity, ParticipantState::Joined);
        directory.apply(RoomKey(key), NodeEvent::Participant { info }).unwrap();
    }

    #[test]
    fn a_room_is_full_for_others_and_never_for_oneself() {
        let mut directory = Directory::default();
        directory.open("ward", RoomKey(1), &RoomPlan::default());
        come(&mut directory, 1, "PA_1", "ann");
        assert!(!directory.is_full("ward", "bob", 2));
        come(&mut directory, 1, "PA_2", "bob");
        assert!(directory.is_full("ward", "eve", 2));
        assert!(!directory.is_full("ward", "eve", 0));
        assert!(!directory.is_full("ward", "eve", 3));
        assert!(!directory.is_full("ward", "ann", 2));
        assert!(!directory.is_full("other", "eve", 1));
        let left =
            info("PA_2", "bob", ParticipantState::Disconnected(LeaveReason::ClientInitiated));
        directory.apply(RoomKey(1), NodeEvent::Participant { info: left });
        assert!(!directory.is_full("ward", "eve", 2));
        assert_eq!(directory.size(), (1, 1));
    }

    #[test]
    fn a_reopened_name_is_not_closed_by_the_end_of_its_earlier_room() {
        let mut directory = Directory::default();
        directory.open("ward", RoomKey(1), &RoomPlan::default());
        directory.open("ward", RoomKey(2), &RoomPlan::default());
        let end = NodeEvent::RoomFinished { reason: LeaveReason::RoomClosed };
        assert!(directory.apply(RoomKey(1), end.clone()).is_none());
        assert_eq!(directory.key("ward"), Some(RoomKey(2)));
        assert!(directory.apply(RoomKey(2), end).is_some());
        assert_eq!(directory.key("ward"), None);
        assert!(directory.keys().is_empty());
    }

    #[test]
    fn a_changed_limit_is_told_once() {
        let mut directory = Directory::default();
        let plan = RoomPlan { max_participants: 2, metadata: "m".into(), ..RoomPlan::default() };
        directory.open("ward", RoomKey(1), &plan);
        assert!(directory.replan("ward", |plan| plan.max_participants = 2).is_none());
        let spec = directory.replan("ward", |plan| plan.max_participants = 3).unwrap();
        assert_eq!((spec.max_participants, spec.metadata.0.as_str()), (3, "m"));
        assert!(directory.replan("ward", |plan| plan.max_participants = 3).is_none());
        assert!(directory.replan("other", |plan| plan.max_participants = 3).is_none());
    }
}
