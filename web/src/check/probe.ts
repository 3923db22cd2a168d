// Real connections to a room of the check's own: once for each way, then a call with oneself over the
// best of them. What is sent is a tone and a drawn picture, nothing of the person.

import { LogLevel, Room, RoomEvent, setLogLevel, Track } from 'livekit-client';
import { roomAddress } from '../shared/call/address';
import type { Measured, Way } from '../shared/checks/report';
import type { Begun } from './api';
import { between, readSample, type Sample } from './measure';
import { limited, nothingSeen, type Seen } from './ways';

setLogLevel(LogLevel.silent);

/** A way that takes longer is of no use in a call. */
const TRY_MS = 10_000;
/** The estimator needs a moment to dare more. */
const WARM_UP_MS = 2_500;
const MEASURE_MS = 5_000;
const FIRST_PACKET_MS = 10_000;
/** As much as a good picture takes in a call. */
const PICTURE_BPS = 1_500_000;

const pause = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

/** How one way went. */
export interface Tried {
  /** Did the WebSocket open and the server answer? */
  signaling: number | null;
  /** How long it took until media could flow. */
  media: number | null;
  /** The ways that this server offers. */
  offered: ReadonlySet<Way>;
}

/** Connects by one way alone and leaves again. */
export async function tryWay(begun: Begun, way: Way): Promise<Tried> {
  const seen = nothingSeen();
  const start = performance.now();
  const since = () => Math.round(performance.now() - start);
  const room = new Room();
  let signaling: number | null = null;
  room.on(RoomEvent.SignalConnected, () => {
    signaling ??= since();
  });
  try {
    await connect(room, begun.url, begun.probeToken, way, seen);
    await until(() => seen.peers.some(isConnected), TRY_MS - since());
    return { signaling, media: since(), offered: seen.ways };
  } catch {
    return { signaling, media: null, offered: seen.ways };
  } finally {
    await leave(room, seen);
  }
}

async function connect(
  room: Room,
  url: string,
  token: string,
  way: Way | null,
  seen: Seen,
): Promise<void> {
  const Native = window.RTCPeerConnection;
  window.RTCPeerConnection = limited(Native, way, seen);
  try {
    const joined = room.connect(roomAddress(url), token, {
      maxRetries: 0,
      peerConnectionTimeout: TRY_MS,
      websocketTimeout: TRY_MS,
    });
    await Promise.race([
      joined,
      pause(TRY_MS).then(() => Promise.reject(new Error('it took too long'))),
    ]);
  } finally {
    window.RTCPeerConnection = Native;
  }
}

const isConnected = (peer: RTCPeerConnection) => peer.connectionState === 'connected';

async function until(holds: () => boolean, ms: number): Promise<void> {
  const end = performance.now() + ms;
  while (!holds()) {
    if (performance.now() > end) throw new Error('it took too long');
    await pause(50);
  }
}

async function leave(room: Room, seen: Seen): Promise<void> {
  await room.disconnect().catch(() => undefined);
  for (const peer of seen.peers) peer.close();
}

/** A call with oneself: what a line carries, loses and delays. Null: nothing came through. */
export async function measure(begun: Begun): Promise<Measured | null> {
  const up = nothingSeen();
  const down = nothingSeen();
  const probe = new Room({ dynacast: false });
  const echo = new Room({ adaptiveStream: false });
  const source = new TestSource();
  try {
    await connect(echo, begun.url, begun.echoToken, null, down);
    await connect(probe, begun.url, begun.probeToken, null, up);
    await publish(probe, source);
    await flowing(up, down);
    await pause(WARM_UP_MS);
    const first = await sample(up, down);
    await pause(MEASURE_MS);
    return between(first, await sample(up, down));
  } catch {
    return null;
  } finally {
    source.stop();
    await Promise.all([leave(probe, up), leave(echo, down)]);
  }
}

async function publish(room: Room, source: TestSource): Promise<void> {
  const me = room.localParticipant;
  await Promise.all([
    me.publishTrack(source.sound, { source: Track.Source.Microphone, dtx: false, red: true }),
    me.publishTrack(source.picture, {
      source: Track.Source.Camera,
      simulcast: false,
      videoCodec: 'vp8',
      videoEncoding: { maxBitrate: PICTURE_BPS, maxFramerate: 25 },
    }),
  ]);
}

/** Waits for the first packets of the way back. */
async function flowing(up: Seen, down: Seen): Promise<void> {
  const end = performance.now() + FIRST_PACKET_MS;
  while ((await sample(up, down)).receivedPackets === 0) {
    if (performance.now() > end) throw new Error('nothing came through');
    await pause(200);
  }
}

async function sample(up: Seen, down: Seen): Promise<Sample> {
  const rows = async (seen: Seen) => {
    const reports = await Promise.all(seen.peers.map((peer) => peer.getStats()));
    return reports.flatMap((report) => [...report.values()]);
  };
  return readSample(await rows(up), await rows(down), performance.now());
}

/** A tone, and a picture of noise, which takes as many bits as it is given. */
class TestSource {
  readonly sound: MediaStreamTrack;
  readonly picture: MediaStreamTrack;
  #audio = new AudioContext();
  #drawing: ReturnType<typeof setInterval>;

  constructor() {
    const tone = this.#audio.createOscillator();
    const quiet = this.#audio.createGain();
    const out = this.#audio.createMediaStreamDestination();
    quiet.gain.value = 0.1;
    tone.connect(quiet).connect(out);
    tone.start();
    const canvas = document.createElement('canvas');
    canvas.width = 640;
    canvas.height = 360;
    this.#drawing = setInterval(() => drawNoise(canvas), 40);
    drawNoise(canvas);
    this.sound = first(out.stream.getAudioTracks());
    this.picture = first(canvas.captureStream(25).getVideoTracks());
  }

  stop(): void {
    clearInterval(this.#drawing);
    this.sound.stop();
    this.picture.stop();
    void this.#audio.close().catch(() => undefined);
  }
}

function first(tracks: MediaStreamTrack[]): MediaStreamTrack {
  const track = tracks[0];
  if (!track) throw new Error('the browser makes no test picture or tone');
  return track;
}

/** Blocks of random grey; each some pixels wide, since finer noise is thrown away before it is sent. */
function drawNoise(canvas: HTMLCanvasElement): void {
  const context = canvas.getContext('2d');
  if (!context) return;
  const block = 16;
  for (let y = 0; y < canvas.height; y += block) {
    for (let x = 0; x < canvas.width; x += block) {
      const grey = Math.floor(Math.random() * 256);
      context.fillStyle = `rgb(${grey} ${grey} ${grey})`;
      context.fillRect(x, y, block, block);
    }
  }
}
