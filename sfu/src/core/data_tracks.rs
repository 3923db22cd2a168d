//! Data tracks: streams of frames that others ask for by name, on a channel of their own.
//!
//! A frame travels in packets that begin with a header of twelve bytes (below). What a packet belongs
//! to is said by a handle: the publisher chooses its own, and we give each track one that no other
//! track of the room has, so that one copy of a packet does for all subscribers. Nothing else of a
//! packet is read or changed: frames may be encrypted from end to end.
//!
//! ```text
//!  version:3 start:1 final:1 extension:1 spare:2 | spare:8 | handle:16 | sequence:16 | frame:16 | timestamp:32
//! ```

use bytes::{Bytes, BytesMut};
use rustc_hash::FxHashMap;
use slab::Slab;

use super::api::{
    DataChannelKind, DataHandle, DataTrack, DataTrackEvent, DataTrackInfo, Refusal, SessionEvent,
    TrackSid,
};
use super::context::Context;
use super::participant::Participant;
use super::room::Room;

/// Bytes of a header, extensions not counted.
const HEADER: usize = 12;
/// Bytes of a name at the most.
const NAME: usize = 256;
/// Where the handle stands in a packet.
const HANDLE: std::ops::Range<usize> = 2..4;

/// The data tracks of a room.
#[derive(Debug, Default)]
pub(super) struct DataTracks {
    tracks: Slab<Flow>,
    /// By the publisher's key and its handle.
    sent: FxHashMap<(usize, u16), usize>,
    /// The handle given last.
    last: u16,
}

/// One data track.
#[derive(Debug)]
struct Flow {
    owner: usize,
    info: DataTrackInfo,
    /// Names it in packets to subscribers.
    handle: u16,
    /// Keys of the participants that receive it.
    subscribers: Vec<usize>,
}

impl DataTracks {
    /// The tracks of a participant as others see them.
    pub(super) fn of(&self, owner: usize) -> Vec<DataTrackInfo> {
        let own = self.tracks.iter().filter(|(_, flow)| flow.owner == owner);
        own.map(|(_, flow)| flow.info.clone()).collect()
    }

    /// Whether a participant publishes a track of this id.
    pub(super) fn owns(&self, owner: usize, sid: &TrackSid) -> bool {
        self.tracks.iter().any(|(_, flow)| flow.owner == owner && flow.info.sid == *sid)
    }

    /// A participant is gone, with all that it published and received.
    pub(super) fn forget(&mut self, key: usize) {
        self.tracks.retain(|_, flow| flow.owner != key);
        self.sent.retain(|(owner, _), _| *owner != key);
        for (_, flow) in &mut self.tracks {
            flow.subscribers.retain(|subscriber| *subscriber != key);
        }
    }

    /// Whether a track can be taken in; there is room for it.
    fn refuses(&self, owner: usize, track: &DataTrack) -> Option<Refusal> {
        let (name, handle) = (track.name.reveal(), track.handle);
        let mut own = self.tracks.iter().filter(|(_, flow)| flow.owner == owner);
        if handle == 0 {
            Some(Refusal::InvalidHandle)
        } else if self.sent.contains_key(&(owner, handle)) {
            Some(Refusal::DuplicateHandle)
        } else if name.is_empty() || name.len() > NAME {
            Some(Refusal::InvalidName)
        } else if own.any(|(_, flow)| flow.info.announced.name.reveal() == name) {
            Some(Refusal::DuplicateName)
        } else {
            None
        }
    }

    fn put(&mut self, owner: usize, info: DataTrackInfo) {
        let sent = (owner, info.announced.handle);
        let handle = self.free_handle();
        let at = self.tracks.insert(Flow { owner, info, handle, subscribers: Vec::new() });
        self.sent.insert(sent, at);
    }

    /// A handle that no track has; 0 names none.
    fn free_handle(&mut self) -> u16 {
        loop {
            self.last = self.last.wrapping_add(1).max(1);
            if self.tracks.iter().all(|(_, flow)| flow.handle != self.last) {
                return self.last;
            }
        }
    }

    fn take(&mut self, owner: usize, handle: u16) -> Option<DataTrackInfo> {
        let at = self.sent.remove(&(owner, handle))?;
        self.tracks.try_remove(at).map(|flow| flow.info)
    }
}

