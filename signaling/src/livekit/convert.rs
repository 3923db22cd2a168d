//! The room model in the protocol's words, and back.
//!
//! Inwards everything is bounded by [`crate::limits`] and unknown numbers become careful defaults;
//! outwards every field that a client is known to need is filled.

#![allow(deprecated, reason = "clients still read and send fields that the protocol deprecates")]

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bedside_sfu::core::api::{
    AddTrack, AnnouncedCodec, DataHandle, DataTrack, DataTrackInfo, Grant, LayerInfo, LeaveReason,
    MediaKind, ParticipantInfo, ParticipantSid, ParticipantState, Private, Quality, QualityLevel,
    Refusal, Request, RoomInfo, Source, Speaker, TrackInfo, TrackPermission, TrackSid,
};
use livekit_protocol as lk;
use livekit_protocol::AudioTrackFeature;
use livekit_protocol::request_response::Reason;
use prost::Message as _;

use crate::limits;

/// A participant as others see it.
pub fn participant(info: &ParticipantInfo) -> lk::ParticipantInfo {
    let (state, reason) = match info.state {
        ParticipantState::Joined => (lk::participant_info::State::Joined, None),
        ParticipantState::Active => (lk::participant_info::State::Active, None),
        ParticipantState::Disconnected(reason) => {
            (lk::participant_info::State::Disconnected, Some(disconnect_reason(reason)))
        }
    };
    let profile = &info.profile;
    lk::ParticipantInfo {
        sid: info.sid.0.to_string(),
        identity: profile.identity.reveal().clone(),
        state: state as i32,
        tracks: info.tracks.iter().map(track).collect(),
        data_tracks: info.data_tracks.iter().map(data_track_info).collect(),
        metadata: profile.metadata.reveal().clone(),
        joined_at: info.joined_at_ms / 1_000,
        joined_at_ms: info.joined_at_ms,
        name: profile.name.reveal().clone(),
        version: info.version,
        permission: Some(permission(&info.grant)),
        is_publisher: !info.tracks.is_empty(),
        kind: profile.kind,
        attributes: profile.attributes.reveal().clone().into_iter().collect(),
        disconnect_reason: reason.unwrap_or(lk::DisconnectReason::UnknownReason) as i32,
        client_protocol: profile.client_protocol,
        capabilities: profile.capabilities.clone(),
        ..lk::ParticipantInfo::default()
    }
}

/// A participant's rights.
pub fn permission(grant: &Grant) -> lk::ParticipantPermission {
    lk::ParticipantPermission {
        can_subscribe: grant.subscribe,
        can_publish: grant.publish,
        can_publish_data: grant.publish_data,
        can_publish_sources: grant.sources.iter().map(|s| track_source(*s) as i32).collect(),
        hidden: grant.hidden,
        recorder: grant.recorder,
        can_update_metadata: grant.update_own_metadata,
        ..lk::ParticipantPermission::default()
    }
}

/// Rights as they are asked for.
pub fn grant(permission: &lk::ParticipantPermission) -> Grant {
    let sources = permission.can_publish_sources();
    Grant {
        publish: permission.can_publish,
        subscribe: permission.can_subscribe,
        publish_data: permission.can_publish_data,
        sources: sources.take(limits::RUNGS).map(source).collect(),
        update_own_metadata: permission.can_update_metadata,
        hidden: permission.hidden,
        recorder: permission.recorder,
    }
}

/// A published track.
pub fn track(info: &TrackInfo) -> lk::TrackInfo {
    let announced = &info.announced;
    let layers: Vec<_> = announced.layers.iter().map(layer).collect();
    lk::TrackInfo {
        sid: info.sid.0.to_string(),
        r#type: track_type(announced.kind) as i32,
        name: announced.name.reveal().clone(),
        muted: info.muted,
        width: announced.width,
        height: announced.height,
        simulcast: info.simulcast,
        disable_dtx: announced.disable_dtx,
        source: track_source(announced.source) as i32,
        mime_type: info.mime_type.clone(),
        mid: info.mid.clone(),
        codecs: codecs(info, &layers),
        layers,
        stereo: announced.stereo,
        disable_red: announced.disable_red,
        encryption: announced.encryption,
        stream: announced.stream.clone(),
        audio_features: announced.audio_features.clone(),
        backup_codec_policy: announced.backup_codec_policy,
        ..lk::TrackInfo::default()
    }
}

