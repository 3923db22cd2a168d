"""aiortc over HTTP: publishes by WHIP or watches by WHEP, until standard input ends.

    rtc.py publish|watch URL TOKEN

Prints lines of JSON.
"""

import asyncio
import json
import sys
import urllib.error
import urllib.request
from urllib.parse import urljoin

import av
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaStreamError
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack


def tell(**what) -> None:
    print(json.dumps(what), flush=True)


class Bars(VideoStreamTrack):
    """A picture that is not the same twice."""

    number = 0

    async def recv(self) -> av.VideoFrame:
        pts, time_base = await self.next_timestamp()
        frame = av.VideoFrame(320, 240, "yuv420p")
        self.number += 1
        for plane, step in zip(frame.planes, (4, 0, 0)):
            row = bytes((x + self.number * step) % 200 + 20 for x in range(plane.line_size))
            plane.update(row * plane.height)
        frame.pts, frame.time_base = pts, time_base
        return frame


class Noise(AudioStreamTrack):
    """Loud enough to be told from silence."""

    async def recv(self) -> av.AudioFrame:
        frame = await super().recv()
        for plane in frame.planes:
            plane.update(bytes((7 * n) % 64 if n % 2 else 0 for n in range(plane.buffer_size)))
        return frame


def ask(method: str, url: str, token: str, body: bytes | None = None, **headers):
    headers["authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, body, headers, method=method)
    return urllib.request.urlopen(request, timeout=20)


def peak(frame: av.AudioFrame) -> int:
    samples = memoryview(bytes(frame.planes[0])).cast("h")
    return max(abs(sample) for sample in samples)


async def count(track, counted: dict) -> None:
    """Counts what was decoded."""
    try:
        while True:
            frame = await track.recv()
            if track.kind == "video":
                counted["frames"] += 1
                counted["size"] = [frame.width, frame.height]
            else:
                counted["blocks"] += 1
                counted["peak"] = max(counted["peak"], peak(frame))
    except MediaStreamError:
        pass


async def main() -> None:
    purpose, url, token = sys.argv[1:4]
    pc = RTCPeerConnection()
    counted = {"frames": 0, "size": [0, 0], "blocks": 0, "peak": 0}
    tasks = []
    if purpose == "publish":
        for track in (Bars(), Noise()):
            pc.addTransceiver(track, direction="sendonly")
    else:
        for kind in ("audio", "video"):
            pc.addTransceiver(kind, direction="recvonly")
        pc.on("track", lambda track: tasks.append(asyncio.ensure_future(count(track, counted))))
    pc.on("connectionstatechange", lambda: tell(state=pc.connectionState))
    await pc.setLocalDescription(await pc.createOffer())
    offer = pc.localDescription.sdp.encode()
    try:
        answer = ask("POST", url, token, offer, **{"content-type": "application/sdp"})
    except urllib.error.HTTPError as error:
        return tell(refused=error.code)
    location, text = urljoin(url, answer.headers["location"]), answer.read().decode()
    await pc.setRemoteDescription(RTCSessionDescription(text, "answer"))
    tell(location=location)
    loop = asyncio.get_running_loop()
    over = loop.run_in_executor(None, sys.stdin.read)
    while not over.done():
        await asyncio.wait([over], timeout=0.5)
        tell(**counted)
    tell(deleted=ask("DELETE", location, token).status)
    await pc.close()


asyncio.run(main())