impl Room {
    /// A client publishes a data track.
    pub(super) fn publish_data_track(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        announced: DataTrack,
    ) {
        let Some(participant) = self.participants.get(key) else { return };
        let refusal = if !participant.grant.publish_data {
            Some(Refusal::NotAllowed)
        } else if self.data_tracks.of(key).len() >= ctx.config.limits.tracks
            || self.data_tracks.tracks.len() >= usize::from(u16::MAX)
        {
            Some(Refusal::LimitExceeded)
        } else {
            self.data_tracks.refuses(key, &announced)
        };
        let session = participant.session;
        if let Some(refusal) = refusal {
            let announced = Box::new(announced);
            return ctx.tell(
                session,
                SessionEvent::DataTrack(DataTrackEvent::Refused { announced, refusal }),
            );
        }
        let info = DataTrackInfo { sid: TrackSid(ctx.sid("DTR_")), announced };
        self.data_tracks.put(key, info.clone());
        ctx.tell(session, SessionEvent::DataTrack(DataTrackEvent::Published(info)));
        self.announce(ctx, key);
        self.reconcile_data(ctx);
    }

    /// A client takes one of its data tracks back.
    pub(super) fn unpublish_data_track(&mut self, ctx: &mut Context<'_>, key: usize, handle: u16) {
        let taken = self.data_tracks.take(key, handle);
        let Some(participant) = self.participants.get(key) else { return };
        let Some(info) = taken else {
            return ctx.tell(
                participant.session,
                SessionEvent::DataTrack(DataTrackEvent::Unknown { handle }),
            );
        };
        ctx.tell(participant.session, SessionEvent::DataTrack(DataTrackEvent::Unpublished(info)));
        self.announce(ctx, key);
    }

    /// All data tracks of a participant are taken away.
    pub(super) fn end_data_tracks(&mut self, ctx: &mut Context<'_>, key: usize) {
        let session = self.participants.get(key).and_then(|other| other.session);
        for info in self.data_tracks.of(key) {
            self.data_tracks.take(key, info.announced.handle);
            ctx.tell(session, SessionEvent::DataTrack(DataTrackEvent::Unpublished(info)));
        }
    }

    /// A client says which data tracks it wants. Those that are not there (yet) are remembered.
    pub(super) fn subscribe_data(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        tracks: Vec<(TrackSid, bool)>,
    ) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        let wanted = &mut participant.wants.data;
        for (sid, wants) in tracks {
            if !wants {
                wanted.remove(&sid);
            } else if wanted.len() < ctx.config.limits.remembered_tracks {
                wanted.insert(sid);
            }
        }
        self.settle_data(key);
        self.tell_handles(ctx, key);
    }

    /// Brings wishes, rights and permissions together, and tells those for whom something changed.
    pub(super) fn reconcile_data(&mut self, ctx: &mut Context<'_>) {
        let everyone: Vec<usize> = self.participants.iter().map(|(key, _)| key).collect();
        for key in everyone {
            if self.settle_data(key) {
                self.tell_handles(ctx, key);
            }
        }
    }

    /// Makes and ends a participant's subscriptions of data tracks; whether one was made.
    fn settle_data(&mut self, key: usize) -> bool {
        let Some(person) = self.participants.get(key) else { return false };
        let mut made = false;
        for (_, flow) in &mut self.data_tracks.tracks {
            let owner = self.participants.get(flow.owner);
            let may = owner.is_some_and(|owner| flow.owner != key && receives(person, owner, flow));
            let has = flow.subscribers.contains(&key);
            if may && !has {
                flow.subscribers.push(key);
                made = true;
            } else if has && !may {
                flow.subscribers.retain(|other| *other != key);
            }
        }
        made
    }

    /// Tells a session again what the data tracks that it receives are named by.
    pub(super) fn repeat_handles(&mut self, ctx: &mut Context<'_>, key: usize) {
        let receives = |flow: &Flow| flow.subscribers.contains(&key);
        if self.data_tracks.tracks.iter().any(|(_, flow)| receives(flow)) {
            self.tell_handles(ctx, key);
        }
    }

    fn tell_handles(&mut self, ctx: &mut Context<'_>, key: usize) {
        // Whose tracks they are must be known before.
        self.tell_news_to(ctx, key);
        let received = self.data_tracks.tracks.iter().filter_map(|(_, flow)| {
            let owner = self.participants.get(flow.owner)?;
            flow.subscribers.contains(&key).then(|| DataHandle {
                handle: flow.handle,
                participant: owner.sid.clone(),
                identity: owner.profile.identity.clone(),
                track: flow.info.sid.clone(),
            })
        });
        let handles = received.collect();
        let session = self.participants.get(key).and_then(|other| other.session);
        ctx.tell(session, SessionEvent::DataTrack(DataTrackEvent::Handles(handles)));
    }

    /// A packet of a data track came: to all who receive it.
    pub(super) fn data_packet(&mut self, ctx: &mut Context<'_>, key: usize, payload: Bytes) {
        ctx.counters.data_in += 1;
        let flow = handle_of(&payload)
            .and_then(|handle| self.data_tracks.sent.get(&(key, handle)).copied())
            .and_then(|at| self.data_tracks.tracks.get(at));
        let Some(flow) = flow else {
            ctx.counters.data_dropped += 1;
            return;
        };
        // The peer gives its only copy away, so this is no copy of it.
        let mut packet =
            payload.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        if let Some(place) = packet.get_mut(HANDLE) {
            place.copy_from_slice(&flow.handle.to_be_bytes());
        }
        let packet = packet.freeze();
        let mut due = None;
        for subscriber in &flow.subscribers {
            let link = self.participants.get_mut(*subscriber);
            let Some(link) = link.and_then(|other| other.links.down.as_mut()) else { continue };
            match link.peer.send_data(ctx.now, DataChannelKind::Track, &packet) {
                Ok(()) => ctx.counters.data_out += 1,
                Err(_) => ctx.counters.data_dropped += 1,
            }
            link.flush(ctx.departures, ctx.counters);
            due = due.into_iter().chain(link.peer.poll_timeout()).min();
        }
        if let Some(at) = due {
            self.wake(at);
        }
    }
}

