//! The room door with a real node behind it, and offers that browsers made.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bedside_sfu::core::api::{Grant, LeaveReason};
use bedside_sfu::node::{Node, NodeConfig, Outlets};
use bedside_signaling::ice::{IceServer, IceServers};
use bedside_signaling::livekit::data;
use bedside_signaling::rooms::{Doorkeeper, RoomPlan};
use bedside_signaling::{ParticipantInfo, ParticipantSid, Signaling, SignalingConfig};
use livekit_protocol as lk;
use livekit_protocol::signal_request::Message as Said;
use livekit_protocol::signal_response::Message as Tell;
use support::{Client, Door, connect, join_request, keys, resume_request, ward};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Three audio and three video sections to receive, one for data.
const JOIN_OFFER: &str = include_str!("../../sfu/tests/fixtures/chromium-join.sdp");
/// The same, a camera and a microphone.
const PUBLISH_OFFER: &str = include_str!("../../sfu/tests/fixtures/chromium-publish.sdp");
/// The tracks' ids in it.
const CAMERA: &str = "527f18e2-d9a5-4e06-8ae0-57b2862956c8";
const MICROPHONE: &str = "6425d03a-a296-4bc4-9c18-2c30604d6d35";

struct Real {
    address: SocketAddr,
    signaling: Signaling,
    door: Arc<Door>,
    relays: Arc<Relays>,
    _node: Node,
}

/// Notes what it is told, and tells everybody another name each time.
#[derive(Debug, Default)]
struct Relays {
    asked: AtomicU32,
    told: Mutex<Vec<String>>,
}

impl Relays {
    fn note(&self, what: String) {
        let mut told = self.told.lock().unwrap();
        // Told again at every change.
        if !told.contains(&what) {
            told.push(what);
        }
    }
}

impl IceServers for Relays {
    fn for_participant(&self, participant: &ParticipantSid) -> Vec<IceServer> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let username = format!("{number}:{}", participant.0);
        vec![IceServer { username, ..IceServer::default() }]
    }

    fn for_bearer(&self, room: &str, identity: &str) -> Vec<IceServer> {
        vec![IceServer { username: format!("{room}/{identity}"), ..IceServer::default() }]
    }

    fn present(&self, room: &str, participant: &ParticipantInfo) {
        self.note(format!("{} is in {room}", participant.sid.0));
    }

    fn left(&self, participant: &ParticipantSid) {
        self.note(format!("{} has left", participant.0));
    }

    fn all(&self, there: &mut dyn Iterator<Item = (&str, &ParticipantInfo)>) {
        self.note(format!("{} are there", there.count()));
    }
}

impl Real {
    async fn open() -> Self {
        let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (node, events) = Node::start(NodeConfig {
            bind: host,
            first_port: 0,
            shards: 2,
            tcp: false,
            advertise: vec![host],
            shared_tcp: None,
            outlets: Outlets::default(),
            relay: data::relay,
            commands: 1_024,
            events: 4_096,
        })
        .unwrap();
        let door = Arc::new(Door::default());
        let keeper: Arc<dyn Doorkeeper> = Arc::clone(&door) as _;
        let (facts, mut told) = mpsc::channel(1_024);
        tokio::spawn(async move { while told.recv().await.is_some() {} });
        let relays = Arc::new(Relays::default());
        let ice_servers = Arc::clone(&relays) as _;
        let config =
            SignalingConfig { keys: vec![keys()], ice_servers, ..SignalingConfig::default() };
        let signaling = Signaling::new(config, node.handle(), keeper, facts);
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = signaling.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        tokio::spawn(signaling.clone().run(events));
        Self { address, signaling, door, relays, _node: node }
    }

    /// Joins with an offer inside, as browsers do; the answer comes with it.
    async fn join(&self, identity: &str) -> (Client, lk::JoinResponse, lk::SessionDescription) {
        let publisher_offer = Some(offer(1, JOIN_OFFER));
        let request = lk::JoinRequest { publisher_offer, ..join_request() };
        let mut client = connect(self.address, &ward(identity), &request).await.unwrap();
        let Tell::Join(join) = client.next().await else { panic!("no join first") };
        let answer = client.until(answer).await;
        (client, join, answer)
    }
}

