//! The server under test: the node as it is shipped, with a pipe where the doors would be.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;

use anyhow::{Context as _, Result};
use bedside_sfu::core::api::{
    AddTrack, ClientTraits, Command, DataChannelKind, DataSender, Event, Grant, Join, MediaKind,
    Private, Profile, Relayed, Request, RoomKey, RoomSpec, SessionEvent, SessionKey, Source,
};
use bedside_sfu::node::{Node, NodeConfig, NodeHandle, Outlets};

use crate::process::{Ask, Cost, Tell, asked, pin, tell};

/// Runs as the child.
pub fn run() -> Result<()> {
    pin(0);
    let (node, mut events) = Node::start(NodeConfig {
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        first_port: 0,
        shards: 1,
        tcp: false,
        advertise: Vec::new(),
        shared_tcp: None,
        outlets: Outlets::default(),
        relay: no_data,
        commands: 4_096,
        events: 65_536,
    })?;
    let port = *node.ports().first().context("a node has a port")?;
    tell(&Tell::Ready { port })?;
    thread::spawn(move || {
        while let Some(event) = events.blocking_recv() {
            if let Event::Session { session, event } = event
                && let Some(line) = translate(session.0, event)
                && tell(&line).is_err()
            {
                return;
            }
        }
    });
    let handle = node.handle();
    for ask in asked() {
        serve(&handle, ask?)?;
    }
    node.stop();
    Ok(())
}

fn serve(handle: &NodeHandle, ask: Ask) -> Result<()> {
    let (room, command) = match ask {
        Ask::Open { room } => (room, Command::OpenRoom(Box::new(open(room)))),
        Ask::Join { room, session } => (room, Command::Join(Box::new(join(room, session)))),
        Ask::AddTrack { room, session, audio, cid } => {
            let request = add_track(audio, cid);
            (room, Command::Request { session: SessionKey(session), request })
        }
        Ask::Offer { room, session, id, sdp } => {
            let request = Request::Offer { id, sdp };
            (room, Command::Request { session: SessionKey(session), request })
        }
        Ask::Report => {
            let counters = handle.counters();
            let (packets_in, packets_out) = (counters.rtp_packets_in, counters.rtp_packets_out);
            let (failures, turns) = (counters.send_failures, counters.turns);
            return tell(&Tell::Report(Cost::now(packets_in, packets_out, failures, turns)?));
        }
        Ask::Routes(_) => anyhow::bail!("the server needs no routes"),
    };
    handle.send(RoomKey(room), command)?;
    Ok(())
}

fn translate(session: u64, event: SessionEvent) -> Option<Tell> {
    match event {
        SessionEvent::Joined { .. } => Some(Tell::Joined { session }),
        SessionEvent::Answer { sdp, .. } => Some(Tell::Answer { session, sdp }),
        SessionEvent::SectionsNeeded { audio, video } => {
            Some(Tell::Sections { session, audio, video })
        }
        SessionEvent::Refused(refusal) => {
            Some(Tell::Refused { what: format!("session {session}: {refusal}") })
        }
        SessionEvent::TrackRefused { refusal, .. } => {
            Some(Tell::Refused { what: format!("a track of session {session}: {refusal}") })
        }
        SessionEvent::Left { reason, .. } => {
            Some(Tell::Refused { what: format!("session {session} was ended: {reason:?}") })
        }
        SessionEvent::SubscriptionFailed { track, .. } => {
            Some(Tell::Refused { what: format!("subscription of {session} to {track:?}") })
        }
        // Its clients have one connection.
        SessionEvent::Offer { .. }
        | SessionEvent::Resumed { .. }
        | SessionEvent::Participants(_)
        | SessionEvent::TrackPublished { .. }
        | SessionEvent::TrackUnpublished { .. }
        | SessionEvent::TrackSubscribed { .. }
        | SessionEvent::SubscriptionAllowed { .. }
        | SessionEvent::MuteRequested { .. }
        | SessionEvent::ProfileUpdated { .. }
        | SessionEvent::GrantChanged(_)
        | SessionEvent::Speakers(_)
        | SessionEvent::SubscribedQuality { .. }
        | SessionEvent::StreamState { .. }
        | SessionEvent::Quality(_)
        | SessionEvent::DataTrack(_)
        | SessionEvent::Room(_) => None,
    }
}

/// A room to open.
pub fn open(room: u64) -> RoomSpec {
    RoomSpec {
        room: RoomKey(room),
        name: Private::new(format!("room {room}")),
        metadata: Private::default(),
        max_participants: 0,
        empty_timeout: None,
        departure_timeout: None,
        playout_delay: None,
    }
}

/// A person who comes in.
pub fn join(room: u64, session: u64) -> Join {
    let identity = Private::new(format!("person {session}"));
    Join {
        room: RoomKey(room),
        session: SessionKey(session),
        profile: Profile { identity, ..Profile::default() },
        grant: Grant::default(),
        auto_subscribe: true,
        adaptive_stream: false,
        allow_pause: true,
        client: ClientTraits::default(),
    }
}

/// The announcement of a track.
pub fn add_track(audio: bool, cid: String) -> Request {
    let (kind, source, width, height) = if audio {
        (MediaKind::Audio, Source::Microphone, 0, 0)
    } else {
        (MediaKind::Video, Source::Camera, 1_280, 720)
    };
    Request::AddTrack(Box::new(AddTrack {
        cid,
        name: Private::default(),
        kind,
        source,
        muted: false,
        width,
        height,
        layers: Vec::new(),
        codecs: Vec::new(),
        backup_of: None,
        stream: String::new(),
        disable_dtx: false,
        disable_red: false,
        stereo: false,
        encryption: 0,
        audio_features: Vec::new(),
        backup_codec_policy: 0,
    }))
}

/// Relays no data message.
pub fn no_data(_: &DataSender<'_>, _: DataChannelKind, _: &[u8]) -> Option<Relayed> {
    None
}
