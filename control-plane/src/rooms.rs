//! The rooms that carry consultations, as the control plane needs them: people out, rooms shut,
//! tokens signed.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use bedside_signaling::ice::IceServer;
use bedside_signaling::token::{RoomToken, VideoGrant};
use bedside_signaling::{LeaveReason, Signaling};

use crate::consultation::{Consultation, Mode, Person};
use crate::{IceServerView, KeyPair, Private, RoomAccess};

/// Every consultation's room is named so, and no other room may be.
const ROOM_PREFIX: &str = "consultation-";

/// Our way to the media node. Without signaling attached nobody is in a room, so there is nobody
/// to remove; tokens can be signed all the same.
#[derive(Default)]
pub(crate) struct Rooms {
    own: OnceLock<Signaling>,
    #[cfg(test)]
    pub(crate) asked: std::sync::Mutex<Vec<String>>,
}

impl Rooms {
    pub(crate) fn attach(&self, signaling: Signaling) {
        if self.own.set(signaling).is_err() {
            tracing::warn!("signaling was attached twice; the first one stays");
        }
    }

    /// STUN and TURN servers for who may come in now.
    pub(crate) fn ice_servers(&self, access: &RoomAccess) -> Vec<IceServerView> {
        let Some(signaling) = self.own.get() else { return Vec::new() };
        let servers = signaling.ice_servers(&access.room_name, access.identity.reveal());
        let view = |server: IceServer| IceServerView {
            urls: server.urls,
            username: server.username,
            credential: server.credential.reveal().clone(),
        };
        servers.into_iter().map(view).collect()
    }

    /// Open rooms, and the people in them.
    pub(crate) fn size(&self) -> (usize, usize) {
        self.own.get().map_or((0, 0), Signaling::size)
    }

    /// Takes a person out of a room.
    pub(crate) fn remove(&self, room: &str, identity: &str) {
        #[cfg(test)]
        self.asked
            .lock()
            .expect("no test panics with this lock")
            .push(format!("remove {identity}"));
        if let Some(signaling) = self.own.get() {
            signaling.remove(room, identity, LeaveReason::ParticipantRemoved);
        }
    }

    /// Shuts a room and tells everyone in it.
    pub(crate) fn close(&self, room: &str) {
        #[cfg(test)]
        self.asked.lock().expect("no test panics with this lock").push("close".to_owned());
        if let Some(signaling) = self.own.get() {
            signaling.close_room(room, LeaveReason::RoomDeleted);
        }
    }
}

/// Signs the room token of an admitted person.
pub(crate) fn room_token(
    keys: &KeyPair,
    consultation: &Consultation,
    person: &Person,
    ttl: Duration,
) -> String {
    let mut grant = VideoGrant::join(consultation.room_name.clone());
    match consultation.mode {
        Mode::Video => {}
        Mode::Audio => grant.can_publish_sources = vec!["microphone".to_owned()],
        Mode::Chat => {
            grant.can_publish = Some(false);
            grant.can_publish_data = Some(true);
        }
    }
    let attributes = BTreeMap::from([("role".to_owned(), person.role.as_str().to_owned())]);
    let token = RoomToken {
        identity: Private::new(person.user_id.clone()),
        name: person.name.clone(),
        metadata: Private::new(String::new()),
        attributes: Private::new(attributes),
        kind: String::new(),
        grant,
    };
    bedside_signaling::token::issue(keys, &token, ttl, SystemTime::now())
}

/// A room name that nobody can guess: 122 random bits.
pub(crate) fn new_room_name() -> String {
    format!("{ROOM_PREFIX}{}", uuid::Uuid::new_v4().simple())
}

/// Has it the form of a consultation's room? Rooms of other names are none of ours, even if they
/// begin alike.
pub(crate) fn is_consultation(room: &str) -> bool {
    let id = room.strip_prefix(ROOM_PREFIX).unwrap_or_default();
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}
