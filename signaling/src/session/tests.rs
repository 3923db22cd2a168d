//! The session machine in virtual time: no socket, no engine.

use bedside_sfu::core::api::{
    AddTrack, DataHandle, DataTrackEvent, DataTrackInfo, MediaKind, Private, QualityLevel, RoomSid,
    Source, Speaker, TrackInfo, TrackSid, Unreceived,
};
use livekit_protocol::request_response::Request as Echo;
use livekit_protocol::signal_request::Message as Said;

use super::*;

struct Rig {
    session: Session,
    start: Instant,
}

impl Rig {
    fn new(opening: Opening) -> Self {
        // Far from the epoch, so that instants before it exist.
        let start = Instant::now() + Duration::from_secs(1_000);
        Self { session: Session::new(start, opening), start }
    }

    fn open() -> Self {
        let mut rig = Self::new(opening());
        rig.session.handle_event(rig.start, joined());
        rig.outputs();
        rig
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn say(&mut self, message: Said) -> Vec<Output> {
        let bytes = lk::SignalRequest { message: Some(message) }.encode_to_vec();
        self.session.handle_message(self.start, &bytes);
        self.outputs()
    }

    fn tell(&mut self, event: SessionEvent) -> Vec<Output> {
        self.session.handle_event(self.start, event);
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.session.poll()).collect()
    }
}

fn opening() -> Opening {
    Opening { ping_interval: 5, ping_timeout: 15, wall_ms: 1_000_000, ..Opening::default() }
}

fn resuming() -> Opening {
    Opening { resume: Some(ParticipantSid("PA_me".into())), ..opening() }
}

fn person(sid: &str) -> ParticipantInfo {
    let identity = Private::new(sid.to_lowercase());
    ParticipantInfo {
        sid: ParticipantSid(sid.into()),
        profile: Arc::new(Profile { identity, ..Profile::default() }),
        grant: Grant::default(),
        state: ParticipantState::Joined,
        tracks: Vec::new(),
        data_tracks: Vec::new(),
        joined_at_ms: 1,
        version: 1,
    }
}

fn ward() -> RoomInfo {
    RoomInfo {
        sid: RoomSid("RM_1".into()),
        name: Private::new("ward".into()),
        metadata: Private::default(),
        max_participants: 2,
        created_at_ms: 1,
        participants: 1,
        publishers: 1,
        empty_timeout: Some(Duration::from_secs(300)),
        departure_timeout: Some(Duration::from_secs(20)),
        recording: false,
    }
}

fn joined() -> SessionEvent {
    SessionEvent::Joined { room: ward(), me: person("PA_me"), others: vec![person("PA_bob")] }
}

fn resumed() -> SessionEvent {
    let participants = vec![person("PA_bob"), person("PA_me")];
    SessionEvent::Resumed { last_data_sequence: 7, room: ward(), participants }
}

fn announced() -> AddTrack {
    convert::add_track(lk::AddTrackRequest { cid: "c1".into(), ..Default::default() }).unwrap()
}

/// The messages among the outputs.
fn told(outputs: &[Output]) -> Vec<Tell> {
    let messages = outputs.iter().filter_map(|output| match output {
        Output::Tell(message) => message.message.clone(),
        _ => None,
    });
    messages.collect()
}

/// The requests among the outputs.
fn asked(outputs: &[Output]) -> Vec<Request> {
    let requests = outputs.iter().filter_map(|output| match output {
        Output::Ask(request) => Some(request.clone()),
        _ => None,
    });
    requests.collect()
}

fn tallies(outputs: &[Output]) -> Vec<Tally> {
    let tallies = outputs.iter().filter_map(|output| match output {
        Output::Count(tally) => Some(*tally),
        _ => None,
    });
    tallies.collect()
}

fn leave(outputs: &[Output]) -> (i32, i32) {
    match told(outputs).last() {
        Some(Tell::Leave(leave)) => (leave.reason, leave.action),
        other => panic!("no leave but {other:?}"),
    }
}

