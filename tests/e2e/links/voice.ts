// A sound that is never silent, so that every concealed sample is one that somebody would miss.
import fs from 'node:fs';

const rate = 48_000;

/** Writes ten seconds of a hummed, wavering vowel as a WAV file (16 bit, mono). */
export function writeVoice(path: string): void {
  const samples = rate * 10;
  const data = Buffer.alloc(44 + samples * 2);
  data.write('RIFF', 0);
  data.writeUInt32LE(36 + samples * 2, 4);
  data.write('WAVEfmt ', 8);
  data.writeUInt32LE(16, 16);
  data.writeUInt16LE(1, 20);
  data.writeUInt16LE(1, 22);
  data.writeUInt32LE(rate, 24);
  data.writeUInt32LE(rate * 2, 28);
  data.writeUInt16LE(2, 32);
  data.writeUInt16LE(16, 34);
  data.write('data', 36);
  data.writeUInt32LE(samples * 2, 40);
  let phase = 0;
  for (let n = 0; n < samples; n += 1) {
    const t = n / rate;
    // Pitch and loudness move as in speech, but never rest. Whole periods in ten seconds: no click.
    phase += (2 * Math.PI * (140 + 25 * Math.sin(2 * Math.PI * 0.7 * t))) / rate;
    let value = 0;
    for (let k = 1; k <= 12; k += 1) value += Math.sin(k * phase) / k;
    const loudness = 0.22 + 0.1 * Math.sin(2 * Math.PI * 3.1 * t);
    data.writeInt16LE(Math.round(value * loudness * 16_000), 44 + n * 2);
  }
  fs.writeFileSync(path, data);
}
