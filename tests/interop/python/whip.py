"""Publishes a moving picture and a tone by FFmpeg's own WHIP muxer until standard input ends.

    whip.py URL TOKEN

Prints lines of JSON.
"""

import json
import math
import struct
import sys
import threading
import time
from fractions import Fraction

import av

WIDTH, HEIGHT, RATE = 320, 240, 15
SAMPLES = 960


def tell(**what) -> None:
    print(json.dumps(what), flush=True)


def picture(number: int) -> av.VideoFrame:
    """Stripes that move."""
    frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
    for plane, step in zip(frame.planes, (4, 0, 0)):
        row = bytes((x + number * step) % 200 + 20 for x in range(plane.line_size))
        plane.update(row * plane.height)
    frame.pts, frame.time_base = number, Fraction(1, RATE)
    return frame


def tone(number: int) -> av.AudioFrame:
    """20 ms of 440 Hz."""
    frame = av.AudioFrame("s16", "stereo", SAMPLES)
    first = number * SAMPLES
    values = (int(8_000 * math.sin(math.tau * 440 * (first + n) / 48_000)) for n in range(SAMPLES))
    frame.planes[0].update(b"".join(struct.pack("<hh", value, value) for value in values))
    frame.sample_rate, frame.pts, frame.time_base = 48_000, first, Fraction(1, 48_000)
    return frame


def main() -> None:
    url, token = sys.argv[1:3]
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    options = {"authorization": token, "handshake_timeout": "60000", "strict": "experimental"}
    container = av.open(url, "w", format="whip", options=options)
    video = container.add_stream("libx264", rate=RATE)
    video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    video.options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "bf": "0"}
    video.gop_size = RATE
    audio = container.add_stream("libopus", rate=48_000)
    audio.layout = "stereo"
    start, pictures, tones = time.monotonic(), 0, 0
    container.start_encoding()
    tell(connected=round(time.monotonic() - start, 2))
    start = time.monotonic()
    while not over.is_set():
        passed = time.monotonic() - start
        if tones * SAMPLES / 48_000 <= passed:
            container.mux(audio.encode(tone(tones)))
            tones += 1
        elif pictures / RATE <= passed:
            container.mux(video.encode(picture(pictures)))
            pictures += 1
            if pictures % RATE == 0:
                tell(pictures=pictures)
        else:
            time.sleep(0.005)
    container.close()
    tell(closed=True)


main()