#[test]
fn a_join_is_answered_by_join_then_a_token_then_what_came_within() {
    let mut rig = Rig::new(Opening {
        add_tracks: vec![lk::AddTrackRequest { cid: "c1".into(), ..Default::default() }],
        offer: Some(lk::SessionDescription { sdp: "v=0".into(), id: 3, ..Default::default() }),
        ..opening()
    });
    assert!(rig.outputs().is_empty());
    let outputs = rig.tell(joined());
    let Some(Output::Speaks(me)) = outputs.first() else { panic!() };
    assert_eq!(&*me.0, "PA_me");
    let messages = told(&outputs);
    let [Tell::Join(join)] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(validate::join(join), Ok(()));
    assert_eq!((join.ping_interval, join.ping_timeout), (5, 15));
    assert_eq!(join.other_participants[0].sid, "PA_bob");
    assert_eq!(join.server_info.as_ref().unwrap().version, SERVER_VERSION);
    let position = |wanted: fn(&Output) -> bool| outputs.iter().position(wanted).unwrap();
    let join_at = position(|o| matches!(o, Output::Tell(_)));
    let token_at = position(|o| matches!(o, Output::FreshToken(..)));
    let track_at = position(|o| matches!(o, Output::Ask(Request::AddTrack(_))));
    let offer_at = position(|o| matches!(o, Output::Ask(Request::Offer { id: 3, .. })));
    assert!(join_at < token_at && token_at < track_at && track_at < offer_at);
}