/// The codec that flows first, then those announced beside it.
fn codecs(info: &TrackInfo, layers: &[lk::VideoLayer]) -> Vec<lk::SimulcastCodecInfo> {
    let kind = match info.announced.kind {
        MediaKind::Audio => "audio",
        MediaKind::Video => "video",
    };
    let announced = info.announced.codecs.iter().enumerate();
    let mut codecs: Vec<_> = announced
        .map(|(index, codec)| lk::SimulcastCodecInfo {
            mime_type: format!("{kind}/{}", codec.codec),
            mid: if index == 0 { info.mid.clone() } else { codec.mid.clone() },
            cid: codec.cid.clone(),
            layers: if index == 0 {
                layers.to_vec()
            } else {
                codec.layers.iter().map(layer).collect()
            },
            video_layer_mode: codec.layer_mode,
            ..lk::SimulcastCodecInfo::default()
        })
        .collect();
    if codecs.is_empty() && !info.mime_type.is_empty() {
        codecs.push(lk::SimulcastCodecInfo {
            mid: info.mid.clone(),
            cid: info.announced.cid.clone(),
            layers: layers.to_vec(),
            ..lk::SimulcastCodecInfo::default()
        });
    }
    // What was negotiated counts, not what was announced.
    if let Some(first) = codecs.first_mut().filter(|_| !info.mime_type.is_empty()) {
        first.mime_type.clone_from(&info.mime_type);
    }
    codecs
}

fn layer(info: &LayerInfo) -> lk::VideoLayer {
    lk::VideoLayer {
        quality: match info.quality {
            Quality::Low => lk::VideoQuality::Low,
            Quality::Medium => lk::VideoQuality::Medium,
            Quality::High => lk::VideoQuality::High,
        } as i32,
        width: info.width,
        height: info.height,
        bitrate: info.bitrate_bps,
        ssrc: info.ssrc,
        spatial_layer: i32::from(info.spatial),
        rid: info.rid.clone(),
        repair_ssrc: info.repair_ssrc,
    }
}

/// A room's facts.
pub fn room(info: &RoomInfo) -> lk::Room {
    let seconds = |time: Option<Duration>| {
        time.map_or(0, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX))
    };
    lk::Room {
        empty_timeout: seconds(info.empty_timeout),
        departure_timeout: seconds(info.departure_timeout),
        num_publishers: info.publishers,
        sid: info.sid.0.to_string(),
        name: info.name.reveal().clone(),
        max_participants: info.max_participants,
        creation_time: info.created_at_ms / 1_000,
        creation_time_ms: info.created_at_ms,
        metadata: info.metadata.reveal().clone(),
        num_participants: info.participants,
        active_recording: info.recording,
        ..lk::Room::default()
    }
}

/// One speaker's level.
pub fn speaker(speaker: &Speaker) -> lk::SpeakerInfo {
    lk::SpeakerInfo {
        sid: speaker.participant.0.to_string(),
        level: speaker.level,
        active: speaker.active,
    }
}

/// Which rungs of a track are wanted. Old clients read the list of the first codec only.
pub fn subscribed_quality(
    track: &TrackSid,
    codecs: &[(String, [bool; 3])],
) -> lk::SubscribedQualityUpdate {
    let rungs = [lk::VideoQuality::Low, lk::VideoQuality::Medium, lk::VideoQuality::High];
    let qualities = |enabled: &[bool; 3]| -> Vec<lk::SubscribedQuality> {
        let rungs = rungs.iter().zip(enabled);
        rungs
            .map(|(rung, enabled)| lk::SubscribedQuality {
                quality: *rung as i32,
                enabled: *enabled,
            })
            .collect()
    };
    let codec = |(codec, enabled): &(String, [bool; 3])| lk::SubscribedCodec {
        codec: codec.clone(),
        qualities: qualities(enabled),
    };
    lk::SubscribedQualityUpdate {
        track_sid: track.0.to_string(),
        subscribed_qualities: codecs.first().map(|(_, first)| qualities(first)).unwrap_or_default(),
        subscribed_codecs: codecs.iter().map(codec).collect(),
    }
}

/// Whether a subscribed track is forwarded.
pub fn stream_state(
    participant: &ParticipantSid,
    track: &TrackSid,
    paused: bool,
) -> lk::StreamStateUpdate {
    let state = if paused { lk::StreamState::Paused } else { lk::StreamState::Active };
    let info = lk::StreamStateInfo {
        participant_sid: participant.0.to_string(),
        track_sid: track.0.to_string(),
        state: state as i32,
    };
    lk::StreamStateUpdate { stream_states: vec![info] }
}

