// A plain page that uses livekit-client directly, as any outside application would.
import * as sdk from 'livekit-client';

interface Bench {
  sdk: typeof sdk;
  room?: sdk.Room;
  events: string[];
  data: { text: string; bytes: number; from?: string; reliable: boolean; topic?: string }[];
  texts: { text: string; from: string; topic: string }[];
  join(url: string, token: string, options?: sdk.RoomOptions): Promise<number>;
  publish(): Promise<void>;
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
  async join(url, token, options = {}) {
    const room = new sdk.Room(options);
    bench.room = room;
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
};
window.bench = bench;
document.title = 'ready';
