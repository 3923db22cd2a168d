//! The calls one by one are tried at a door with an engine behind it (`tests/admin.rs`).

use super::*;

#[test]
fn every_call_of_the_service_is_known() {
    let names = [
        "CreateRoom",
        "ListRooms",
        "DeleteRoom",
        "ListParticipants",
        "GetParticipant",
        "RemoveParticipant",
        "MutePublishedTrack",
        "UpdateParticipant",
        "UpdateSubscriptions",
        "SendData",
        "UpdateRoomMetadata",
        "ForwardParticipant",
        "MoveParticipant",
        "PerformRpc",
    ];
    for name in names {
        let (known, method) = named(name).unwrap();
        assert_eq!((known, format!("{method:?}").as_str()), (name, name));
    }
    for name in ["", "createRoom", "CreateRoom ", "Create"] {
        assert_eq!(named(name), None);
    }
}
