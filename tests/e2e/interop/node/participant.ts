// One participant on the Node SDK, driven by lines of JSON.
//
//   node participant.ts URL TOKEN
//
// Standard input takes one command a line, standard output answers each with one line:
//
//   {"do": "publish"}                 camera and microphone, both synthetic
//   {"do": "data", "text": "…"}
//   {"do": "report"}                  what was received since the start
import readline from 'node:readline';
import {
  AudioFrame,
  AudioSource,
  AudioStream,
  LocalAudioTrack,
  LocalVideoTrack,
  type RemoteTrack,
  Room,
  RoomEvent,
  TrackKind,
  TrackPublishOptions,
  TrackSource,
  VideoBufferType,
  VideoFrame,
  VideoSource,
  VideoStream,
} from '@livekit/rtc-node';

const [width, height, rate, block] = [320, 180, 48_000, 480];
const seen = { frames: 0, sounds: 0, width: 0, data: [] as string[], events: [] as string[] };

async function watch(track: RemoteTrack): Promise<void> {
  for await (const { frame } of new VideoStream(track)) {
    seen.frames += 1;
    seen.width = frame.width;
  }
}

/** Counts the blocks of sound that are above silence. */
async function hear(track: RemoteTrack): Promise<void> {
  for await (const frame of new AudioStream(track, rate, 1)) {
    if (frame.data.some((sample) => Math.abs(sample) > 300)) seen.sounds += 1;
  }
}

/** Bars that wander. */
async function paint(source: VideoSource): Promise<void> {
  const picture = new Uint8Array(width * height * 1.5).fill(110);
  for (let n = 0; ; n += 1) {
    for (let at = 0; at < width * height; at += 1) picture[at] = 16 + (((at % width) + n * 4) % 220);
    source.captureFrame(new VideoFrame(picture, width, height, VideoBufferType.I420));
    await new Promise((resolve) => setTimeout(resolve, 66));
  }
}

/** A tone of 400 Hz: four periods in a block. */
async function sing(source: AudioSource): Promise<void> {
  const wave = Int16Array.from({ length: block }, (_, n) => 9000 * Math.sin((8 * Math.PI * n) / block));
  for (;;) await source.captureFrame(new AudioFrame(wave, rate, 1, block));
}

async function publish(room: Room): Promise<void> {
  const [video, audio] = [new VideoSource(width, height), new AudioSource(rate, 1)];
  const me = room.localParticipant!;
  const camera = LocalVideoTrack.createVideoTrack('camera', video);
  await me.publishTrack(camera, new TrackPublishOptions({ source: TrackSource.SOURCE_CAMERA }));
  const microphone = LocalAudioTrack.createAudioTrack('microphone', audio);
  await me.publishTrack(microphone, new TrackPublishOptions({ source: TrackSource.SOURCE_MICROPHONE }));
  void paint(video);
  void sing(audio);
}

async function obey(room: Room, command: { do: string; text?: string }): Promise<unknown> {
  switch (command.do) {
    case 'publish':
      return publish(room);
    case 'data':
      return room.localParticipant!.publishData(new TextEncoder().encode(command.text), { reliable: true });
    case 'report':
      return seen;
    default:
      throw new Error(`unknown command ${command.do}`);
  }
}

const say = (answer: object) => console.log(JSON.stringify(answer));
const room = new Room();
room.on(RoomEvent.TrackSubscribed, (track) => void (track.kind === TrackKind.KIND_VIDEO ? watch(track) : hear(track)));
room.on(RoomEvent.DataReceived, (payload) => void seen.data.push(new TextDecoder().decode(payload)));
room.on(RoomEvent.ParticipantDisconnected, () => void seen.events.push('left'));
room.on(RoomEvent.Disconnected, () => void seen.events.push('disconnected'));
const [url, token] = process.argv.slice(2);
await room.connect(url!, token!, { autoSubscribe: true, dynacast: false });
say({ joined: room.name });
for await (const line of readline.createInterface({ input: process.stdin })) {
  await obey(room, JSON.parse(line)).then(
    (answer) => say({ ok: true, answer }),
    (error: unknown) => say({ ok: false, error: String(error) }),
  );
}
