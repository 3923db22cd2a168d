"""The Python server SDK against a room server: every call of its room service, and its receiver.

    BEDSIDE_URL=http://127.0.0.1:8000 BEDSIDE_ROOM=ward test_admin.py

Somebody of the identity `browser` must be in the room. BEDSIDE_HOOKS is a JSON list of webhooks as
they came: `body` and `authorization`.
"""

import json
import os
import unittest

from livekit import api

URL = os.environ.get("BEDSIDE_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("BEDSIDE_API_KEY", "devkey")
SECRET = os.environ.get("BEDSIDE_API_SECRET", "secret")
ROOM = os.environ.get("BEDSIDE_ROOM", "ward")
HOOKS = json.loads(os.environ.get("BEDSIDE_HOOKS", "[]"))
WHO = {"room": ROOM, "identity": "browser"}

CALLS = {
    "create_room": api.CreateRoomRequest(name=ROOM),
    "list_rooms": api.ListRoomsRequest(),
    "list_participants": api.ListParticipantsRequest(room=ROOM),
    "get_participant": api.RoomParticipantIdentity(**WHO),
    "update_participant": api.UpdateParticipantRequest(**WHO, metadata="of Python"),
    "update_subscriptions": api.UpdateSubscriptionsRequest(**WHO, track_sids=["TR_AM1"]),
    "send_data": api.SendDataRequest(room=ROOM, data=b"of Python", topic="python"),
    "update_room_metadata": api.UpdateRoomMetadataRequest(room=ROOM, metadata="of Python"),
}
# What ends things, or is not to succeed.
LAST = {
    "delete_room": api.DeleteRoomRequest(room="python"),
    "mute_published_track": api.MuteRoomTrackRequest(**WHO, track_sid="TR_AM1", muted=True),
    "remove_participant": api.RoomParticipantIdentity(room=ROOM, identity="nobody"),
}


class Administration(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.sdk = api.LiveKitAPI(URL, KEY, SECRET)
        self.rooms = self.sdk.room

    async def asyncTearDown(self) -> None:
        await self.sdk.aclose()

    async def fails(self, rooms, name: str, request) -> tuple[int, str]:
        with self.assertRaises(api.TwirpError, msg=name) as raised:
            await getattr(rooms, name)(request)
        return raised.exception.status, raised.exception.code

    async def test_every_call_is_served(self) -> None:
        answers = {name: await getattr(self.rooms, name)(ask) for name, ask in CALLS.items()}
        self.assertEqual(answers["create_room"].name, ROOM)
        self.assertIn(ROOM, [room.name for room in answers["list_rooms"].rooms])
        people = answers["list_participants"].participants
        self.assertEqual([one.identity for one in people], ["browser"])
        self.assertEqual(answers["get_participant"].sid, people[0].sid)
        self.assertEqual(answers["update_participant"].metadata, "of Python")
        self.assertEqual(answers["update_room_metadata"].metadata, "of Python")
        await self.rooms.create_room(api.CreateRoomRequest(name="python", max_participants=3))
        await self.rooms.delete_room(LAST["delete_room"])
        for name, ask in LAST.items():
            self.assertEqual(await self.fails(self.rooms, name, ask), (404, "not_found"), name)

    async def test_no_call_is_served_without_its_grant(self) -> None:
        weak = api.LiveKitAPI(URL, KEY, SECRET)
        try:
            joins = api.VideoGrants(room_join=True, room=ROOM)
            weak.room._auth_header = lambda grants: header(joins)
            for name, ask in {**CALLS, **LAST}.items():
                told = await self.fails(weak.room, name, ask)
                self.assertEqual(told, (403, "permission_denied"), name)
            weak.room._auth_header = lambda grants: {}
            for name, ask in {**CALLS, **LAST}.items():
                told = await self.fails(weak.room, name, ask)
                self.assertEqual(told, (401, "unauthenticated"), name)
        finally:
            await weak.aclose()

    async def test_the_receiver_takes_what_is_ours(self) -> None:
        self.assertTrue(HOOKS)
        receiver = api.WebhookReceiver(api.TokenVerifier(KEY, SECRET))
        for hook in HOOKS:
            event = receiver.receive(hook["body"], hook["authorization"])
            self.assertTrue(event.room.sid.startswith("RM_"))
            with self.assertRaises(Exception):
                receiver.receive(hook["body"] + " ", hook["authorization"])


def header(grants: api.VideoGrants) -> dict[str, str]:
    token = api.AccessToken(KEY, SECRET).with_identity("somebody").with_grants(grants).to_jwt()
    return {"Authorization": f"Bearer {token}"}


if __name__ == "__main__":
    unittest.main()