/// Whether somebody is to get the data track of somebody else.
fn receives(person: &Participant, owner: &Participant, flow: &Flow) -> bool {
    let sid = &flow.info.sid;
    person.wants.data.contains(sid)
        && person.grant.subscribe
        && !owner.grant.hidden
        && owner.audience.admits(person, sid)
        && !(person.grant.recorder && flow.info.announced.encryption != 0)
}

/// The handle in a packet's header. `None`: too short, or of a version that we do not know.
fn handle_of(packet: &[u8]) -> Option<u16> {
    let known = packet.len() >= HEADER && packet.first()? >> 5 == 0;
    let handle = packet.get(HANDLE).filter(|_| known)?.first_chunk()?;
    Some(u16::from_be_bytes(*handle))
}

#[cfg(test)]
mod tests {
    use super::super::api::Private;
    use super::*;

    fn track(handle: u16, name: &str) -> DataTrack {
        DataTrack { handle, name: Private(name.to_owned()), ..DataTrack::default() }
    }

    fn put(tracks: &mut DataTracks, owner: usize, handle: u16) {
        let sid = TrackSid(format!("DTR_{owner}_{handle}").into());
        tracks.put(owner, DataTrackInfo { sid, announced: track(handle, &handle.to_string()) });
    }

    #[test]
    fn a_name_and_a_handle_are_used_once_by_one_publisher() {
        let mut tracks = DataTracks::default();
        put(&mut tracks, 1, 7);
        assert_eq!(tracks.refuses(1, &track(7, "x")), Some(Refusal::DuplicateHandle));
        assert_eq!(tracks.refuses(1, &track(8, "7")), Some(Refusal::DuplicateName));
        assert_eq!(tracks.refuses(1, &track(0, "x")), Some(Refusal::InvalidHandle));
        assert_eq!(tracks.refuses(1, &track(8, "")), Some(Refusal::InvalidName));
        assert_eq!(tracks.refuses(1, &track(8, &"x".repeat(257))), Some(Refusal::InvalidName));
        assert_eq!(tracks.refuses(1, &track(8, "x")), None);
        assert_eq!(tracks.refuses(2, &track(7, "7")), None, "another publisher's are its own");
        assert!(tracks.take(1, 7).is_some() && tracks.take(1, 7).is_none());
        assert_eq!(tracks.refuses(1, &track(7, "7")), None);
    }

    #[test]
    fn handles_towards_subscribers_are_given_to_one_track_only() {
        let mut tracks = DataTracks { last: u16::MAX - 2, ..DataTracks::default() };
        for handle in 1..=4 {
            put(&mut tracks, 1, handle);
            put(&mut tracks, 2, handle);
        }
        let mut given: Vec<u16> = tracks.tracks.iter().map(|(_, flow)| flow.handle).collect();
        given.sort_unstable();
        assert_eq!(given, [1, 2, 3, 4, 5, 6, u16::MAX - 1, u16::MAX]);
        tracks.forget(1);
        assert_eq!((tracks.of(1).len(), tracks.of(2).len(), tracks.sent.len()), (0, 4, 4));
    }

    #[test]
    fn headers_that_are_none_name_nothing() {
        let mut packet = [0x18, 0, 0x12, 0x34, 0, 1, 0, 2, 0, 0, 0, 3, 0xAA];
        assert_eq!(handle_of(&packet), Some(0x1234));
        assert_eq!(handle_of(&packet[..12]), Some(0x1234));
        assert_eq!(handle_of(&packet[..11]), None);
        packet[0] |= 0x20;
        assert_eq!(handle_of(&packet), None, "a version to come");
        assert_eq!(handle_of(&[]), None);
    }
}
