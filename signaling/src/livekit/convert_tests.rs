//! Every converter, with the values that its neighbours would confuse.

use std::sync::Arc;

use bedside_sfu::core::api::{Profile, RoomSid};

use super::*;

fn camera() -> lk::AddTrackRequest {
    let layer = |quality: lk::VideoQuality, width, rid: &str| lk::VideoLayer {
        quality: quality as i32,
        width,
        height: width * 9 / 16,
        bitrate: width * 1_000,
        rid: rid.into(),
        ..lk::VideoLayer::default()
    };
    lk::AddTrackRequest {
        cid: "cid-1".into(),
        name: "front".into(),
        r#type: lk::TrackType::Video as i32,
        width: 1280,
        height: 720,
        source: lk::TrackSource::Camera as i32,
        layers: vec![
            layer(lk::VideoQuality::High, 1280, "f"),
            layer(lk::VideoQuality::Low, 320, "q"),
        ],
        simulcast_codecs: vec![
            lk::SimulcastCodec { codec: "vp9".into(), cid: "cid-1".into(), ..Default::default() },
            lk::SimulcastCodec { codec: "vp8".into(), ..Default::default() },
        ],
        encryption: 1,
        stream: "camera".into(),
        backup_codec_policy: 2,
        ..lk::AddTrackRequest::default()
    }
}

fn published() -> TrackInfo {
    TrackInfo {
        sid: TrackSid("TR_VCx".into()),
        muted: true,
        mid: "7".into(),
        mime_type: "video/VP9".into(),
        simulcast: false,
        announced: add_track(camera()).unwrap(),
    }
}

#[test]
fn an_announcement_keeps_everything_the_engine_needs() {
    let track = add_track(camera()).unwrap();
    assert_eq!(
        (track.cid.as_str(), track.kind, track.source),
        ("cid-1", MediaKind::Video, Source::Camera)
    );
    assert_eq!((track.width, track.height, track.encryption), (1280, 720, 1));
    assert_eq!(track.layers[0].quality, Quality::High);
    assert_eq!(track.layers[1].bitrate_bps, 320_000);
    assert_eq!(track.codecs[0].cid, "cid-1");
    assert_eq!(
        track.codecs[1],
        AnnouncedCodec { codec: "vp8".into(), ..AnnouncedCodec::default() }
    );
    assert_eq!((track.backup_of, track.backup_codec_policy), (None, 2));
}

#[test]
fn audio_features_and_their_older_flags_mean_the_same() {
    let by = |features: &[AudioTrackFeature]| lk::AddTrackRequest {
        audio_features: features.iter().map(|f| *f as i32).collect(),
        ..lk::AddTrackRequest::default()
    };
    let track = add_track(by(&[AudioTrackFeature::TfNoDtx])).unwrap();
    assert!(track.disable_dtx && !track.stereo);
    let track = add_track(by(&[AudioTrackFeature::TfStereo])).unwrap();
    assert!(!track.disable_dtx && track.stereo);
    let old = lk::AddTrackRequest { disable_dtx: true, stereo: true, ..by(&[]) };
    let track = add_track(old).unwrap();
    assert!(track.disable_dtx && track.stereo);
}

#[test]
fn layers_told_only_by_codec_are_taken_from_the_first() {
    let mut request = camera();
    request.simulcast_codecs[0].layers = std::mem::take(&mut request.layers);
    assert_eq!(add_track(request).unwrap().layers.len(), 2);
}