/// How good the connections of participants are.
pub fn connection_quality(
    changes: &[(ParticipantSid, QualityLevel, f32)],
) -> lk::ConnectionQualityUpdate {
    let info = |(participant, level, score): &(ParticipantSid, QualityLevel, f32)| {
        let quality = match level {
            QualityLevel::Lost => lk::ConnectionQuality::Lost,
            QualityLevel::Poor => lk::ConnectionQuality::Poor,
            QualityLevel::Good => lk::ConnectionQuality::Good,
            QualityLevel::Excellent => lk::ConnectionQuality::Excellent,
        };
        lk::ConnectionQualityInfo {
            participant_sid: participant.0.to_string(),
            quality: quality as i32,
            score: *score,
        }
    };
    lk::ConnectionQualityUpdate { updates: changes.iter().map(info).collect() }
}

/// Why somebody left.
pub const fn disconnect_reason(reason: LeaveReason) -> lk::DisconnectReason {
    match reason {
        LeaveReason::ClientInitiated => lk::DisconnectReason::ClientInitiated,
        LeaveReason::DuplicateIdentity => lk::DisconnectReason::DuplicateIdentity,
        LeaveReason::ServerShutdown => lk::DisconnectReason::ServerShutdown,
        LeaveReason::ParticipantRemoved => lk::DisconnectReason::ParticipantRemoved,
        LeaveReason::RoomDeleted => lk::DisconnectReason::RoomDeleted,
        LeaveReason::RoomClosed => lk::DisconnectReason::RoomClosed,
        LeaveReason::StateMismatch => lk::DisconnectReason::StateMismatch,
        LeaveReason::JoinFailure => lk::DisconnectReason::JoinFailure,
        LeaveReason::ConnectionTimeout => lk::DisconnectReason::ConnectionTimeout,
        LeaveReason::MediaFailure => lk::DisconnectReason::MediaFailure,
    }
}

/// What the client is to do after it was told the reason.
pub const fn leave_action(reason: LeaveReason, resume: bool) -> lk::leave_request::Action {
    match reason {
        _ if resume => lk::leave_request::Action::Resume,
        LeaveReason::StateMismatch
        | LeaveReason::ConnectionTimeout
        | LeaveReason::JoinFailure
        | LeaveReason::MediaFailure => lk::leave_request::Action::Reconnect,
        LeaveReason::ClientInitiated
        | LeaveReason::DuplicateIdentity
        | LeaveReason::ServerShutdown
        | LeaveReason::ParticipantRemoved
        | LeaveReason::RoomDeleted
        | LeaveReason::RoomClosed => lk::leave_request::Action::Disconnect,
    }
}

/// Why a request was refused.
pub const fn refusal_reason(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::NoRoom | Refusal::NoParticipant | Refusal::NoTrack => Reason::NotFound,
        Refusal::NotAllowed => Reason::NotAllowed,
        Refusal::RoomFull | Refusal::LimitExceeded => Reason::LimitExceeded,
        Refusal::BadOffer => Reason::InvalidRequest,
        Refusal::Encrypted => Reason::NotAllowed,
        Refusal::Draining => Reason::UnclassifiedError,
        Refusal::InvalidHandle => Reason::InvalidHandle,
        Refusal::DuplicateHandle => Reason::DuplicateHandle,
        Refusal::InvalidName => Reason::InvalidName,
        Refusal::DuplicateName => Reason::DuplicateName,
    }
}

/// An announced track, echoed in a refusal.
pub fn echo_add_track(announced: &AddTrack) -> lk::AddTrackRequest {
    lk::AddTrackRequest {
        cid: announced.cid.clone(),
        name: announced.name.reveal().clone(),
        r#type: track_type(announced.kind) as i32,
        width: announced.width,
        height: announced.height,
        muted: announced.muted,
        source: track_source(announced.source) as i32,
        sid: announced.backup_of.as_ref().map(|sid| sid.0.to_string()).unwrap_or_default(),
        ..lk::AddTrackRequest::default()
    }
}

