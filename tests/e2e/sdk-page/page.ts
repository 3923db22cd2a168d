// A plain page that uses livekit-client directly, as any outside application would.
import * as sdk from 'livekit-client';

interface Bench {
  sdk: typeof sdk;
  room?: sdk.Room;
  events: string[];
  data: { text: string; bytes: number; from?: string; reliable: boolean; topic?: string }[];
  texts: { text: string; from: string; topic: string }[];
  /** The key of end-to-end encryption, to be changed in mid-call. */
  keys?: sdk.ExternalE2EEKeyProvider;
  /** With `key`, media and data are encrypted from end to end. */
  join(url: string, token: string, options?: sdk.RoomOptions, key?: string): Promise<number>;
  publish(): Promise<void>;
  /** What came of everybody else since the page was opened. */
  received(): Promise<Record<string, From>>;
}

/** What came of one other person. */
export interface From {
  /** Pictures decoded. */
  frames: number;
  /** Energy of the decoded sound. */
  energy: number;
  /** Packets of pictures and of sounds, opened or not. */
  packets: { video: number; audio: number };
  codecs: string[];
}

declare global {
  interface Window {
    bench: Bench;
  }
}

const bench: Bench = {
  sdk,
  events: [],
  data: [],
  texts: [],
  async join(url, token, options = {}, key) {
    const room = new sdk.Room(key ? { ...options, encryption: encryption() } : options);
    bench.room = room;
    if (key) {
      await bench.keys!.setKey(key);
      await room.setE2EEEnabled(true);
    }
    const quiet: string[] = [sdk.RoomEvent.ActiveSpeakersChanged, sdk.RoomEvent.DataReceived];
    for (const name of Object.values(sdk.RoomEvent)) {
      if (quiet.includes(name)) continue;
      room.on(name as sdk.RoomEvent.Connected, () => void bench.events.push(name));
    }
    room.on(sdk.RoomEvent.DataReceived, (payload, from, kind, topic) => {
      const text = new TextDecoder().decode(payload.slice(0, 64));
      const reliable = kind === sdk.DataPacket_Kind.RELIABLE;
      bench.data.push({ text, bytes: payload.length, from: from?.identity, reliable, topic });
    });
    room.on(sdk.RoomEvent.TrackSubscribed, (track) => void document.body.append(track.attach()));
    room.on(sdk.RoomEvent.TrackUnsubscribed, (track) => track.detach().forEach((e) => e.remove()));
    room.registerTextStreamHandler('notes', async (reader, from) => {
      bench.texts.push({ text: await reader.readAll(), from: from.identity, topic: 'notes' });
    });
    room.registerRpcMethod('echo', async (call) => `${call.callerIdentity}: ${call.payload}`);
    const start = performance.now();
    await room.connect(url, token);
    return performance.now() - start;
  },
  async publish() {
    const me = bench.room!.localParticipant;
    await Promise.all([me.setCameraEnabled(true), me.setMicrophoneEnabled(true)]);
  },
  async received() {
    const all: Record<string, From> = {};
    for (const them of bench.room!.remoteParticipants.values()) {
      const from: From = { frames: 0, energy: 0, packets: { video: 0, audio: 0 }, codecs: [] };
      all[them.identity] = from;
      for (const { track } of them.trackPublications.values()) {
        const stats = await (track as sdk.RemoteTrack | undefined)?.receiver?.getStats();
        stats?.forEach((s) => {
          if (s.type !== 'inbound-rtp') return;
          from.frames += s.framesDecoded ?? 0;
          from.energy += s.totalAudioEnergy ?? 0;
          from.packets[s.kind as 'video' | 'audio'] += s.packetsReceived ?? 0;
          from.codecs.push(stats.get(s.codecId)?.mimeType ?? '');
        });
      }
    }
    return all;
  },
};

function encryption(): sdk.E2EEOptions {
  bench.keys = new sdk.ExternalE2EEKeyProvider();
  return { keyProvider: bench.keys, worker: new Worker('e2ee-worker.js', { type: 'module' }) };
}

window.bench = bench;
document.title = 'ready';