fn offer(id: u32, sdp: &str) -> lk::SessionDescription {
    lk::SessionDescription { r#type: "offer".into(), sdp: sdp.into(), id, ..Default::default() }
}

fn answer(message: Tell) -> Option<lk::SessionDescription> {
    match message {
        Tell::Answer(answer) => Some(answer),
        _ => None,
    }
}

fn camera() -> Said {
    let layer = |quality: lk::VideoQuality, width| lk::VideoLayer {
        quality: quality as i32,
        width,
        height: width * 9 / 16,
        bitrate: width * 1_000,
        ..lk::VideoLayer::default()
    };
    Said::AddTrack(lk::AddTrackRequest {
        cid: CAMERA.into(),
        r#type: lk::TrackType::Video as i32,
        source: lk::TrackSource::Camera as i32,
        width: 1280,
        height: 720,
        layers: vec![
            layer(lk::VideoQuality::Low, 320),
            layer(lk::VideoQuality::Medium, 640),
            layer(lk::VideoQuality::High, 1280),
        ],
        ..lk::AddTrackRequest::default()
    })
}

fn microphone() -> Said {
    Said::AddTrack(lk::AddTrackRequest {
        cid: MICROPHONE.into(),
        source: lk::TrackSource::Microphone as i32,
        ..lk::AddTrackRequest::default()
    })
}

fn published(message: Tell) -> Option<lk::TrackPublishedResponse> {
    match message {
        Tell::TrackPublished(published) => Some(published),
        _ => None,
    }
}

/// Waits for an update that shows somebody with so many tracks.
async fn with_tracks(client: &mut Client, identity: &str, count: usize) -> lk::ParticipantInfo {
    let fits = |message| match message {
        Tell::Update(update) => update
            .participants
            .into_iter()
            .find(|p| p.identity == identity && p.tracks.len() == count),
        _ => None,
    };
    client.until(fits).await
}

#[tokio::test]
async fn a_browsers_offer_within_the_join_is_answered() {
    let real = Real::open().await;
    let (_ann, join, answer) = real.join("ann").await;
    assert!(join.participant.unwrap().permission.unwrap().can_publish);
    assert_eq!((answer.id, answer.r#type.as_str()), (1, "answer"));
    let lines = |start: &str| answer.sdp.lines().filter(|l| l.starts_with(start)).count();
    assert_eq!(lines("m="), 7);
    assert_eq!(lines("a=ice-lite"), 1);
    assert!(lines("a=candidate:") > 0 && answer.sdp.contains("127.0.0.1"));
    assert!(answer.mid_to_track_id.is_empty());
}

#[tokio::test]
async fn published_tracks_reach_the_other_side_with_their_sections() {
    let real = Real::open().await;
    let (mut ann, ..) = real.join("ann").await;
    let (mut bob, join, _) = real.join("bob").await;
    assert_eq!(join.other_participants[0].identity, "ann");
    ann.say(camera()).await;
    ann.say(microphone()).await;
    let first = ann.until(published).await;
    let second = ann.until(published).await;
    assert_eq!((first.cid.as_str(), second.cid.as_str()), (CAMERA, MICROPHONE));
    let sids = [first, second].map(|published| published.track.unwrap().sid);
    assert!(sids[0].starts_with("TR_VC") && sids[1].starts_with("TR_AM"), "{sids:?}");
    ann.say(Said::Offer(offer(2, PUBLISH_OFFER))).await;
    assert_eq!(ann.until(answer).await.id, 2);
    // The participant is told before the sections are asked for.
    let info = with_tracks(&mut bob, "ann", 2).await;
    let video = info.tracks.iter().find(|track| track.sid == sids[0]).unwrap();
    assert!(video.mime_type.eq_ignore_ascii_case("video/vp8"), "{}", video.mime_type);
    assert!(!video.mid.is_empty() && video.codecs[0].layers.len() == 3);
    let asked = bob.until(|message| match message {
        Tell::MediaSectionsRequirement(sections) => {
            Some((sections.num_audios, sections.num_videos))
        }
        _ => None,
    });
    assert_eq!(asked.await, (0, 0), "the free sections are enough");
    bob.say(Said::Offer(offer(2, JOIN_OFFER))).await;
    let answer = bob.until(answer).await;
    let mut told: Vec<_> = answer.mid_to_track_id.values().cloned().collect();
    told.sort();
    let mut wanted = sids.to_vec();
    wanted.sort();
    assert_eq!(told, wanted);
    for sid in &sids {
        assert!(answer.sdp.contains(&format!("a=msid:{}|{sid} {sid}", info.sid)), "{}", answer.sdp);
    }
    // Who comes late gets all of it at once.
    let (_eve, join, answer) = real.join("eve").await;
    let ann_info = join.other_participants.iter().find(|p| p.identity == "ann").unwrap();
    assert_eq!(ann_info.tracks.len(), 2);
    assert_eq!(answer.mid_to_track_id.len(), 2);
}

#[tokio::test]
async fn rights_that_are_taken_away_stay_away() {
    let real = Real::open().await;
    let (mut ann, join, _) = real.join("ann").await;
    ann.say(camera()).await;
    ann.until(published).await;
    ann.say(Said::Offer(offer(2, PUBLISH_OFFER))).await;
    ann.until(answer).await;
    let mute = Grant { publish: false, publish_data: false, ..Grant::default() };
    assert!(real.signaling.update_grant("ward", "ann", mute));
    ann.until(|message| matches!(message, Tell::TrackUnpublished(_)).then_some(())).await;
    ann.until(|message| matches!(message, Tell::RefreshToken(_)).then_some(())).await;
    let me = with_tracks(&mut ann, "ann", 0).await;
    assert!(!me.permission.unwrap().can_publish);
    ann.say(camera()).await;
    let refused = ann.until(|message| match message {
        Tell::RequestResponse(response) => Some(response.reason()),
        _ => None,
    });
    assert_eq!(refused.await, lk::request_response::Reason::NotAllowed);
    // The token that was shown first still says otherwise, and counts no more.
    let sid = join.participant.unwrap().sid;
    let mut back = connect(real.address, &ward("ann"), &resume_request(&sid)).await.unwrap();
    assert!(matches!(back.next().await, Tell::Reconnect(_)));
    let me = with_tracks(&mut back, "ann", 0).await;
    assert!(!me.permission.unwrap().can_publish);
}

#[tokio::test]
async fn a_resume_without_an_answer_keeps_the_participant_and_its_tracks() {
    let real = Real::open().await;
    let (mut ann, join, _) = real.join("ann").await;
    let (mut bob, ..) = real.join("bob").await;
    ann.say(camera()).await;
    let sid = join.participant.unwrap().sid;
    let track = ann.until(published).await.track.unwrap();
    ann.say(Said::Offer(offer(2, PUBLISH_OFFER))).await;
    ann.until(answer).await;
    with_tracks(&mut bob, "ann", 1).await;
    let mut back = connect(real.address, &ward("ann"), &resume_request(&sid)).await.unwrap();
    assert!(matches!(back.next().await, Tell::Reconnect(_)));
    let me = with_tracks(&mut back, "ann", 1).await;
    assert_eq!((me.sid.as_str(), me.tracks[0].sid.as_str()), (sid.as_str(), track.sid.as_str()));
    // It believes to publish a track that nobody knows: it must join again.
    let lost = lk::TrackInfo { sid: "TR_VCgone".into(), ..Default::default() };
    let publish_tracks = vec![lk::TrackPublishedResponse { cid: "c".into(), track: Some(lost) }];
    back.say(Said::SyncState(lk::SyncState { publish_tracks, ..Default::default() })).await;
    let (reason, action, code) = back.leave().await;
    assert_eq!(reason, lk::DisconnectReason::StateMismatch as i32);
    assert_eq!((action, code), (lk::leave_request::Action::Reconnect as i32, Some(1000)));
}

#[tokio::test]
async fn an_offer_that_is_no_sdp_is_refused_and_the_next_one_works() {
    let real = Real::open().await;
    let (mut ann, ..) = real.join("ann").await;
    let (mut bob, ..) = real.join("bob").await;
    for sdp in ["", "v=0", "\u{0}\u{0}", &"m=audio 9\n".repeat(500), &JOIN_OFFER[..2_000]] {
        ann.say(Said::Offer(offer(9, sdp))).await;
    }
    ann.say(Said::Ping(1)).await;
    bob.say(Said::Ping(1)).await;
    bob.until(|message| matches!(message, Tell::Pong(_)).then_some(())).await;
    // Either the session lives on, or it was told to join again; a new one works in any case.
    let (_ann, _, answer) = real.join("ann").await;
    assert_eq!(answer.id, 1);
}

#[tokio::test]
async fn a_limit_holds_until_it_is_raised() {
    let real = Real::open().await;
    let limit = |max_participants| {
        let plan = RoomPlan { max_participants, fixed: true, ..RoomPlan::default() };
        *real.door.answer.lock().unwrap() = Some(Ok(plan));
    };
    limit(2);
    let (_ann, ..) = real.join("ann").await;
    let (_bob, ..) = real.join("bob").await;
    let refused = connect(real.address, &ward("eve"), &join_request()).await;
    assert_eq!(refused.map(|_| ()).unwrap_err(), 403);
    limit(3);
    let (_eve, join, _) = real.join("eve").await;
    assert_eq!(join.other_participants.len(), 2);
    // The same person again is not one more.
    let (_eve, join, _) = real.join("eve").await;
    assert_eq!(join.other_participants.len(), 2);
}

#[tokio::test]
async fn closing_a_room_ends_it_for_everybody() {
    let real = Real::open().await;
    let (mut ann, ..) = real.join("ann").await;
    let (mut bob, ..) = real.join("bob").await;
    assert!(real.signaling.close_room("ward", LeaveReason::RoomDeleted));
    for client in [&mut ann, &mut bob] {
        let (reason, action, code) = client.leave().await;
        assert_eq!(reason, lk::DisconnectReason::RoomDeleted as i32);
        assert_eq!((action, code), (lk::leave_request::Action::Disconnect as i32, Some(1000)));
    }
    // Its name opens a new room.
    let (_ann, join, _) = real.join("ann").await;
    assert!(join.other_participants.is_empty());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(real.signaling.size(), (1, 1));
}

#[tokio::test]
async fn relays_know_who_is_there_and_each_session_gets_fresh_names() {
    let real = Real::open().await;
    let (ann, join, _) = real.join("ann").await;
    let sid = join.participant.unwrap().sid;
    assert_eq!(join.ice_servers[0].username, format!("0:{sid}"));
    let mut back = connect(real.address, &ward("ann"), &resume_request(&sid)).await.unwrap();
    let Tell::Reconnect(again) = back.next().await else { panic!("no reconnect first") };
    assert_eq!(again.ice_servers[0].username, format!("1:{sid}"));
    drop(ann);
    assert_eq!(real.signaling.ice_servers("ward", "bob")[0].username, "ward/bob");
    let heard = |wanted: String| {
        let relays = Arc::clone(&real.relays);
        async move {
            while !relays.told.lock().unwrap().contains(&wanted) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    heard(format!("{sid} is in ward")).await;
    assert!(!real.relays.told.lock().unwrap().contains(&format!("{sid} has left")));
    assert!(real.signaling.remove("ward", "ann", LeaveReason::ParticipantRemoved));
    heard(format!("{sid} has left")).await;
    assert!(real.signaling.close_room("ward", LeaveReason::RoomDeleted));
    heard("0 are there".to_owned()).await;
}
