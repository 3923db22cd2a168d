import { describe, expect, it, vi } from 'vitest';
import { begin, CheckProblem, store } from '../src/check/api';
import { browserFacts, browserFinding } from '../src/check/browser';
import {
  deviceFinding,
  localNetworkFinding,
  signalingFinding,
  speakerFinding,
  wayFinding,
} from '../src/check/conclude';
import { between, qualityFinding, readSample } from '../src/check/measure';
import { limited, nothingSeen, onlyCandidates, onlyServers, wayOfUrl } from '../src/check/ways';
import type { CheckReport, Finding, Measured } from '../src/shared/checks/report';
import { spelled, WAYS } from '../src/shared/checks/report';
import { findingWords, verdict } from '../src/shared/checks/words';
import { localNetwork } from '../src/shared/local-network';

const UDP = 'candidate:1 1 udp 2130706431 203.0.113.7 7882 typ host';
const TCP = 'candidate:2 1 tcp 1671430143 203.0.113.7 7882 typ host tcptype passive';
const SERVERS: RTCIceServer[] = [
  {
    urls: ['turn:a.example:3478?transport=udp', 'turn:a.example:3478?transport=tcp'],
    username: 'u',
    credential: 'c',
  },
  { urls: 'turns:a.example:443?transport=tcp', username: 'u', credential: 'c' },
  { urls: 'stun:a.example' },
];

describe('ways', () => {
  it('are told by the address of a relay', () => {
    expect(wayOfUrl('turn:a.example')).toBe('relay_udp');
    expect(wayOfUrl('turn:a.example:3478?transport=tcp')).toBe('relay_tcp');
    expect(wayOfUrl('turns:a.example')).toBe('relay_tls');
    expect(wayOfUrl('stun:a.example')).toBeNull();
  });

  it('keep their own relay only, with its credential', () => {
    const tcp = onlyServers(SERVERS, 'relay_tcp');
    expect(tcp).toEqual([
      { urls: ['turn:a.example:3478?transport=tcp'], username: 'u', credential: 'c' },
    ]);
    expect(onlyServers(SERVERS, 'udp')).toEqual([]);
    expect(onlyServers(SERVERS, 'relay_tls')[0]?.urls).toEqual([
      'turns:a.example:443?transport=tcp',
    ]);
  });

  it('keep their own candidates only', () => {
    const sdp = `v=0\r\na=${UDP}\r\na=${TCP}\r\na=end-of-candidates\r\n`;
    expect(onlyCandidates(sdp, 'tcp')).toBe(`v=0\r\na=${TCP}\r\na=end-of-candidates\r\n`);
    // A relay reaches candidates by UDP, however it is reached itself.
    for (const way of ['udp', 'relay_udp', 'relay_tcp', 'relay_tls'] as const) {
      expect(onlyCandidates(sdp, way)).toBe(`v=0\r\na=${UDP}\r\na=end-of-candidates\r\n`);
    }
  });

  it('are held to wherever a connection is made or changed', async () => {
    const told: unknown[] = [];
    class Native {
      constructor(config?: RTCConfiguration) {
        told.push(config);
      }
      setConfiguration(config?: RTCConfiguration) {
        told.push(config);
      }
      setRemoteDescription(description: RTCSessionDescriptionInit) {
        told.push(description.sdp);
        return Promise.resolve();
      }
      addIceCandidate(candidate?: RTCIceCandidateInit) {
        told.push(candidate?.candidate);
        return Promise.resolve();
      }
    }
    const seen = nothingSeen();
    const Limited = limited(Native as unknown as typeof RTCPeerConnection, 'relay_tls', seen);
    const peer = new Limited();
    peer.setConfiguration({ iceServers: SERVERS });
    await peer.setRemoteDescription({ type: 'answer', sdp: `a=${UDP}\r\na=${TCP}\r\n` });
    await peer.addIceCandidate({ candidate: TCP });
    await peer.addIceCandidate({ candidate: UDP });
    const relayed = { iceTransportPolicy: 'relay' };
    expect(told).toEqual([
      { ...relayed, iceServers: [] },
      { ...relayed, iceServers: onlyServers(SERVERS, 'relay_tls') },
      `a=${UDP}\r\n`,
      UDP,
    ]);
    // What there would be besides is known all the same.
    expect([...seen.ways].sort()).toEqual([...WAYS].sort());
  });
});