/// An announcement. `None`: it is neither audio nor video.
pub fn add_track(request: lk::AddTrackRequest) -> Option<AddTrack> {
    let kind = match request.r#type() {
        lk::TrackType::Audio => MediaKind::Audio,
        lk::TrackType::Video => MediaKind::Video,
        lk::TrackType::Data => return None,
    };
    let has = |feature| request.audio_features.contains(&(feature as i32));
    let no_dtx = request.disable_dtx || has(AudioTrackFeature::TfNoDtx);
    let stereo = request.stereo || has(AudioTrackFeature::TfStereo);
    let source = source(request.source());
    let codecs = request.simulcast_codecs.into_iter().take(limits::RUNGS);
    // Where the layers are told per codec, those of the first one are the track's.
    let mut layers = request.layers;
    let mut announced = Vec::new();
    for codec in codecs {
        if layers.is_empty() {
            layers = codec.layers;
        }
        announced.push(AnnouncedCodec {
            codec: codec.codec,
            cid: codec.cid,
            layer_mode: codec.video_layer_mode,
            ..AnnouncedCodec::default()
        });
    }
    Some(AddTrack {
        cid: request.cid,
        name: Private::new(request.name),
        kind,
        source,
        muted: request.muted,
        width: request.width,
        height: request.height,
        layers: layers.into_iter().take(limits::RUNGS).map(announced_layer).collect(),
        codecs: announced,
        backup_of: (!request.sid.is_empty()).then(|| TrackSid(request.sid.into())),
        stream: request.stream,
        disable_dtx: no_dtx,
        disable_red: request.disable_red,
        stereo,
        encryption: request.encryption,
        audio_features: request.audio_features.into_iter().take(limits::RUNGS).collect(),
        backup_codec_policy: request.backup_codec_policy,
    })
}

fn announced_layer(layer: lk::VideoLayer) -> LayerInfo {
    LayerInfo {
        quality: quality(layer.quality()),
        width: layer.width,
        height: layer.height,
        bitrate_bps: layer.bitrate,
        rid: layer.rid,
        ssrc: layer.ssrc,
        repair_ssrc: layer.repair_ssrc,
        spatial: u8::try_from(layer.spatial_layer).unwrap_or(0),
    }
}

/// Wanted or unwanted tracks.
pub fn subscription(update: lk::UpdateSubscription) -> Request {
    let (tracks, subscribe) = subscription_parts(update);
    Request::Subscribe { tracks, subscribe }
}

/// Track ids come in two places: some SDKs use the one, some the other.
pub fn subscription_parts(update: lk::UpdateSubscription) -> (Vec<TrackSid>, bool) {
    let by_participant = update.participant_tracks.into_iter().flat_map(|p| p.track_sids);
    (sids(update.track_sids.into_iter().chain(by_participant)), update.subscribe)
}

/// What a subscriber wants of tracks.
pub fn track_settings(update: lk::UpdateTrackSettings) -> Request {
    let off = update.quality() == lk::VideoQuality::Off;
    Request::TrackSettings {
        disabled: update.disabled || off,
        quality: quality(update.quality()),
        width: update.width,
        height: update.height,
        fps: update.fps,
        tracks: sids(update.track_sids),
    }
}

/// Who may subscribe to one's tracks.
pub fn subscription_permission(permission: lk::SubscriptionPermission) -> Request {
    let line = |line: lk::TrackPermission| TrackPermission {
        sid: (!line.participant_sid.is_empty())
            .then(|| ParticipantSid(line.participant_sid.into())),
        identity: (!line.participant_identity.is_empty())
            .then(|| Private::new(line.participant_identity)),
        all_tracks: line.all_tracks,
        tracks: sids(line.track_sids),
    };
    Request::SubscriptionPermission {
        all_participants: permission.all_participants,
        allowed: permission
            .track_permissions
            .into_iter()
            .take(limits::TRACK_IDS)
            .map(line)
            .collect(),
    }
}

/// A data track that a client announces.
pub fn data_track(request: lk::PublishDataTrackRequest) -> Result<DataTrack, Refusal> {
    let handle = u16::try_from(request.pub_handle).map_err(|_| Refusal::InvalidHandle)?;
    let format = lk::DataTrackInfo {
        frame_encoding: request.frame_encoding,
        schema: request.schema,
        ..lk::DataTrackInfo::default()
    };
    if request.name.len() > limits::NAME {
        return Err(Refusal::InvalidName);
    }
    if format.encoded_len() > limits::DATA_FORMAT {
        return Err(Refusal::LimitExceeded);
    }
    Ok(DataTrack {
        handle,
        name: Private::new(request.name),
        encryption: request.encryption,
        format: format.encode_to_vec().into(),
    })
}

/// An announced data track, echoed in a refusal.
pub fn echo_data_track(track: &DataTrack) -> lk::PublishDataTrackRequest {
    lk::PublishDataTrackRequest {
        pub_handle: track.handle.into(),
        name: track.name.reveal().clone(),
        encryption: track.encryption,
        ..lk::PublishDataTrackRequest::default()
    }
}

/// A published data track.
pub fn data_track_info(info: &DataTrackInfo) -> lk::DataTrackInfo {
    let track = &info.announced;
    // These are our own words: they can be read.
    let format = lk::DataTrackInfo::decode(track.format.clone()).unwrap_or_default();
    lk::DataTrackInfo {
        pub_handle: track.handle.into(),
        sid: info.sid.0.to_string(),
        name: track.name.reveal().clone(),
        encryption: track.encryption,
        ..format
    }
}