#[test]
fn who_has_two_connections_is_offered_the_one_it_receives_on() {
    for publishes in [true, false] {
        let mut rig = Rig::new(Opening { two_connections: true, ..opening() });
        let SessionEvent::Joined { room, mut me, others } = joined() else { panic!() };
        (me.grant.publish, me.grant.publish_data) = (publishes, publishes);
        let outputs = rig.tell(SessionEvent::Joined { room, me, others });
        let [Tell::Join(join)] = &told(&outputs)[..] else { panic!() };
        assert!(join.subscriber_primary);
        assert_eq!(join.fast_publish, publishes);
        let carried = vec![("1".into(), TrackSid("TR_1".into()))];
        let offer = SessionEvent::Offer { id: 7, sdp: "v=0".into(), mid_to_track: carried };
        let [Tell::Offer(offer)] = &told(&rig.tell(offer))[..] else { panic!() };
        assert_eq!((offer.id, offer.r#type.as_str(), offer.sdp.as_str()), (7, "offer", "v=0"));
        assert_eq!(offer.mid_to_track_id["1"], "TR_1");
        let answer = lk::SessionDescription { sdp: "v=1".into(), id: 7, ..Default::default() };
        let said = asked(&rig.say(Said::Answer(answer)));
        assert!(matches!(&said[..], [Request::Answer { id: 7, sdp }] if sdp == "v=1"));
        let sdp = "v".repeat(limits::SDP + 1);
        let long = lk::SessionDescription { sdp, id: 8, ..Default::default() };
        let outputs = rig.say(Said::Answer(long));
        assert_eq!(tallies(&outputs), [Tally::OverLimit]);
        assert!(asked(&outputs).is_empty());
    }
    let outputs = Rig::new(opening()).tell(joined());
    let [Tell::Join(join)] = &told(&outputs)[..] else { panic!() };
    assert!(!join.subscriber_primary && !join.fast_publish, "one connection has no other");
}

#[test]
fn nothing_goes_out_before_the_first_message() {
    let mut rig = Rig::new(opening());
    let outputs = rig.say(Said::PingReq(lk::Ping::default()));
    assert_eq!((told(&outputs).len(), tallies(&outputs)), (0, vec![Tally::Unknown]));
    assert!(told(&rig.tell(SessionEvent::Participants(vec![person("PA_bob")]))).is_empty());
    rig.session.handle_text(rig.start);
    assert!(told(&rig.outputs()).is_empty());
    let messages = told(&rig.tell(joined()));
    assert!(matches!(messages[0], Tell::Join(_)));
}

#[test]
fn a_join_that_a_client_would_not_bear_is_held_back() {
    let mut rig = Rig::new(Opening { ping_interval: 0, ..opening() });
    let outputs = rig.tell(joined());
    assert_eq!(tallies(&outputs), [Tally::InvalidJoin]);
    assert_eq!(leave(&outputs), (lk::DisconnectReason::JoinFailure as i32, 0));
    assert!(matches!(asked(&outputs)[..], [Request::Leave]));
    assert!(rig.session.is_ended());
}

#[test]
fn a_resume_is_answered_by_reconnect_then_everyone() {
    let sync_state = Some(lk::SyncState::default());
    let mut rig = Rig::new(Opening { sync_state, ..resuming() });
    let outputs = rig.tell(resumed());
    assert_eq!(tallies(&outputs), [Tally::Resumed]);
    let messages = told(&outputs);
    let [Tell::Reconnect(reconnect), Tell::Update(update), Tell::RoomUpdate(_)] = &messages[..]
    else {
        panic!("{messages:?}")
    };
    assert_eq!(reconnect.last_message_seq, 7);
    let sids: Vec<_> = update.participants.iter().map(|p| p.sid.as_str()).collect();
    assert_eq!(sids, ["PA_bob", "PA_me"]);
    assert!(outputs.iter().any(|o| matches!(o, Output::FreshToken(..))));
    assert!(outputs.iter().any(|o| matches!(o, Output::Speaks(me) if &*me.0 == "PA_me")));
    assert!(matches!(asked(&outputs)[..], [Request::SyncState { .. }]));
}

#[test]
fn a_resume_without_its_participant_becomes_a_join() {
    for event in [
        SessionEvent::Refused(Refusal::NoParticipant),
        SessionEvent::Refused(Refusal::NoRoom),
        SessionEvent::Resumed { last_data_sequence: 0, room: ward(), participants: Vec::new() },
    ] {
        let mut rig = Rig::new(resuming());
        let outputs = rig.tell(event);
        let reconnect = lk::leave_request::Action::Reconnect as i32;
        assert_eq!(leave(&outputs), (lk::DisconnectReason::StateMismatch as i32, reconnect));
        assert_eq!(told(&outputs).len(), 1, "the leave is the first message");
    }
}

#[test]
fn a_refused_join_or_a_revoked_resume_is_final() {
    let mut rig = Rig::new(opening());
    let outputs = rig.tell(SessionEvent::Refused(Refusal::RoomFull));
    assert_eq!(leave(&outputs), (lk::DisconnectReason::JoinFailure as i32, 0));
    let mut rig = Rig::new(resuming());
    let outputs = rig.tell(SessionEvent::Refused(Refusal::NotAllowed));
    assert_eq!(leave(&outputs), (lk::DisconnectReason::ParticipantRemoved as i32, 0));
}

#[test]
fn a_silent_engine_fails_the_join_before_the_client_gives_up() {
    let mut rig = Rig::new(opening());
    assert_eq!(rig.session.poll_timeout(), Some(rig.at(4_000)));
    rig.session.handle_timeout(rig.at(3_999));
    assert!(rig.outputs().is_empty());
    rig.session.handle_timeout(rig.at(4_000));
    assert_eq!(leave(&rig.outputs()).1, lk::leave_request::Action::Reconnect as i32);
}

#[test]
fn requests_of_the_client_reach_the_engine() {
    let mut rig = Rig::open();
    let offer = lk::SessionDescription { sdp: "v=0".into(), id: 9, ..Default::default() };
    let asked = asked(
        &[
            rig.say(Said::Offer(offer)),
            rig.say(Said::AddTrack(lk::AddTrackRequest::default())),
            rig.say(Said::Mute(lk::MuteTrackRequest { sid: "TR_1".into(), muted: true })),
            rig.say(Said::Subscription(lk::UpdateSubscription::default())),
            rig.say(Said::TrackSetting(lk::UpdateTrackSettings::default())),
            rig.say(Said::SubscriptionPermission(lk::SubscriptionPermission::default())),
            rig.say(Said::SyncState(lk::SyncState::default())),
            rig.say(Said::UpdateMetadata(lk::UpdateParticipantMetadata::default())),
            rig.say(Said::UpdateAudioTrack(lk::UpdateLocalAudioTrack::default())),
            rig.say(Said::UpdateVideoTrack(lk::UpdateLocalVideoTrack::default())),
            rig.say(Said::Trickle(lk::TrickleRequest::default())),
        ]
        .concat(),
    );
    let [
        Request::Offer { id: 9, .. },
        Request::AddTrack(_),
        Request::Mute { muted: true, .. },
        Request::Subscribe { .. },
        Request::TrackSettings { .. },
        Request::SubscriptionPermission { .. },
        Request::SyncState { .. },
        Request::UpdateProfile { .. },
        Request::UpdateTrack { audio_features: Some(_), size: None, .. },
        Request::UpdateTrack { audio_features: None, size: Some(_), .. },
    ] = &asked[..]
    else {
        panic!("{asked:#?}")
    };
}

#[test]
fn pings_are_answered_with_our_clock() {
    let mut rig = Rig::open();
    let at = rig.at(1_500);
    let ping = Said::PingReq(lk::Ping { timestamp: 42, rtt: 0 });
    let bytes = lk::SignalRequest { message: Some(ping) }.encode_to_vec();
    rig.session.handle_message(at, &bytes);
    let bytes = lk::SignalRequest { message: Some(Said::Ping(42)) }.encode_to_vec();
    rig.session.handle_message(at, &bytes);
    let messages = told(&rig.outputs());
    let pong = lk::Pong { last_ping_timestamp: 42, timestamp: 1_001_500 };
    assert_eq!(messages, [Tell::PongResp(pong), Tell::Pong(1_001_500)]);
}

#[test]
fn what_the_engine_tells_reaches_the_client() {
    let mut rig = Rig::open();
    let track = || TrackSid("TR_1".into());
    let info = TrackInfo {
        sid: track(),
        muted: false,
        mid: String::new(),
        mime_type: String::new(),
        simulcast: false,
        announced: announced(),
    };
    let participant = || ParticipantSid("PA_bob".into());
    let speaker = Speaker { participant: participant(), level: 0.5, active: true };
    let events = vec![
        SessionEvent::Answer {
            id: 4,
            sdp: "v=0".into(),
            mid_to_track: vec![("3".into(), track())],
        },
        SessionEvent::SectionsNeeded { audio: 1, video: 2 },
        SessionEvent::Participants(vec![person("PA_bob")]),
        SessionEvent::TrackPublished { cid: "c1".into(), track: info },
        SessionEvent::TrackUnpublished { track: track() },
        SessionEvent::TrackSubscribed { track: track() },
        SessionEvent::SubscriptionAllowed {
            participant: participant(),
            track: track(),
            allowed: false,
        },
        SessionEvent::SubscriptionFailed { track: track(), why: Unreceived::Codec },
        SessionEvent::MuteRequested { track: track(), muted: true },
        SessionEvent::Speakers(vec![speaker]),
        SessionEvent::SubscribedQuality {
            track: track(),
            codecs: vec![("vp8".into(), [true, false, false])],
        },
        SessionEvent::StreamState { participant: participant(), track: track(), paused: true },
        SessionEvent::Quality(vec![(participant(), QualityLevel::Good, 3.5)]),
        SessionEvent::Room(ward()),
    ];
    let outputs: Vec<_> = events.into_iter().flat_map(|event| rig.tell(event)).collect();
    let messages = told(&outputs);
    let [
        Tell::Answer(answer),
        Tell::MediaSectionsRequirement(sections),
        Tell::Update(_),
        Tell::TrackPublished(published),
        Tell::TrackUnpublished(_),
        Tell::TrackSubscribed(_),
        Tell::SubscriptionPermissionUpdate(permission),
        Tell::SubscriptionResponse(failed),
        Tell::Mute(_),
        Tell::SpeakersChanged(_),
        Tell::SubscribedQualityUpdate(wanted),
        Tell::StreamStateUpdate(states),
        Tell::ConnectionQuality(qualities),
        Tell::RoomUpdate(_),
    ] = &messages[..]
    else {
        panic!("{messages:#?}")
    };
    assert_eq!((answer.id, answer.r#type.as_str()), (4, "answer"));
    assert_eq!(answer.mid_to_track_id["3"], "TR_1");
    assert_eq!((sections.num_audios, sections.num_videos), (1, 2));
    assert_eq!(published.cid, "c1");
    assert!(!permission.allowed);
    assert_eq!(failed.err(), lk::SubscriptionError::SeCodecUnsupported);
    assert_eq!(wanted.track_sid, "TR_1");
    assert_eq!(states.stream_states[0].state(), lk::StreamState::Paused);
    assert_eq!(qualities.updates[0].quality(), lk::ConnectionQuality::Good);
}

#[test]
fn a_client_that_leaves_gets_its_leave_back() {
    let mut rig = Rig::open();
    let outputs = rig.say(Said::Leave(lk::LeaveRequest::default()));
    assert!(matches!(asked(&outputs)[..], [Request::Leave]));
    assert_eq!(leave(&outputs), (lk::DisconnectReason::ClientInitiated as i32, 0));
    assert!(matches!(outputs.last(), Some(Output::End)));
    // What comes after is not for anybody.
    assert!(rig.say(Said::Ping(1)).is_empty());
    assert!(rig.tell(SessionEvent::Room(ward())).is_empty());
    let left = SessionEvent::Left { reason: LeaveReason::ClientInitiated, resume: false };
    assert!(rig.tell(left).is_empty());
    assert_eq!(rig.session.poll_timeout(), None);
}

#[test]
fn a_removal_says_why_and_ends() {
    let reason = LeaveReason::DuplicateIdentity;
    let outputs = Rig::open().tell(SessionEvent::Left { reason, resume: false });
    assert_eq!(leave(&outputs), (lk::DisconnectReason::DuplicateIdentity as i32, 0));
    let reason = LeaveReason::ConnectionTimeout;
    let outputs = Rig::open().tell(SessionEvent::Left { reason, resume: true });
    let resume = lk::leave_request::Action::Resume as i32;
    assert_eq!(leave(&outputs), (lk::DisconnectReason::ConnectionTimeout as i32, resume));
}

#[test]
fn a_superseded_session_ends_without_a_word() {
    let mut rig = Rig::open();
    rig.session.end();
    assert!(matches!(rig.outputs()[..], [Output::End]));
}

#[test]
fn malformed_messages_are_counted_and_borne_up_to_a_limit() {
    let mut rig = Rig::open();
    for _ in 1..limits::MALFORMED {
        rig.session.handle_message(rig.start, b"\xff\xff\xff");
        assert_eq!(tallies(&rig.outputs()), [Tally::Malformed]);
    }
    assert!(!rig.say(Said::Ping(1)).is_empty(), "the session lives");
    rig.session.handle_message(rig.start, b"\xff");
    assert_eq!(leave(&rig.outputs()).1, lk::leave_request::Action::Disconnect as i32);
}

#[test]
fn unknown_messages_of_the_future_do_no_harm() {
    let mut rig = Rig::open();
    for bytes in [&b""[..], b"\xc2\x3e\x03abc", b"\x80\x08\x01"] {
        rig.session.handle_message(rig.start, bytes);
        let outputs = rig.outputs();
        assert_eq!((tallies(&outputs), outputs.len()), (vec![Tally::Unknown], 1));
    }
    assert!(!rig.session.is_ended());
}

#[test]
fn what_is_not_served_is_said_so() {
    let mut rig = Rig::open();
    let outputs = rig.say(Said::StoreDataBlobRequest(lk::StoreDataBlobRequest::default()));
    let [Tell::RequestResponse(response)] = &told(&outputs)[..] else { panic!() };
    assert_eq!(response.reason(), Reason::UnsupportedType);
    let request = lk::StoreDataBlobRequest { request_id: 5, ..Default::default() };
    let outputs = rig.say(Said::StoreDataBlobRequest(request));
    let [Tell::RequestResponse(response)] = &told(&outputs)[..] else { panic!() };
    assert_eq!((response.request_id, response.reason()), (5, Reason::UnsupportedType));
    rig.session.handle_text(rig.start);
    assert_eq!(tallies(&rig.outputs()), [Tally::TextFrame]);
}

#[test]
fn data_tracks_are_announced_answered_and_named() {
    let mut rig = Rig::open();
    let publish = lk::PublishDataTrackRequest {
        pub_handle: 7,
        name: "pulse".into(),
        encryption: 1,
        schema: Some(lk::DataTrackSchemaId { name: "si".into(), ..Default::default() }),
        ..Default::default()
    };
    let outputs = rig.say(Said::PublishDataTrackRequest(publish.clone()));
    let [Request::PublishDataTrack(announced)] = &asked(&outputs)[..] else { panic!() };
    let (sid, announced) = (TrackSid("DTR_1".into()), announced.clone());
    let info = DataTrackInfo { sid: sid.clone(), announced: *announced.clone() };
    let event = DataTrackEvent::Published(info.clone());
    let outputs = rig.tell(SessionEvent::DataTrack(event));
    let [Tell::PublishDataTrackResponse(response)] = &told(&outputs)[..] else { panic!() };
    let told_info = response.info.as_ref().unwrap();
    assert_eq!((told_info.pub_handle, &*told_info.sid, told_info.encryption), (7, "DTR_1", 1));
    assert_eq!((&told_info.schema, &*told_info.name), (&publish.schema, "pulse"));
    // Others see the same.
    let me = ParticipantInfo { data_tracks: vec![info], ..person("PA_bob") };
    assert_eq!(convert::participant(&me).data_tracks[0], *told_info);
    let refusal = Refusal::DuplicateName;
    let event = DataTrackEvent::Refused { announced, refusal };
    let outputs = rig.tell(SessionEvent::DataTrack(event));
    let [Tell::RequestResponse(response)] = &told(&outputs)[..] else { panic!() };
    assert_eq!(response.reason(), Reason::DuplicateName);
    let Some(Echo::PublishDataTrack(echo)) = &response.request else { panic!() };
    assert_eq!(echo.pub_handle, 7);
    let too_high = lk::PublishDataTrackRequest { pub_handle: 65_536, ..publish };
    let outputs = rig.say(Said::PublishDataTrackRequest(too_high));
    let [Tell::RequestResponse(response)] = &told(&outputs)[..] else { panic!() };
    assert_eq!((response.reason(), asked(&outputs).len()), (Reason::InvalidHandle, 0));
    let handle = DataHandle {
        handle: 3,
        participant: ParticipantSid("PA_bob".into()),
        identity: Private::new("bob".into()),
        track: sid,
    };
    let outputs = rig.tell(SessionEvent::DataTrack(DataTrackEvent::Handles(vec![handle])));
    let [Tell::DataTrackSubscriberHandles(handles)] = &told(&outputs)[..] else { panic!() };
    assert_eq!((&*handles.sub_handles[&3].track_sid, handles.sub_handles.len()), ("DTR_1", 1));
    let outputs = rig.tell(SessionEvent::DataTrack(DataTrackEvent::Unknown { handle: 9 }));
    let [Tell::RequestResponse(response)] = &told(&outputs)[..] else { panic!() };
    assert_eq!(response.reason(), Reason::NotFound);
}

#[test]
fn an_oversized_offer_or_too_many_tracks_are_refused() {
    let mut rig = Rig::open();
    let sdp = "v".repeat(limits::SDP + 1);
    let outputs = rig.say(Said::Offer(lk::SessionDescription { sdp, ..Default::default() }));
    assert!(asked(&outputs).is_empty());
    assert_eq!(tallies(&outputs), [Tally::OverLimit]);
    for _ in 0..limits::PENDING_TRACKS {
        assert_eq!(asked(&rig.say(Said::AddTrack(lk::AddTrackRequest::default()))).len(), 1);
    }
    let outputs = rig.say(Said::AddTrack(lk::AddTrackRequest::default()));
    let [Tell::RequestResponse(response)] = &told(&outputs)[..] else { panic!() };
    assert_eq!(response.reason(), Reason::LimitExceeded);
    let announced = Box::new(announced());
    let outputs = rig.tell(SessionEvent::TrackRefused { announced, refusal: Refusal::NotAllowed });
    let [Tell::RequestResponse(response)] = &told(&outputs)[..] else { panic!() };
    assert_eq!(response.reason(), Reason::NotAllowed);
    let Some(Echo::AddTrack(echo)) = &response.request else { panic!() };
    assert_eq!(echo.cid, "c1");
    // One was answered, so one more may come.
    assert_eq!(asked(&rig.say(Said::AddTrack(lk::AddTrackRequest::default()))).len(), 1);
}

#[test]
fn a_profile_change_is_echoed_with_its_outcome() {
    let mut rig = Rig::open();
    let update =
        lk::UpdateParticipantMetadata { request_id: 8, name: "Ann".into(), ..Default::default() };
    rig.say(Said::UpdateMetadata(update.clone()));
    let outputs = rig.tell(SessionEvent::ProfileUpdated { request_id: 8, refusal: None });
    let [Tell::RequestResponse(response)] = &told(&outputs)[..] else { panic!() };
    assert_eq!((response.request_id, response.reason()), (8, Reason::Ok));
    assert_eq!(response.request, Some(Echo::UpdateMetadata(update)));
    let refusal = Some(Refusal::NotAllowed);
    let outputs = rig.tell(SessionEvent::ProfileUpdated { request_id: 9, refusal });
    let [Tell::RequestResponse(response)] = &told(&outputs)[..] else { panic!() };
    assert_eq!((response.request_id, response.reason()), (9, Reason::NotAllowed));
}

#[test]
fn changed_rights_and_profiles_bring_a_fresh_token() {
    let mut rig = Rig::open();
    let grant = Grant { publish: false, ..Grant::default() };
    let outputs = rig.tell(SessionEvent::GrantChanged(grant.clone()));
    assert!(matches!(&outputs[..], [Output::FreshToken(_, rights)] if *rights == grant));
    let mut me = person("PA_me");
    me.grant = grant;
    let outputs = rig.tell(SessionEvent::Participants(vec![me.clone()]));
    assert!(!outputs.iter().any(|o| matches!(o, Output::FreshToken(..))), "nothing changed");
    me.profile = Arc::new(Profile { name: Private::new("Ann".into()), ..Profile::default() });
    let outputs = rig.tell(SessionEvent::Participants(vec![me]));
    assert!(outputs.iter().any(|o| matches!(o, Output::FreshToken(..))));
}

#[test]
fn becoming_active_is_reported_once() {
    let mut rig = Rig::open();
    let mut me = person("PA_me");
    me.state = ParticipantState::Active;
    let active =
        |outputs: &[Output]| outputs.iter().filter(|o| matches!(o, Output::Active)).count();
    assert_eq!(active(&rig.tell(SessionEvent::Participants(vec![me.clone()]))), 1);
    assert_eq!(active(&rig.tell(SessionEvent::Participants(vec![me]))), 0);
}

#[test]
fn a_session_pings_signs_and_notices_silence() {
    let mut rig = Rig::open();
    let (mut pings, mut tokens, mut at) = (0, 0, rig.start);
    while at < rig.start + Duration::from_secs(601) {
        at = rig.session.poll_timeout().unwrap();
        rig.session.handle_timeout(at);
        // The client answers every ping.
        rig.session.handle_heard(at);
        for output in rig.outputs() {
            match output {
                Output::Ping => pings += 1,
                Output::FreshToken(..) => tokens += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((pings, tokens), (61, 2));
    // From now on it does not.
    let mut ended_after = Duration::ZERO;
    let last = at;
    while let Some(next) = rig.session.poll_timeout() {
        rig.session.handle_timeout(next);
        ended_after = next - last;
    }
    assert_eq!(ended_after, SILENCE);
    assert_eq!(tallies(&rig.outputs()), [Tally::Silent]);
}

#[test]
fn a_flood_is_read_slowly() {
    let mut rig = Rig::open();
    let mut read = 0;
    while rig.session.read_again_at(rig.start).is_none() {
        rig.say(Said::Trickle(lk::TrickleRequest::default()));
        read += 1;
    }
    assert_eq!(read, 200);
    let again = rig.session.read_again_at(rig.start).unwrap();
    assert!(again <= rig.at(20));
    assert!(!rig.session.is_ended());
}

#[test]
fn large_lists_come_in_pieces() {
    let mut rig = Rig::open();
    let many = (0..250).map(|n| person(&format!("PA_{n}"))).collect();
    let messages = told(&rig.tell(SessionEvent::Participants(many)));
    let sizes = messages.iter().map(|message| match message {
        Tell::Update(update) => update.participants.len(),
        other => panic!("{other:?}"),
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [100, 100, 50]);
}

#[test]
fn simulated_trouble_needs_leave() {
    let scenario = |scenario| Said::Simulate(lk::SimulateScenario { scenario: Some(scenario) });
    use lk::simulate_scenario::Scenario;
    let outputs = Rig::open().say(scenario(Scenario::ServerLeave(true)));
    assert_eq!((told(&outputs).len(), tallies(&outputs)), (0, vec![Tally::Unknown]));
    let rig = || {
        let mut rig = Rig::new(Opening { simulate: true, ..opening() });
        rig.tell(joined());
        rig
    };
    let outputs = rig().say(scenario(Scenario::ServerLeave(true)));
    assert_eq!(leave(&outputs), (lk::DisconnectReason::ServerShutdown as i32, 0));
    let outputs = rig().say(scenario(Scenario::LeaveRequestFullReconnect(true)));
    assert_eq!(leave(&outputs).1, lk::leave_request::Action::Reconnect as i32);
    let outputs = rig().say(scenario(Scenario::NodeFailure(true)));
    assert!(matches!(outputs[..], [Output::Ask(Request::Leave), Output::End]));
    let outputs = rig().say(scenario(Scenario::SpeakerUpdate(3)));
    assert!(matches!(told(&outputs)[..], [Tell::SpeakersChanged(_)]));
}

#[test]
fn announcements_keep_kind_and_source() {
    let mut rig = Rig::open();
    let request = lk::AddTrackRequest {
        r#type: lk::TrackType::Video as i32,
        source: lk::TrackSource::ScreenShare as i32,
        ..Default::default()
    };
    let asked = asked(&rig.say(Said::AddTrack(request)));
    let [Request::AddTrack(track)] = &asked[..] else { panic!() };
    assert_eq!((track.kind, track.source), (MediaKind::Video, Source::Screen));
}

#[test]
fn damaged_messages_never_panic() {
    let message = Said::AddTrack(lk::AddTrackRequest {
        cid: "c".repeat(40),
        simulcast_codecs: vec![lk::SimulcastCodec::default(); 3],
        ..Default::default()
    });
    let good = lk::SignalRequest { message: Some(message) }.encode_to_vec();
    for index in 0..good.len() {
        for bit in 0..8 {
            let mut rig = Rig::open();
            let mut bytes = good.clone();
            bytes[index] ^= 1 << bit;
            rig.session.handle_message(rig.start, &bytes);
            rig.session.handle_message(rig.start, &bytes[..index]);
            assert!(!rig.session.is_ended());
        }
    }
}
