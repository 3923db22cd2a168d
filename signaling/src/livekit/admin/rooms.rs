//! Calls about rooms: make, list, delete, metadata, data.

use bedside_sfu::core::api::{Command, DataChannelKind, LeaveReason, ParticipantSid, Private};
use bytes::Bytes;
use livekit_protocol as lk;
use livekit_protocol::data_packet::{Kind, Value};
use prost::Message as _;
use tokio::time::timeout;

use super::twirp::{Code, Error, error};
use super::{BUSY, Call};
use crate::engine::Busy;
use crate::limits;
use crate::livekit::{convert, door};
use crate::rooms::{DoorRefusal, RoomSettings};

/// A number that senders mark their messages with, so that one sent twice arrives once.
const NONCE: usize = 16;

pub(super) async fn create(call: &Call, asked: lk::CreateRoomRequest) -> Result<lk::Room, Error> {
    call.about(&asked.name);
    call.grants(|grant| grant.room_create)?;
    let name = asked.name.as_str();
    if name.is_empty() || name.len() > limits::NAME {
        return Err(error(Code::InvalidArgument, "a room's name has 1 to 256 bytes"));
    }
    metadata_fits(&asked.metadata)?;
    if asked.egress.is_some() || !asked.agents.is_empty() || asked.replay_enabled {
        return Err(error(Code::Unimplemented, "egress, agents and replay are not served"));
    }
    call.shared.admits(name).map_err(refused)?;
    let plan = timeout(door::DOORKEEPER, call.shared.door.create(name)).await;
    let plan = plan.map_err(|_| error(Code::Unavailable, "the server cannot decide now"))?;
    let plan = plan.map_err(refused)?;
    let settings = RoomSettings::from(&asked);
    let room = call.shared.make_room(name, plan, &settings).map_err(|Busy| BUSY)?;
    call.done(room).await?;
    told(call, name)
}

const fn refused(refusal: DoorRefusal) -> Error {
    match refusal {
        DoorRefusal::NoRoom => error(Code::NotFound, "no such room, and it cannot be made"),
        DoorRefusal::NotAllowed => {
            error(Code::PermissionDenied, "rooms without a consultation are not made here")
        }
        DoorRefusal::Full => error(Code::FailedPrecondition, "the room is full"),
        DoorRefusal::Draining => error(Code::Unavailable, "no new rooms are taken now"),
    }
}

impl From<&lk::CreateRoomRequest> for RoomSettings {
    fn from(asked: &lk::CreateRoomRequest) -> Self {
        Self::new(
            asked.max_participants,
            (asked.empty_timeout, asked.departure_timeout),
            asked.metadata.clone(),
            (asked.min_playout_delay, asked.max_playout_delay),
        )
    }
}

pub(super) async fn list(
    call: &Call,
    asked: lk::ListRoomsRequest,
) -> Result<lk::ListRoomsResponse, Error> {
    call.grants(|grant| grant.room_list)?;
    let wanted = |name: &str| asked.names.is_empty() || asked.names.iter().any(|n| n == name);
    let rooms = call.shared.rooms(wanted).iter().map(convert::room).collect();
    Ok(lk::ListRoomsResponse { rooms })
}

pub(super) async fn delete(
    call: &Call,
    asked: lk::DeleteRoomRequest,
) -> Result<lk::DeleteRoomResponse, Error> {
    call.about(&asked.room);
    call.grants(|grant| grant.room_create)?;
    let room = call.room(&asked.room)?;
    let close = Command::CloseRoom { room, reason: LeaveReason::RoomDeleted };
    call.shared.send(room, close).map_err(|Busy| BUSY)?;
    call.done(room).await?;
    Ok(lk::DeleteRoomResponse {})
}

pub(super) async fn update_metadata(
    call: &Call,
    asked: lk::UpdateRoomMetadataRequest,
) -> Result<lk::Room, Error> {
    call.administers(&asked.room)?;
    metadata_fits(&asked.metadata)?;
    let room = call.room(&asked.room)?;
    let metadata = Private::new(asked.metadata);
    call.shared.set_metadata(&asked.room, &metadata).map_err(|Busy| BUSY)?;
    call.done(room).await?;
    told(call, &asked.room)
}

pub(super) async fn send_data(
    call: &Call,
    asked: lk::SendDataRequest,
) -> Result<lk::SendDataResponse, Error> {
    call.administers(&asked.room)?;
    let room = call.room(&asked.room)?;
    if asked.data.len() > limits::DATA {
        return Err(error(Code::InvalidArgument, "data has up to 60,000 bytes"));
    }
    if !matches!(asked.nonce.len(), 0 | NONCE) {
        return Err(error(Code::InvalidArgument, "a nonce has 16 bytes"));
    }
    let topic = asked.topic.as_ref().map_or(0, String::len);
    #[allow(deprecated, reason = "senders still name receivers by it")]
    let receivers = asked.destination_identities.len() + asked.destination_sids.len();
    if topic > limits::NAME || receivers > limits::TRACK_IDS {
        return Err(error(Code::InvalidArgument, "too many receivers, or too long a topic"));
    }
    if !asked.nonce.is_empty() && !call.shared.is_news(&asked.room, &asked.nonce) {
        return Ok(lk::SendDataResponse {});
    }
    let command = packet(room, asked);
    call.shared.send(room, command).map_err(|Busy| BUSY)?;
    call.done(room).await?;
    Ok(lk::SendDataResponse {})
}

/// The message as it goes to clients. The server itself speaks, so no participant is named.
#[allow(deprecated, reason = "clients still read receivers inside")]
fn packet(room: bedside_sfu::core::api::RoomKey, asked: lk::SendDataRequest) -> Command {
    let kind = asked.kind();
    let channel = match kind {
        Kind::Reliable => DataChannelKind::Reliable,
        Kind::Lossy => DataChannelKind::Lossy,
    };
    let to = asked.destination_identities.iter().cloned().map(Private::new).collect();
    let sids = asked.destination_sids.iter().map(|sid| ParticipantSid(sid.as_str().into()));
    let to_sids = sids.collect();
    let user = lk::UserPacket {
        payload: asked.data,
        destination_sids: asked.destination_sids,
        destination_identities: asked.destination_identities.clone(),
        topic: asked.topic,
        nonce: asked.nonce,
        ..lk::UserPacket::default()
    };
    let packet = lk::DataPacket {
        kind: kind as i32,
        destination_identities: asked.destination_identities,
        value: Some(Value::User(user)),
        ..lk::DataPacket::default()
    };
    let payload = Bytes::from(packet.encode_to_vec());
    Command::SendData { room, channel, payload, to, to_sids }
}

/// The room as it is now.
fn told(call: &Call, name: &str) -> Result<lk::Room, Error> {
    let info = call.shared.room_info(name);
    info.map(|info| convert::room(&info)).ok_or_else(|| error(Code::NotFound, "no such room"))
}

fn metadata_fits(metadata: &str) -> Result<(), Error> {
    if metadata.len() > limits::METADATA {
        return Err(error(Code::InvalidArgument, "metadata has up to 512 KiB"));
    }
    Ok(())
}
