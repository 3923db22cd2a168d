// The links of the table, and what is read from the samples.
import type { Sample } from './page.js';

export interface Row {
  /** `link-<name>.toml` in tests/netimp/profiles. */
  name: string;
  words: string;
  /** The link worsens from one second after the join to another, and what comes after is the point. */
  worse?: [number, number];
}

export const rows: Row[] = [
  { name: 'good', words: 'good' },
  { name: 'l5', words: '5 % loss' },
  { name: 'l10', words: '10 % loss' },
  { name: 'l20', words: '20 % loss' },
  { name: 'burst', words: '10 % loss in runs of 5' },
  { name: '500k', words: '500 kbit/s' },
  { name: '200k', words: '200 kbit/s' },
  { name: 'far', words: '250 ms each way' },
  { name: 'mobile', words: '600 kbit/s, 60 ± 20 ms, 3 % loss in runs of 3' },
  { name: 'dip', words: '300 kbit/s from 30 s to 50 s', worse: [30, 50] },
  { name: 'dark', words: 'nothing passes from 20 s to 26 s', worse: [20, 26] },
];

/** Seconds that are left alone after the first frame, and seconds that are measured. */
export const settle = 8;
export const measured = 25;
/** Seconds that are watched after a worse time. */
export const watched = 40;

/** What one person receives. */
export interface Received {
  concealed: number;
  audioDelay: number;
  fps: number;
  frozen: number;
  kbit: number;
}

/** What one person sees of a worse time. */
export interface Recovery {
  concealed: number;
  /** The largest mean of one second, from the beginning of the worse time. */
  audioDelay: number;
  /** Seconds after it until 80 % of the bitrate are back; none while it was watched. */
  back: number | null;
}

const gain = (samples: Sample[], kind: 'audio' | 'video', name: string): number => {
  const [first, last] = [samples[0], samples.at(-1)];
  return (last?.[kind][name] ?? 0) - (first?.[kind][name] ?? 0);
};

const seconds = (samples: Sample[]): number => ((samples.at(-1)?.at ?? 0) - (samples[0]?.at ?? 0)) / 1000;

/** Of the picture: the voice takes the same everywhere. */
const bits = (samples: Sample[]): number => (8 * gain(samples, 'video', 'bytesReceived')) / 1000;

function concealed(samples: Sample[]): number {
  const heard = gain(samples, 'audio', 'concealedSamples') - gain(samples, 'audio', 'silentConcealedSamples');
  return (100 * heard) / Math.max(1, gain(samples, 'audio', 'totalSamplesReceived'));
}

function audioDelay(samples: Sample[]): number {
  const emitted = gain(samples, 'audio', 'jitterBufferEmittedCount');
  return emitted > 0 ? (1000 * gain(samples, 'audio', 'jitterBufferDelay')) / emitted : 0;
}

/** The figures of a steady link. */
export function received(samples: Sample[]): Received {
  const time = seconds(samples);
  return {
    concealed: concealed(samples),
    audioDelay: audioDelay(samples),
    fps: gain(samples, 'video', 'framesDecoded') / time,
    frozen: (100 * gain(samples, 'video', 'totalFreezesDuration')) / time,
    kbit: bits(samples) / time,
  };
}

/** The figures of a link that was worse for a while; `start` turns the page's clock into the link's. */
export function recovery(samples: Sample[], [from, to]: [number, number], start: number): Recovery {
  const between = (a: number, b: number) =>
    samples.filter((s) => s.at + start >= a * 1000 - 100 && s.at + start <= b * 1000 + 100);
  const before = between(from - 10, from);
  const usual = bits(before) / seconds(before);
  const pairs = samples.slice(1).map((s, n) => [samples[n]!, s]);
  const late = pairs.filter(([first]) => first!.at + start >= from * 1000 - 100);
  let back: number | null = null;
  for (let after = 0; after + 3 <= watched && back === null; after += 1) {
    // One good second may be repair that comes all at once: three must hold.
    const three = between(to + after, to + after + 3);
    if (three.length > 2 && bits(three) / seconds(three) >= 0.8 * usual) back = after + 1;
  }
  return { concealed: concealed(between(from, to)), audioDelay: Math.max(0, ...late.map(audioDelay)), back };
}