describe('the browser', () => {
  const facts = (agent: string) => {
    const { name, version, system } = browserFacts(agent);
    return `${name} ${version} ${system}`;
  };
  it('is read from what it says, and nothing else is', () => {
    const webkit = 'AppleWebKit/537.36 (KHTML, like Gecko)';
    expect(facts(`Mozilla/5.0 (Windows NT 10.0) ${webkit} Chrome/142.0.0.0 Safari/537.36`)).toBe(
      'chrome 142 windows',
    );
    expect(facts(`Mozilla/5.0 (Windows NT 10.0) ${webkit} Chrome/142.0 Safari/537 Edg/141.0`)).toBe(
      'edge 141 windows',
    );
    expect(facts('Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0')).toBe(
      'firefox 140 linux',
    );
    expect(
      facts('Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1'),
    ).toBe('safari 18 ios');
    expect(facts(`Mozilla/5.0 (Linux; Android 14) SamsungBrowser/25.0 Chrome/121.0 Safari`)).toBe(
      'samsung 25 android',
    );
    expect(facts('')).toBe('other 0 other');
    expect(facts(`${'x'.repeat(100_000)} Chrome/99999999`)).toBe('chrome 9999 other');
  });

  it('has what a call needs, or not', () => {
    const all = { secure: true, peers: true, sockets: true, devices: true };
    const chrome = { name: 'chrome', version: 142, system: 'linux' } as const;
    expect(browserFinding(chrome, all)).toEqual({ subject: 'browser', outcome: 'ok' });
    expect(browserFinding({ ...chrome, version: 80 }, all).reason).toBe('old');
    expect(browserFinding({ ...chrome, version: 0 }, all).outcome).toBe('ok');
    expect(browserFinding(chrome, { ...all, secure: false, devices: false }).reason).toBe(
      'insecure',
    );
    expect(browserFinding(chrome, { ...all, peers: false })).toMatchObject({
      outcome: 'failed',
      reason: 'unsupported',
    });
  });
});

describe('findings', () => {
  const offered = new Set(WAYS);
  it('tell a blocked way from one that is not offered, and from an opened TLS', () => {
    expect(wayFinding('tcp', null, true).reason).toBe('not_offered');
    expect(wayFinding('tcp', { signaling: 9, media: 80, offered }, true)).toEqual({
      subject: 'tcp',
      outcome: 'ok',
      ms: 80,
    });
    const none = { signaling: 9, media: null, offered };
    expect(wayFinding('udp', none, true).reason).toBe('blocked');
    expect(wayFinding('relay_tls', none, true).reason).toBe('intercepted');
    expect(wayFinding('relay_tls', none, false).reason).toBe('blocked');
    expect(wayFinding('relay_tls', { ...none, signaling: null }, true).reason).toBe('blocked');
    expect(signalingFinding({ ...none, signaling: null }).reason).toBe('intercepted');
  });

  it('speak of the local network only where it matters', () => {
    expect(localNetworkFinding('prompt', false, true)).toBeNull();
    expect(localNetworkFinding('unknown', true, false)).toBeNull();
    expect(localNetworkFinding('granted', true, true)?.outcome).toBe('ok');
    expect(localNetworkFinding('denied', false, false)?.reason).toBe('denied');
    expect(localNetworkFinding('prompt', true, false)?.reason).toBe('prompt');
  });

  it('know a silent microphone and a sound that nobody heard', () => {
    const track = {} as MediaStreamTrack;
    expect(deviceFinding('microphone', { is: 'on', track }, false).reason).toBe('silent');
    expect(deviceFinding('camera', { is: 'on', track }, false).outcome).toBe('ok');
    const denied = deviceFinding('camera', { is: 'problem', problem: 'denied' }, false);
    expect(denied).toEqual({ subject: 'camera', outcome: 'failed', reason: 'denied' });
    expect(deviceFinding('camera', { is: 'off' }, false).outcome).toBe('skipped');
    expect([true, false, null].map((heard) => speakerFinding(heard).outcome)).toEqual([
      'ok',
      'failed',
      'skipped',
    ]);
  });
});

describe('what a line carries', () => {
  const up = (packets: number, bytes: number, lost: number) => [
    { type: 'outbound-rtp', packetsSent: packets, bytesSent: bytes },
    { type: 'remote-inbound-rtp', packetsLost: lost },
    { type: 'candidate-pair', nominated: true, currentRoundTripTime: 0.0304 },
    { type: 'candidate-pair', nominated: false, currentRoundTripTime: 9 },
  ];
  const down = (packets: number, bytes: number, lost: number) => [
    { type: 'inbound-rtp', packetsReceived: packets, bytesReceived: bytes, packetsLost: lost, jitter: 0.004 },
  ];

  it('is what lies between two samples', () => {
    const first = readSample(up(100, 100_000, 2), down(90, 90_000, 1), 0);
    const last = readSample(up(1100, 1_100_000, 12), down(1080, 840_000, 11), 5_000);
    expect(between(first, last)).toEqual({
      roundTripMs: 30,
      jitterMs: 4,
      lostUpPerMille: 10,
      lostDownPerMille: 10,
      upKbps: 1600,
      downKbps: 1200,
    });
  });

  it('is nothing when nothing came through, and never out of bounds', () => {
    const none = readSample(up(100, 1, 0), down(90, 1, 0), 0);
    expect(between(none, { ...none, at: 5_000 })).toBeNull();
    expect(between(none, none)).toBeNull();
    const wild = readSample(
      [{ type: 'outbound-rtp', packetsSent: 1e12, bytesSent: 1e18 }, { type: 'remote-inbound-rtp', packetsLost: Number.NaN }],
      [{ type: 'inbound-rtp', packetsReceived: 500, bytesReceived: 1e18, packetsLost: -5, jitter: 'x' }],
      5_000,
    );
    const measured = between(none, wild);
    expect(measured).toMatchObject({ upKbps: 100_000, lostUpPerMille: 0, lostDownPerMille: 0 });
  });

  it('is judged by what people notice', () => {
    const good: Measured = {
      roundTripMs: 30,
      jitterMs: 4,
      lostUpPerMille: 10,
      lostDownPerMille: 10,
      upKbps: 1600,
      downKbps: 1200,
    };
    const reason = (change: Partial<Measured>) => qualityFinding({ ...good, ...change }).reason;
    expect(reason({})).toBeUndefined();
    expect(reason({ downKbps: 200 })).toBe('narrow');
    expect(reason({ lostUpPerMille: 100 })).toBe('lossy');
    expect(reason({ roundTripMs: 700 })).toBe('delayed');
    expect(reason({ jitterMs: 90 })).toBe('uneven');
  });
});

