// What a page receives, read from getStats of the connections that `watchPeers` collected.
import { expect, type Page } from '@playwright/test';

export interface Received {
  frames: number;
  audioEnergy: number;
  audioPackets: number;
  width: number;
  height: number;
  /** SSRC → frames decoded, to count the videos that flow. */
  videos: Record<string, number>;
}

/** Anything that can run a function in a page: Playwright's Page or our Firefox. */
export interface Evaluates {
  evaluate<R, A>(fn: (arg: A) => R | Promise<R>, arg: A): Promise<R>;
}

export async function received(page: Evaluates): Promise<Received> {
  return page.evaluate(async () => {
    const sum = { frames: 0, audioEnergy: 0, audioPackets: 0, width: 0, height: 0, videos: {} };
    const peers = (window as unknown as { peers?: RTCPeerConnection[] }).peers ?? [];
    for (const peer of peers.filter((p) => p.connectionState !== 'closed')) {
      (await peer.getStats()).forEach((s) => {
        if (s.type !== 'inbound-rtp') return;
        if (s.kind === 'video') {
          sum.frames += s.framesDecoded ?? 0;
          sum.width = Math.max(sum.width, s.frameWidth ?? 0);
          sum.height = Math.max(sum.height, s.frameHeight ?? 0);
          (sum.videos as Record<string, number>)[s.ssrc] = s.framesDecoded ?? 0;
        } else {
          sum.audioEnergy += s.totalAudioEnergy ?? 0;
          sum.audioPackets += s.packetsReceived ?? 0;
        }
      });
    }
    return sum;
  }, undefined);
}

/** The state of a page and its connections, for the message of a failing test. */
export async function explain(page: Evaluates): Promise<string> {
  return page
    .evaluate(() => {
      const peers = (window as unknown as { peers?: RTCPeerConnection[] }).peers ?? [];
      const told = peers.map((p) => {
        const tracks = (all: { track: MediaStreamTrack | null }[]) =>
          all.flatMap(({ track }) => (track ? [`${track.kind} ${track.readyState}${track.muted ? ' muted' : ''}`] : []));
        const [sends, gets] = [tracks(p.getSenders()), tracks(p.getReceivers())];
        return `${p.connectionState} (ICE ${p.iceConnectionState}, ${p.signalingState}; sends ${sends}; gets ${gets})`;
      });
      const words = document.body.innerText.replace(/\s+/g, ' ').slice(0, 500);
      return `connections: ${told.join('; ') || 'none'}\npage: ${words}`;
    }, undefined)
    .catch((error: unknown) => `the page tells nothing: ${error}`);
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `videos` videos gain frames and (if wanted) the sound gains energy, both in one second. */
export async function expectMedia(page: Evaluates, want: { videos: number; audio: boolean }, ms = 30_000): Promise<Received> {
  const end = Date.now() + ms;
  let seen = '';
  while (Date.now() < end) {
    const before = await received(page);
    await sleep(1000);
    const after = await received(page);
    const gained = Object.entries(after.videos).filter(([ssrc, n]) => n > (before.videos[ssrc] ?? 0)).length;
    // The fake microphone beeps once a second: energy rises well above the noise of silence.
    const sound = after.audioEnergy - before.audioEnergy;
    if (gained === want.videos && (!want.audio || sound > 1e-5)) return after;
    seen = `${gained} videos gained frames, audio energy +${sound.toExponential(1)}, ${JSON.stringify(after)}`;
  }
  expect(seen, `wanted ${JSON.stringify(want)}\n${await explain(page)}`).toBe('');
  throw new Error('unreachable');
}

/** Longest time without a new audio packet while `ms` pass. */
export async function longestAudioGap(page: Page, ms: number): Promise<number> {
  return page.evaluate(async (ms) => {
    const peers = (window as unknown as { peers: RTCPeerConnection[] }).peers;
    const count = async () => {
      let n = 0;
      for (const peer of peers.filter((p) => p.connectionState !== 'closed')) {
        (await peer.getStats()).forEach((s) => {
          if (s.type === 'inbound-rtp' && s.kind === 'audio') n += s.packetsReceived ?? 0;
        });
      }
      return n;
    };
    const end = performance.now() + ms;
    let [last, at, gap] = [await count(), performance.now(), 0];
    while (performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      const n = await count();
      if (n > last) {
        gap = Math.max(gap, performance.now() - at);
        [last, at] = [n, performance.now()];
      }
    }
    return Math.max(gap, performance.now() - at);
  }, ms);
}

/** What the page's media travels on, and where to: the page was opened with `watchPeers`. */
export async function used(page: Page): Promise<{ protocol: string; address: string }[]> {
  return page.evaluate(async () => {
    const found: { protocol: string; address: string }[] = [];
    const { peers } = window as unknown as { peers: RTCPeerConnection[] };
    for (const peer of peers.filter((p) => p.connectionState === 'connected')) {
      const stats = [...((await peer.getStats()) as unknown as Map<string, Record<string, string>>).values()];
      const transport = stats.find((s) => s.type === 'transport')!;
      const pair = stats.find((s) => s.id === transport.selectedCandidatePairId)!;
      const { protocol, address } = stats.find((s) => s.id === pair.remoteCandidateId)!;
      found.push({ protocol: protocol!, address: address! });
    }
    return found;
  });
}
