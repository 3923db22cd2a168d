// What the statistics of both sides say about a line, between two moments.

import type { Finding, Measured } from '../shared/checks/report';

/** Sums of one moment. */
export interface Sample {
  at: number;
  sentBytes: number;
  sentPackets: number;
  /** What the server told of our packets; it only rises. */
  lostUp: number;
  receivedBytes: number;
  receivedPackets: number;
  lostDown: number;
  jitterMs: number;
  roundTripMs: number;
}

type Row = Record<string, unknown> & { type?: string };

const number = (value: unknown): number =>
  typeof value === 'number' && Number.isFinite(value) ? value : 0;

/** Reads the sending and the receiving side's statistics. */
export function readSample(up: Iterable<unknown>, down: Iterable<unknown>, at: number): Sample {
  const sample: Sample = {
    at,
    sentBytes: 0,
    sentPackets: 0,
    lostUp: 0,
    receivedBytes: 0,
    receivedPackets: 0,
    lostDown: 0,
    jitterMs: 0,
    roundTripMs: 0,
  };
  for (const row of up as Iterable<Row>) {
    if (row.type === 'outbound-rtp') {
      sample.sentBytes += number(row.bytesSent);
      sample.sentPackets += number(row.packetsSent);
    } else if (row.type === 'remote-inbound-rtp') {
      sample.lostUp += Math.max(0, number(row.packetsLost));
    } else if (row.type === 'candidate-pair' && row.nominated === true) {
      sample.roundTripMs = Math.max(
        sample.roundTripMs,
        Math.round(number(row.currentRoundTripTime) * 1000),
      );
    }
  }
  for (const row of down as Iterable<Row>) {
    if (row.type !== 'inbound-rtp') continue;
    sample.receivedBytes += number(row.bytesReceived);
    sample.receivedPackets += number(row.packetsReceived);
    sample.lostDown += Math.max(0, number(row.packetsLost));
    sample.jitterMs = Math.max(sample.jitterMs, Math.round(number(row.jitter) * 1000));
  }
  return sample;
}

const within = (value: number, most: number) => Math.min(most, Math.max(0, Math.round(value)));

/** What lies between two samples; nothing if nothing came through. */
export function between(first: Sample, last: Sample): Measured | null {
  const seconds = (last.at - first.at) / 1000;
  const sent = last.sentPackets - first.sentPackets;
  const received = last.receivedPackets - first.receivedPackets;
  if (seconds <= 0 || sent <= 0 || received <= 0) return null;
  const kbps = (bytes: number) => within((bytes * 8) / 1000 / seconds, 100_000);
  const lostUp = Math.max(0, last.lostUp - first.lostUp);
  const lostDown = Math.max(0, last.lostDown - first.lostDown);
  return {
    roundTripMs: within(last.roundTripMs, 600_000),
    jitterMs: within(last.jitterMs, 600_000),
    lostUpPerMille: within((lostUp * 1000) / sent, 1000),
    lostDownPerMille: within((lostDown * 1000) / (received + lostDown), 1000),
    upKbps: kbps(last.sentBytes - first.sentBytes),
    downKbps: kbps(last.receivedBytes - first.receivedBytes),
  };
}

/** From here on people notice it, although loss is repaired and delay is smoothed. */
const LOSSY_PER_MILLE = 80;
const DELAYED_MS = 400;
const UNEVEN_MS = 60;
/** A small picture and a voice. */
const NARROW_KBPS = 300;

export function qualityFinding(measured: Measured): Finding {
  const subject = 'quality';
  const lost = Math.max(measured.lostUpPerMille, measured.lostDownPerMille);
  if (Math.min(measured.upKbps, measured.downKbps) < NARROW_KBPS) {
    return { subject, outcome: 'warning', reason: 'narrow' };
  }
  if (lost > LOSSY_PER_MILLE) return { subject, outcome: 'warning', reason: 'lossy' };
  if (measured.roundTripMs > DELAYED_MS) return { subject, outcome: 'warning', reason: 'delayed' };
  if (measured.jitterMs > UNEVEN_MS) return { subject, outcome: 'warning', reason: 'uneven' };
  return { subject, outcome: 'ok' };
}