describe('words', () => {
  const report = (...findings: Finding[]): CheckReport => ({
    browser: { name: 'chrome', version: 142, system: 'linux' },
    findings: [{ subject: 'signaling', outcome: 'ok' }, ...findings],
  });
  const udp: Finding = { subject: 'udp', outcome: 'ok' };

  it('say in one sentence what counts', () => {
    expect(verdict(report(udp)).tone).toBe('good');
    // A blocked way costs nothing while another one works.
    expect(verdict(report(udp, { subject: 'tcp', outcome: 'failed', reason: 'blocked' })).tone).toBe(
      'good',
    );
    expect(verdict(report(udp, { subject: 'camera', outcome: 'failed', reason: 'none' })).tone).toBe(
      'warn',
    );
    const mute: Finding = { subject: 'microphone', outcome: 'failed', reason: 'none' };
    expect(verdict(report(udp, mute)).title).toContain('nobody would hear you');
    expect(verdict(report({ subject: 'udp', outcome: 'failed', reason: 'blocked' })).tone).toBe('bad');
  });

  it('say what to do for all that does not work', () => {
    const reasons = ['denied', 'none', 'busy', 'insecure', 'unsupported', 'old', 'blocked', 'intercepted', 'full', 'silent', 'lossy', 'delayed', 'uneven', 'narrow', 'prompt', 'other'] as const;
    const subjects = ['browser', 'camera', 'microphone', 'speaker', 'signaling', ...WAYS, 'quality', 'local_network'] as const;
    for (const subject of subjects) {
      expect(findingWords({ subject, outcome: 'ok' })).toBeNull();
      for (const reason of reasons) {
        const words = findingWords({ subject, outcome: 'failed', reason });
        expect(words?.title.length, `${subject} ${reason}`).toBeGreaterThan(10);
        expect(words?.advice.length, `${subject} ${reason}`).toBeGreaterThan(10);
      }
    }
    const opened = findingWords({ subject: 'relay_tls', outcome: 'failed', reason: 'intercepted' });
    expect(opened?.advice).toContain('cannot carry a video consultation');
  });

  it('spell a code in two groups', () => {
    expect(spelled('CDFH3479')).toBe('CDFH 3479');
  });
});

describe('the server’s side', () => {
  const answer = (status: number, body: object) => async () =>
    new Response(JSON.stringify(body), { status });

  it('is begun and told, with the clinic where one is named', async () => {
    const fetcher = vi.fn(answer(201, { code: 'CDFH3479' }));
    const report = { browser: browserFacts(''), findings: [] };
    expect(await store('ticket', 'north', report, fetcher)).toEqual({ code: 'CDFH3479' });
    await store('ticket', null, report, fetcher);
    const bodies = fetcher.mock.calls.map((call) => JSON.parse((call as unknown as [string, RequestInit])[1].body as string));
    expect(bodies).toEqual([
      { ticket: 'ticket', clinic: 'north', report },
      { ticket: 'ticket', report },
    ]);
  });

  it('says why it is not to be had', async () => {
    const reason = async (fetcher: () => Promise<Response>) =>
      begin(fetcher).catch((error: unknown) => (error as CheckProblem).reason);
    expect(await reason(answer(429, {}))).toBe('full');
    expect(await reason(answer(503, {}))).toBe('full');
    expect(await reason(answer(404, {}))).toBe('not_offered');
    expect(await reason(answer(500, {}))).toBe('other');
    expect(await reason(() => Promise.reject(new TypeError('network')))).toBe('blocked');
  });
});

describe('the local network', () => {
  const asks = (known: string[], state: PermissionState) => ({
    query: ({ name }: { name: string }) =>
      known.includes(name)
        ? Promise.resolve({ state } as PermissionStatus)
        : Promise.reject(new TypeError('no such permission')),
  });
  it('is asked about under its new and its old name', async () => {
    const ask = (known: string[]) => localNetwork(asks(known, 'denied') as unknown as Permissions);
    expect(await ask(['local-network', 'local-network-access'])).toBe('denied');
    expect(await ask(['local-network-access'])).toBe('denied');
    expect(await ask([])).toBe('unknown');
    expect(await localNetwork(undefined)).toBe('unknown');
  });
});
