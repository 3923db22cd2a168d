//! Answers in JSON, as the definitions name their fields, unset ones included.

#![allow(deprecated, reason = "readers still look at fields that the protocol deprecates")]

use livekit_protocol as lk;
use serde_json::{Map, Value, json};

/// Can be written so.
pub(super) trait Show {
    /// The JSON object.
    fn json(&self) -> Value;
}

/// Messages without a field.
macro_rules! empty {
    ($($message:ty),*) => {
        $(impl Show for $message {
            fn json(&self) -> Value {
                Value::Object(Map::new())
            }
        })*
    };
}

empty!(
    lk::DeleteRoomResponse,
    lk::RemoveParticipantResponse,
    lk::UpdateSubscriptionsResponse,
    lk::SendDataResponse
);

fn list<T: Show>(messages: &[T]) -> Value {
    messages.iter().map(Show::json).collect()
}

fn maybe<T: Show>(message: Option<&T>) -> Value {
    message.map_or(Value::Null, Show::json)
}

/// A number of an enum by its name; one without a name stays a number.
fn named<E: TryFrom<i32>>(number: i32, name: impl Fn(&E) -> &'static str) -> Value {
    E::try_from(number).map_or_else(|_| json!(number), |known| json!(name(&known)))
}

fn names<E: TryFrom<i32>>(numbers: &[i32], name: impl Fn(&E) -> &'static str) -> Value {
    numbers.iter().map(|number| named(*number, &name)).collect()
}

/// 64 bits do not fit into the numbers of all readers.
fn wide(number: i64) -> Value {
    Value::String(number.to_string())
}

impl Show for lk::Room {
    fn json(&self) -> Value {
        json!({
            "sid": self.sid,
            "name": self.name,
            "empty_timeout": self.empty_timeout,
            "departure_timeout": self.departure_timeout,
            "max_participants": self.max_participants,
            "creation_time": wide(self.creation_time),
            "creation_time_ms": wide(self.creation_time_ms),
            "turn_password": self.turn_password,
            "enabled_codecs": list(&self.enabled_codecs),
            "metadata": self.metadata,
            "num_participants": self.num_participants,
            "num_publishers": self.num_publishers,
            "active_recording": self.active_recording,
            "version": maybe(self.version.as_ref()),
        })
    }
}

impl Show for lk::Codec {
    fn json(&self) -> Value {
        json!({ "mime": self.mime, "fmtp_line": self.fmtp_line })
    }
}

impl Show for lk::TimedVersion {
    fn json(&self) -> Value {
        json!({ "unix_micro": wide(self.unix_micro), "ticks": self.ticks })
    }
}

impl Show for lk::ListRoomsResponse {
    fn json(&self) -> Value {
        json!({ "rooms": list(&self.rooms) })
    }
}

impl Show for lk::ListParticipantsResponse {
    fn json(&self) -> Value {
        json!({ "participants": list(&self.participants) })
    }
}

impl Show for lk::MuteRoomTrackResponse {
    fn json(&self) -> Value {
        json!({ "track": maybe(self.track.as_ref()) })
    }
}

impl Show for lk::ParticipantInfo {
    fn json(&self) -> Value {
        use lk::client_info::Capability;
        use lk::participant_info::{Kind, KindDetail, State};
        let reason = named(self.disconnect_reason, lk::DisconnectReason::as_str_name);
        json!({
            "sid": self.sid,
            "identity": self.identity,
            "state": named(self.state, State::as_str_name),
            "tracks": list(&self.tracks),
            "metadata": self.metadata,
            "joined_at": wide(self.joined_at),
            "joined_at_ms": wide(self.joined_at_ms),
            "name": self.name,
            "version": self.version,
            "permission": maybe(self.permission.as_ref()),
            "region": self.region,
            "is_publisher": self.is_publisher,
            "kind": named(self.kind, Kind::as_str_name),
            "attributes": self.attributes,
            "disconnect_reason": reason,
            "kind_details": names(&self.kind_details, KindDetail::as_str_name),
            "data_tracks": list(&self.data_tracks),
            "client_protocol": self.client_protocol,
            "capabilities": names(&self.capabilities, Capability::as_str_name),
        })
    }
}

impl Show for lk::ParticipantPermission {
    fn json(&self) -> Value {
        json!({
            "can_subscribe": self.can_subscribe,
            "can_publish": self.can_publish,
            "can_publish_data": self.can_publish_data,
            "can_publish_sources":
                names(&self.can_publish_sources, lk::TrackSource::as_str_name),
            "hidden": self.hidden,
            "recorder": self.recorder,
            "can_update_metadata": self.can_update_metadata,
            "agent": self.agent,
            "can_subscribe_metrics": self.can_subscribe_metrics,
            "can_manage_agent_session": self.can_manage_agent_session,
        })
    }
}

