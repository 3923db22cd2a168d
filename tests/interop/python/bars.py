"""A participant made with the Python SDK: publishes bars and a tone, counts what it receives.

    bars.py URL TOKEN SECONDS

Prints one JSON object per second on standard output; `frames`, `audio_frames` and `loud` (audio
frames above silence) only rise. Data that comes in is sent back with `echo: ` in front of it.
"""

import asyncio
import json
import sys

import numpy as np
from livekit import rtc

WIDTH, HEIGHT, RATE, STEP = 640, 360, 48_000, 480


class Counted:
    """What has come in so far."""

    def __init__(self) -> None:
        self.frames = 0
        self.size = [0, 0]
        self.audio_frames = 0
        self.loud = 0
        self.messages = 0

    def line(self) -> str:
        return json.dumps(vars(self))


async def watch_video(track: rtc.Track, seen: Counted) -> None:
    async for event in rtc.VideoStream(track):
        seen.frames += 1
        seen.size = [event.frame.width, event.frame.height]


async def watch_audio(track: rtc.Track, seen: Counted) -> None:
    async for event in rtc.AudioStream(track):
        seen.audio_frames += 1
        samples = np.frombuffer(event.frame.data, dtype=np.int16)
        if samples.size and int(np.abs(samples.astype(np.int32)).max()) > 300:
            seen.loud += 1


async def send_video(source: rtc.VideoSource) -> None:
    """Bars that wander, 15 pictures a second."""
    picture = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)
    picture[:, :, 3] = 255
    number = 0
    while True:
        columns = (np.arange(WIDTH) + number * 4) // 40 % 8
        picture[:, :, 0] = columns * 32
        picture[:, :, 1] = 255 - columns * 32
        picture[:, :, 2] = (columns * 96) % 256
        frame = rtc.VideoFrame(WIDTH, HEIGHT, rtc.VideoBufferType.RGBA, picture.tobytes())
        source.capture_frame(frame)
        number += 1
        await asyncio.sleep(1 / 15)


async def send_audio(source: rtc.AudioSource) -> None:
    """A tone of 440 Hz; the source's queue sets the pace."""
    at = 0
    while True:
        phase = 2 * np.pi * 440 / RATE * (np.arange(STEP) + at)
        samples = (np.sin(phase) * 8_000).astype(np.int16)
        await source.capture_frame(rtc.AudioFrame(samples.tobytes(), RATE, 1, STEP))
        at += STEP


async def main(url: str, token: str, seconds: float) -> None:
    room, seen, tasks = rtc.Room(), Counted(), []

    @room.on("track_subscribed")
    def subscribed(track: rtc.Track, *_: object) -> None:
        video = track.kind == rtc.TrackKind.KIND_VIDEO
        tasks.append(asyncio.create_task((watch_video if video else watch_audio)(track, seen)))

    @room.on("data_received")
    def received(packet: rtc.DataPacket) -> None:
        seen.messages += 1
        reply = room.local_participant.publish_data(b"echo: " + packet.data, reliable=True)
        tasks.append(asyncio.create_task(reply))

    await room.connect(url, token)
    me = room.local_participant
    video, audio = rtc.VideoSource(WIDTH, HEIGHT), rtc.AudioSource(RATE, 1)
    await me.publish_track(
        rtc.LocalVideoTrack.create_video_track("bars", video),
        rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA, video_codec=rtc.VideoCodec.VP8),
    )
    await me.publish_track(
        rtc.LocalAudioTrack.create_audio_track("tone", audio),
        rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE),
    )
    tasks += [asyncio.create_task(send_video(video)), asyncio.create_task(send_audio(audio))]
    for _ in range(int(seconds)):
        await asyncio.sleep(1)
        print(seen.line(), flush=True)
    for task in tasks:
        task.cancel()
    await room.disconnect()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
