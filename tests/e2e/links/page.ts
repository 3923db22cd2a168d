// One person in a call over a measured link: livekit-client as it comes.
import * as sdk from 'livekit-client';

/** What the page has seen so far; counters only grow. */
export interface Sample {
  /** Milliseconds since the click on "join". */
  at: number;
  audio: Record<string, number>;
  video: Record<string, number>;
  sent: Record<string, number | string>;
}

interface Bench {
  join(url: string, token: string): Promise<void>;
  firstFrame?: number;
  sample(): Promise<Sample>;
}

declare global {
  interface Window {
    links: Bench;
    peers: RTCPeerConnection[];
  }
}

const counters = {
  audio: [
    'bytesReceived', 'packetsReceived', 'packetsLost', 'concealedSamples', 'silentConcealedSamples', 'concealmentEvents',
    'totalSamplesReceived', 'jitterBufferDelay', 'jitterBufferTargetDelay', 'jitterBufferEmittedCount', 'nackCount', 'packetsDiscarded',
    'insertedSamplesForDeceleration', 'removedSamplesForAcceleration', 'fecPacketsReceived', 'retransmittedPacketsReceived',
  ],
  video: [
    'bytesReceived', 'packetsReceived', 'packetsLost', 'retransmittedPacketsReceived', 'framesReceived', 'framesDecoded',
    'framesDropped', 'keyFramesDecoded', 'freezeCount', 'totalFreezesDuration', 'pliCount', 'nackCount', 'firCount', 'frameHeight',
    'jitterBufferDelay', 'jitterBufferEmittedCount', 'framesPerSecond', 'totalDecodeTime', 'framesAssembledFromMultiplePackets',
  ],
};

let click = 0;
const links: Bench = {
  async join(url, token) {
    const room = new sdk.Room();
    room.on(sdk.RoomEvent.TrackSubscribed, (track) => {
      const element = track.attach();
      document.body.append(element);
      if (element instanceof HTMLVideoElement) {
        element.requestVideoFrameCallback(() => {
          links.firstFrame ??= performance.now() - click;
        });
      }
    });
    click = performance.now();
    await room.connect(url, token);
    const me = room.localParticipant;
    await Promise.all([
      me.setMicrophoneEnabled(true),
      me.setCameraEnabled(true, { resolution: { width: 640, height: 360, frameRate: 20 } }),
    ]);
  },
  async sample() {
    const sample: Sample = { at: performance.now() - click, audio: {}, video: {}, sent: {} };
    for (const peer of window.peers.filter((p) => p.connectionState !== 'closed')) {
      (await peer.getStats()).forEach((s) => {
        if (s.type === 'inbound-rtp') {
          const kind = s.kind as 'audio' | 'video';
          for (const name of counters[kind]) sample[kind][name] = s[name] ?? 0;
        } else if (s.type === 'outbound-rtp' && s.kind === 'video') {
          for (const name of ['framesEncoded', 'frameHeight', 'targetBitrate', 'bytesSent', 'retransmittedBytesSent', 'nackCount', 'pliCount', 'keyFramesEncoded', 'qualityLimitationReason', 'packetsSent']) {
            sample.sent[`${s.rid ?? ''}.${name}`] = s[name];
          }
        } else if (s.type === 'candidate-pair' && s.nominated && s.availableOutgoingBitrate) {
          sample.sent.available = s.availableOutgoingBitrate;
          sample.sent.roundTrip = s.currentRoundTripTime;
        } else if (s.type === 'remote-inbound-rtp') {
          sample.sent[`${s.kind}.lost`] = s.fractionLost;
        }
      });
    }
    return sample;
  },
};
window.links = links;
document.title = 'ready';
