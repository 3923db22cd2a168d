// Is our own link weak? Judged from the browser's counters, two samples at a time.

export interface LinkSample {
  received: number;
  /** Of these, packets of sound and of pictures. */
  sound: number;
  picture: number;
  lost: number;
  /** The loss of what we send, as the server reports it, 0 to 1. */
  sendLoss: number;
  roundTripMs: number;
  /** Anything at all that came from the server: packets, and answers to connectivity checks. */
  heard: number;
}

/** Adds up the counters of several tracks. */
export function readLink(reports: readonly RTCStatsReport[]): LinkSample {
  const sample: LinkSample = { received: 0, sound: 0, picture: 0, lost: 0, sendLoss: 0, roundTripMs: 0, heard: 0 };
  for (const report of reports) {
    report.forEach((stat: Record<string, unknown>) => {
      if (stat.type === 'inbound-rtp') {
        sample.received += number(stat.packetsReceived);
        if (stat.kind === 'video') sample.picture += number(stat.packetsReceived);
        else sample.sound += number(stat.packetsReceived);
        sample.lost += number(stat.packetsLost);
      } else if (stat.type === 'remote-inbound-rtp') {
        sample.sendLoss = Math.max(sample.sendLoss, number(stat.fractionLost));
        sample.roundTripMs = Math.max(sample.roundTripMs, number(stat.roundTripTime) * 1000);
      } else if (stat.type === 'candidate-pair') {
        // Every report of one connection repeats its pairs: the largest is the one in use.
        const heard = number(stat.packetsReceived) + number(stat.responsesReceived);
        sample.heard = Math.max(sample.heard, heard);
      }
    });
  }
  return sample;
}

const WEAK_LOSS = 0.08;
const WEAK_ROUND_TRIP_MS = 700;
/** Below this many packets a share says nothing. */
const ENOUGH_PACKETS = 30;

export function linkIsWeak(before: LinkSample, now: LinkSample): boolean {
  const received = Math.max(0, now.received - before.received);
  // A resend can make the counter of lost packets fall.
  const lost = Math.max(0, now.lost - before.lost);
  const total = received + lost;
  if (total >= ENOUGH_PACKETS && lost / total > WEAK_LOSS) return true;
  return now.sendLoss > WEAK_LOSS || now.roundTripMs > WEAK_ROUND_TRIP_MS;
}

/** Has a counter stood still for so many samples in a row that something must be wrong? */
export class Standstill {
  readonly #samples: number;
  #last: number | null = null;
  #still = 0;

  constructor(samples: number) {
    this.#samples = samples;
  }

  /** Takes the next sample; true once so many more have been equal to it. */
  add(value: number): boolean {
    this.#still = value === this.#last ? this.#still + 1 : 0;
    this.#last = value;
    return this.#still >= this.#samples;
  }

  /** Nothing is expected for now. */
  reset(): void {
    this.#last = null;
    this.#still = 0;
  }
}

function number(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) ? value : 0;
}