#[test]
fn an_announcement_is_bounded_and_never_data() {
    let mut request = camera();
    request.layers = vec![lk::VideoLayer::default(); 10_000];
    request.simulcast_codecs = vec![lk::SimulcastCodec::default(); 10_000];
    let track = add_track(request).unwrap();
    assert_eq!((track.layers.len(), track.codecs.len()), (limits::RUNGS, limits::RUNGS));
    let data = lk::AddTrackRequest { r#type: lk::TrackType::Data as i32, ..camera() };
    assert_eq!(add_track(data), None);
    // A number of the future counts as the protocol's default.
    let odd = lk::AddTrackRequest { r#type: 77, source: -3, ..camera() };
    assert_eq!(add_track(odd).unwrap().source, Source::Unknown);
}

#[test]
fn a_backup_codec_names_its_track() {
    let request = lk::AddTrackRequest { sid: "TR_VC1".into(), ..camera() };
    assert_eq!(add_track(request).unwrap().backup_of, Some(TrackSid("TR_VC1".into())));
}

#[test]
fn a_track_shows_what_was_negotiated() {
    let info = track(&published());
    assert_eq!((info.sid.as_str(), info.mid.as_str(), info.muted), ("TR_VCx", "7", true));
    assert_eq!(info.mime_type, "video/VP9");
    assert_eq!(info.codecs.len(), 2);
    assert_eq!(info.codecs[0].mime_type, "video/VP9");
    assert_eq!(info.codecs[0].layers, info.layers);
    assert_eq!(info.codecs[1].mime_type, "video/vp8");
    assert_eq!(info.layers[1].quality(), lk::VideoQuality::Low);
    assert_eq!((info.encryption, info.stream.as_str()), (1, "camera"));
}

#[test]
fn a_participant_carries_state_rights_and_tracks() {
    let grant = Grant { publish: false, sources: vec![Source::Screen], ..Grant::default() };
    let profile = Profile {
        identity: Private::new("ann".into()),
        name: Private::new("Ann".into()),
        metadata: Private::new("m".into()),
        attributes: Private::new([("k".into(), "v".into())].into()),
        kind: 4,
        client_protocol: 2,
        capabilities: vec![1],
    };
    let mut info = ParticipantInfo {
        sid: ParticipantSid("PA_1".into()),
        profile: Arc::new(profile),
        grant,
        state: ParticipantState::Active,
        tracks: vec![published()],
        data_tracks: Vec::new(),
        joined_at_ms: 1_234_567,
        version: 9,
    };
    let sent = participant(&info);
    assert_eq!(
        (sent.sid.as_str(), sent.identity.as_str(), sent.name.as_str()),
        ("PA_1", "ann", "Ann")
    );
    assert_eq!((sent.joined_at, sent.joined_at_ms, sent.version), (1_234, 1_234_567, 9));
    assert_eq!(
        (sent.kind, sent.client_protocol, sent.capabilities.as_slice()),
        (4, 2, [1].as_slice())
    );
    assert_eq!(sent.attributes["k"], "v");
    assert!(sent.is_publisher);
    assert_eq!(sent.state(), lk::participant_info::State::Active);
    let permission = sent.permission.unwrap();
    assert!(!permission.can_publish && permission.can_subscribe && permission.can_publish_data);
    assert_eq!(permission.can_publish_sources, [lk::TrackSource::ScreenShare as i32]);
    info.state = ParticipantState::Disconnected(LeaveReason::ParticipantRemoved);
    let sent = participant(&info);
    assert_eq!(sent.state(), lk::participant_info::State::Disconnected);
    assert_eq!(sent.disconnect_reason(), lk::DisconnectReason::ParticipantRemoved);
}

#[test]
fn a_room_carries_its_facts() {
    let sent = room(&RoomInfo {
        sid: RoomSid("RM_1".into()),
        name: Private::new("ward".into()),
        metadata: Private::new("m".into()),
        max_participants: 2,
        created_at_ms: 5_500,
        participants: 1,
        publishers: 1,
        empty_timeout: Some(Duration::from_secs(300)),
        departure_timeout: Some(Duration::from_secs(20)),
        recording: true,
    });
    assert_eq!(
        (sent.sid.as_str(), sent.name.as_str(), sent.metadata.as_str()),
        ("RM_1", "ward", "m")
    );
    assert_eq!((sent.creation_time, sent.creation_time_ms), (5, 5_500));
    assert_eq!((sent.max_participants, sent.num_participants, sent.active_recording), (2, 1, true));
    assert_eq!((sent.empty_timeout, sent.departure_timeout, sent.num_publishers), (300, 20, 1));
}

#[test]
fn a_leave_says_whether_to_come_back() {
    use lk::leave_request::Action;
    assert_eq!(leave_action(LeaveReason::ParticipantRemoved, false), Action::Disconnect);
    assert_eq!(leave_action(LeaveReason::ConnectionTimeout, true), Action::Resume);
    assert_eq!(leave_action(LeaveReason::StateMismatch, false), Action::Reconnect);
    assert_eq!(leave_action(LeaveReason::DuplicateIdentity, false), Action::Disconnect);
    let numbers = [
        (LeaveReason::ClientInitiated, 1),
        (LeaveReason::DuplicateIdentity, 2),
        (LeaveReason::ServerShutdown, 3),
        (LeaveReason::ParticipantRemoved, 4),
        (LeaveReason::RoomDeleted, 5),
        (LeaveReason::StateMismatch, 6),
        (LeaveReason::JoinFailure, 7),
        (LeaveReason::RoomClosed, 10),
        (LeaveReason::ConnectionTimeout, 14),
        (LeaveReason::MediaFailure, 15),
    ];
    for (reason, number) in numbers {
        assert_eq!(disconnect_reason(reason) as i32, number);
    }
}

#[test]
fn subscriptions_are_read_from_both_places() {
    let update = lk::UpdateSubscription {
        track_sids: vec!["TR_1".into()],
        subscribe: true,
        participant_tracks: vec![lk::ParticipantTracks {
            participant_sid: "PA_1".into(),
            track_sids: vec!["TR_2".into()],
        }],
    };
    let Request::Subscribe { tracks, subscribe } = subscription(update) else { panic!() };
    assert_eq!(tracks, ["TR_1", "TR_2"].map(|sid| TrackSid(sid.into())));
    assert!(subscribe);
}

#[test]
fn quality_off_is_disabled() {
    let settings = |quality: lk::VideoQuality| {
        let update = lk::UpdateTrackSettings {
            track_sids: vec!["TR_1".into()],
            quality: quality as i32,
            width: 640,
            ..lk::UpdateTrackSettings::default()
        };
        match track_settings(update) {
            Request::TrackSettings { disabled, quality, width, .. } => (disabled, quality, width),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(settings(lk::VideoQuality::Off), (true, Quality::High, 640));
    assert_eq!(settings(lk::VideoQuality::Medium), (false, Quality::Medium, 640));
}

#[test]
fn permissions_name_people_by_sid_or_identity() {
    let request = subscription_permission(lk::SubscriptionPermission {
        all_participants: false,
        track_permissions: vec![
            lk::TrackPermission {
                participant_sid: "PA_1".into(),
                all_tracks: true,
                ..Default::default()
            },
            lk::TrackPermission {
                participant_identity: "bob".into(),
                track_sids: vec!["TR_1".into()],
                ..Default::default()
            },
        ],
    });
    let Request::SubscriptionPermission { all_participants, allowed } = request else { panic!() };
    assert!(!all_participants);
    assert_eq!(allowed[0].sid, Some(ParticipantSid("PA_1".into())));
    assert_eq!((allowed[0].identity.is_none(), allowed[0].all_tracks), (true, true));
    assert_eq!(allowed[1].identity, Some(Private::new("bob".into())));
    assert_eq!(allowed[1].tracks, [TrackSid("TR_1".into())]);
}

#[test]
fn a_resuming_client_tells_what_it_believes() {
    let request = sync_state(lk::SyncState {
        subscription: Some(lk::UpdateSubscription {
            track_sids: vec!["TR_9".into()],
            ..Default::default()
        }),
        publish_tracks: vec![lk::TrackPublishedResponse {
            cid: "c".into(),
            track: Some(lk::TrackInfo { sid: "TR_1".into(), ..Default::default() }),
        }],
        track_sids_disabled: vec!["TR_5".into()],
        datachannel_receive_states: vec![lk::DataChannelReceiveState {
            publisher_sid: "PA_2".into(),
            last_seq: 7,
        }],
        ..lk::SyncState::default()
    });
    let Request::SyncState { published, subscription, disabled, received } = request else {
        panic!()
    };
    assert_eq!(published, [TrackSid("TR_1".into())]);
    assert_eq!(subscription, Some((vec![TrackSid("TR_9".into())], false)));
    assert_eq!(disabled, [TrackSid("TR_5".into())]);
    assert_eq!(received, [(ParticipantSid("PA_2".into()), 7)]);
}

#[test]
fn an_empty_text_leaves_the_profile_as_it_is() {
    let update = lk::UpdateParticipantMetadata {
        name: "Ann".into(),
        attributes: [("gone".to_owned(), String::new())].into(),
        request_id: 3,
        ..lk::UpdateParticipantMetadata::default()
    };
    let Ok(Request::UpdateProfile { request_id, name, metadata, attributes }) =
        update_profile(&update)
    else {
        panic!()
    };
    assert_eq!((request_id, metadata), (3, None));
    assert_eq!(name, Some(Private::new("Ann".into())));
    assert_eq!(attributes.reveal()["gone"], "");
    let long = lk::UpdateParticipantMetadata { name: "n".repeat(257), ..update };
    assert_eq!(update_profile(&long).unwrap_err(), Refusal::LimitExceeded);
}

#[test]
fn kinds_have_the_protocols_numbers() {
    let numbers = [("", 0), ("standard", 0), ("egress", 2), ("AGENT", 4), ("bridge", 8), ("?", 0)];
    for (name, number) in numbers {
        assert_eq!(kind(name), number, "{name}");
    }
}

#[test]
fn wanted_rungs_are_told_to_old_clients_too() {
    let codecs =
        [("vp8".to_owned(), [true, true, false]), ("av1".to_owned(), [false, false, false])];
    let update = subscribed_quality(&TrackSid("TR_1".into()), &codecs);
    let rungs = |list: &[lk::SubscribedQuality]| -> Vec<(i32, bool)> {
        list.iter().map(|rung| (rung.quality, rung.enabled)).collect()
    };
    let [vp8, av1] = &update.subscribed_codecs[..] else { panic!("{update:?}") };
    assert_eq!((&*vp8.codec, &*av1.codec), ("vp8", "av1"));
    assert_eq!(rungs(&vp8.qualities), [(0, true), (1, true), (2, false)]);
    assert_eq!(rungs(&av1.qualities), [(0, false), (1, false), (2, false)]);
    assert_eq!(rungs(&update.subscribed_qualities), rungs(&vp8.qualities));
}

#[test]
fn paused_streams_and_bad_connections_keep_their_numbers() {
    let (who, track) = (ParticipantSid("PA_1".into()), TrackSid("TR_1".into()));
    let states = |paused| stream_state(&who, &track, paused).stream_states;
    let [paused] = &states(true)[..] else { panic!() };
    assert_eq!((&*paused.participant_sid, &*paused.track_sid, paused.state), ("PA_1", "TR_1", 1));
    assert_eq!(states(false)[0].state, 0);
    let levels =
        [QualityLevel::Poor, QualityLevel::Good, QualityLevel::Excellent, QualityLevel::Lost];
    let changes = levels.map(|level| (who.clone(), level, 2.5));
    let told = connection_quality(&changes).updates;
    assert!(told.iter().map(|told| told.quality).eq(0..4));
}