/// What the packets of data tracks are named by.
pub fn data_handles(handles: &[DataHandle]) -> lk::DataTrackSubscriberHandles {
    let named = handles.iter().map(|named| {
        let track = lk::data_track_subscriber_handles::PublishedDataTrack {
            publisher_identity: named.identity.reveal().clone(),
            publisher_sid: named.participant.0.to_string(),
            track_sid: named.track.0.to_string(),
        };
        (named.handle.into(), track)
    });
    lk::DataTrackSubscriberHandles { sub_handles: named.collect() }
}

/// Wanted or unwanted data tracks.
pub fn data_subscription(update: lk::UpdateDataSubscription) -> Request {
    let updates = update.updates.into_iter().take(limits::TRACK_IDS);
    let tracks = updates.map(|update| (TrackSid(update.track_sid.into()), update.subscribe));
    Request::SubscribeData { tracks: tracks.collect() }
}

/// What a resuming client believes.
pub fn sync_state(state: lk::SyncState) -> Request {
    let published = state.publish_tracks.into_iter().filter_map(|p| p.track).map(|t| t.sid);
    let data = state.publish_data_tracks.into_iter().filter_map(|p| p.info).map(|t| t.sid);
    let published = published.chain(data);
    let received = state.datachannel_receive_states.into_iter().take(limits::TRACK_IDS);
    Request::SyncState {
        published: sids(published),
        subscription: state.subscription.map(subscription_parts),
        disabled: sids(state.track_sids_disabled),
        received: received.map(|r| (ParticipantSid(r.publisher_sid.into()), r.last_seq)).collect(),
    }
}

/// A change of one's own profile: an empty text means unchanged.
pub fn update_profile(update: &lk::UpdateParticipantMetadata) -> Result<Request, Refusal> {
    let attributes: usize = update.attributes.iter().map(|(k, v)| k.len() + v.len()).sum();
    if update.name.len() > limits::NAME
        || update.metadata.len() > limits::METADATA
        || attributes > limits::ATTRIBUTES
    {
        return Err(Refusal::LimitExceeded);
    }
    let text = |text: &String| (!text.is_empty()).then(|| Private::new(text.clone()));
    Ok(Request::UpdateProfile {
        request_id: update.request_id,
        name: text(&update.name),
        metadata: text(&update.metadata),
        attributes: Private::new(update.attributes.clone().into_iter().collect()),
    })
}

/// Attributes of a join.
pub fn attributes(map: HashMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().collect()
}

/// The number of a token's participant kind.
pub fn kind(name: &str) -> i32 {
    use lk::participant_info::Kind;
    let kind = match name.to_ascii_lowercase().as_str() {
        "ingress" => Kind::Ingress,
        "egress" => Kind::Egress,
        "sip" => Kind::Sip,
        "agent" => Kind::Agent,
        "connector" => Kind::Connector,
        "bridge" => Kind::Bridge,
        _ => Kind::Standard,
    };
    kind as i32
}

fn sids(texts: impl IntoIterator<Item = String>) -> Vec<TrackSid> {
    texts.into_iter().take(limits::TRACK_IDS).map(|sid| TrackSid(sid.into())).collect()
}

const fn quality(quality: lk::VideoQuality) -> Quality {
    match quality {
        lk::VideoQuality::Low => Quality::Low,
        lk::VideoQuality::Medium => Quality::Medium,
        lk::VideoQuality::High | lk::VideoQuality::Off => Quality::High,
    }
}

const fn source(source: lk::TrackSource) -> Source {
    match source {
        lk::TrackSource::Unknown => Source::Unknown,
        lk::TrackSource::Camera => Source::Camera,
        lk::TrackSource::Microphone => Source::Microphone,
        lk::TrackSource::ScreenShare => Source::Screen,
        lk::TrackSource::ScreenShareAudio => Source::ScreenAudio,
    }
}

const fn track_source(source: Source) -> lk::TrackSource {
    match source {
        Source::Unknown => lk::TrackSource::Unknown,
        Source::Camera => lk::TrackSource::Camera,
        Source::Microphone => lk::TrackSource::Microphone,
        Source::Screen => lk::TrackSource::ScreenShare,
        Source::ScreenAudio => lk::TrackSource::ScreenShareAudio,
    }
}

const fn track_type(kind: MediaKind) -> lk::TrackType {
    match kind {
        MediaKind::Audio => lk::TrackType::Audio,
        MediaKind::Video => lk::TrackType::Video,
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
