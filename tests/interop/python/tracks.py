"""A participant on the Python SDK that publishes a data track and reads those of others.

    tracks.py URL TOKEN [two]

Pushes a frame on its track "breath" five times a second. Prints each frame that it reads as a JSON
object of `from`, `track` and `text`. With "two" it keeps two connections. Ends with its input.
"""

import asyncio
import json
import sys

from livekit import rtc


async def read(track: rtc.RemoteDataTrack) -> None:
    async for frame in track.subscribe():
        line = {"from": track.publisher_identity, "track": track.info.name}
        print(json.dumps(line | {"text": bytes(frame.payload[:40]).decode()}), flush=True)


async def breathe(track: rtc.LocalDataTrack) -> None:
    for number in range(1 << 30):
        track.try_push(rtc.DataTrackFrame(payload=f"breath {number}".encode()))
        await asyncio.sleep(0.2)


async def main(url: str, token: str, mode: str = "") -> None:
    room, tasks = rtc.Room(), []

    @room.on("data_track_published")
    def published(track: rtc.RemoteDataTrack) -> None:
        tasks.append(asyncio.create_task(read(track)))

    await room.connect(url, token, rtc.RoomOptions(single_peer_connection=mode != "two"))
    track = await room.local_participant.publish_data_track(name="breath")
    tasks.append(asyncio.create_task(breathe(track)))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await room.disconnect()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