impl Show for lk::TrackInfo {
    fn json(&self) -> Value {
        use lk::encryption::Type as Encryption;
        let policy = named(self.backup_codec_policy, lk::BackupCodecPolicy::as_str_name);
        let features = names(&self.audio_features, lk::AudioTrackFeature::as_str_name);
        let trailer = names(&self.packet_trailer_features, lk::PacketTrailerFeature::as_str_name);
        json!({
            "sid": self.sid,
            "type": named(self.r#type, lk::TrackType::as_str_name),
            "name": self.name,
            "muted": self.muted,
            "width": self.width,
            "height": self.height,
            "simulcast": self.simulcast,
            "disable_dtx": self.disable_dtx,
            "source": named(self.source, lk::TrackSource::as_str_name),
            "layers": list(&self.layers),
            "mime_type": self.mime_type,
            "mid": self.mid,
            "codecs": list(&self.codecs),
            "stereo": self.stereo,
            "disable_red": self.disable_red,
            "encryption": named(self.encryption, Encryption::as_str_name),
            "stream": self.stream,
            "version": maybe(self.version.as_ref()),
            "audio_features": features,
            "backup_codec_policy": policy,
            "packet_trailer_features": trailer,
        })
    }
}

impl Show for lk::VideoLayer {
    fn json(&self) -> Value {
        json!({
            "quality": named(self.quality, lk::VideoQuality::as_str_name),
            "width": self.width,
            "height": self.height,
            "bitrate": self.bitrate,
            "ssrc": self.ssrc,
            "spatial_layer": self.spatial_layer,
            "rid": self.rid,
            "repair_ssrc": self.repair_ssrc,
        })
    }
}

impl Show for lk::SimulcastCodecInfo {
    fn json(&self) -> Value {
        use lk::video_layer::Mode;
        json!({
            "mime_type": self.mime_type,
            "mid": self.mid,
            "cid": self.cid,
            "layers": list(&self.layers),
            "video_layer_mode": named(self.video_layer_mode, Mode::as_str_name),
            "sdp_cid": self.sdp_cid,
        })
    }
}

impl Show for lk::DataTrackInfo {
    fn json(&self) -> Value {
        use lk::encryption::Type as Encryption;
        json!({
            "pub_handle": self.pub_handle,
            "sid": self.sid,
            "name": self.name,
            "encryption": named(self.encryption, Encryption::as_str_name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What we write is read back as the same message by the definitions' own reader.
    #[test]
    fn everything_is_read_back_as_it_was() {
        let track = lk::TrackInfo {
            sid: "TR_VC1".into(),
            r#type: 1,
            source: 1,
            layers: vec![lk::VideoLayer { quality: 2, ssrc: 7, ..lk::VideoLayer::default() }],
            codecs: vec![lk::SimulcastCodecInfo {
                mime_type: "video/vp8".into(),
                video_layer_mode: 1,
                ..lk::SimulcastCodecInfo::default()
            }],
            encryption: 1,
            audio_features: vec![0, 2],
            version: Some(lk::TimedVersion { unix_micro: 1 << 60, ticks: 3 }),
            ..lk::TrackInfo::default()
        };
        let participant = lk::ParticipantInfo {
            sid: "PA_1".into(),
            identity: "ann".into(),
            state: 2,
            tracks: vec![track],
            joined_at_ms: 1 << 60,
            permission: Some(lk::ParticipantPermission {
                can_publish_sources: vec![1, 2],
                ..lk::ParticipantPermission::default()
            }),
            kind: 4,
            attributes: [("a".to_owned(), "b".to_owned())].into(),
            disconnect_reason: 4,
            capabilities: vec![1],
            data_tracks: vec![lk::DataTrackInfo {
                name: "d".into(),
                ..lk::DataTrackInfo::default()
            }],
            ..lk::ParticipantInfo::default()
        };
        let message = lk::ListParticipantsResponse { participants: vec![participant] };
        let read: lk::ListParticipantsResponse =
            serde_json::from_value(super::super::twirp::without_nulls(message.json())).unwrap();
        assert_eq!(read, message);
    }

    #[test]
    fn unset_fields_are_written_and_wide_numbers_are_texts() {
        let room = lk::Room { creation_time: 5, ..lk::Room::default() }.json();
        assert_eq!(room["metadata"], "");
        assert_eq!(room["max_participants"], 0);
        assert_eq!(room["creation_time"], "5");
        assert_eq!(room["active_recording"], false);
        assert!(room["version"].is_null());
        let unknown = lk::ParticipantInfo { state: 77, ..lk::ParticipantInfo::default() }.json();
        assert_eq!(unknown["state"], 77);
    }
}
