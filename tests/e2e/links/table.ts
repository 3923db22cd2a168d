// The table in docs/quality.md: our figures beside those of an SFU in wide use, measured alike.
import fs from 'node:fs';
import path from 'node:path';
import { rows, type Received, type Recovery } from './rows.js';

/** One measured row. */
export interface Entry {
  name: string;
  firstFrame: number;
  /** Of the machine, one-minute mean. */
  load: number;
  date: string;
  patient?: Received;
  doctor?: Received;
  patientAfter?: Recovery;
  doctorAfter?: Recovery;
}

const kept = path.join(import.meta.dirname, 'measured.json');
const page = path.resolve(import.meta.dirname, '../../../docs/quality.md');
const [opening, closing] = ['<!-- links -->', '<!-- /links -->'];

/** What that SFU gave with its defaults: the cells as they are shown. */
const rival: Record<string, string[]> = {
  good: ['611', '0 / 0', '37 / 30', '20 / 20', '0 / 0', '242 / 246'],
  l5: ['714', '0.24 / 0.46', '49 / 57', '20 / 20', '1.8 / 5.9', '243 / 203'],
  l10: ['1119', '0.93 / 0.79', '34 / 56', '20 / 19.1', '7.7 / 18.3', '243 / 118'],
  l20: ['3554', '3.36 / 4.15', '47 / 53', '14.7 / 12.2', '44.6 / 55.3', '233 / 85'],
  burst: ['595', '7.51 / 3.14', '39 / 52', '19.9 / 19.8', '6 / 18.9', '242 / 148'],
  '500k': ['695', '0 / 0.08', '63 / 86', '20 / 19.9', '0 / 0', '244 / 123'],
  '200k': ['1097', '3.17 / 0.14', '168 / 461', '8.4 / 13.2', '53.6 / 0', '85 / 33'],
  far: ['3361', '0 / 0', '58 / 60', '20 / 20', '0 / 0', '241 / 246'],
  mobile: ['2387', '1.18 / 0.86', '75 / 60', '20 / 19.7', '1.2 / 19.2', '242 / 123'],
  dip: ['500', '1.3 / 0', '638 / 666', '–', '–', 'back after 11 s / 26 s'],
  dark: ['510', '0 / 0', '20 / 15', '–', '–', 'back after 1 s / 13 s'],
};

const short = (value: number, digits: number): string => String(Number(value.toFixed(digits)));

function cells(entry: Entry): string[] {
  const first = short(entry.firstFrame, 0);
  const { patient, doctor, patientAfter, doctorAfter } = entry;
  if (patient && doctor) {
    const pair = (name: keyof Received, digits: number) => `${short(patient[name], digits)} / ${short(doctor[name], digits)}`;
    return [first, pair('concealed', 2), pair('audioDelay', 0), pair('fps', 1), pair('frozen', 1), pair('kbit', 0)];
  }
  const both = [patientAfter, doctorAfter];
  const back = both.map((side) => (side?.back == null ? 'not' : `${side.back} s`)).join(' / ');
  const pair = (name: 'concealed' | 'audioDelay', digits: number) => both.map((side) => short(side?.[name] ?? 0, digits)).join(' / ');
  return [first, pair('concealed', 2), pair('audioDelay', 0), '–', '–', `back after ${back}`];
}

/** Puts a row into the kept figures and writes the table anew. */
export function writeTable(found: Entry): void {
  const entries: Record<string, Entry> = fs.existsSync(kept) ? JSON.parse(fs.readFileSync(kept, 'utf8')) : {};
  entries[found.name] = found;
  fs.writeFileSync(kept, `${JSON.stringify(entries, null, 2)}\n`);
  const lines = [
    '| link | | first frame, ms | audio concealed %, patient / doctor | audio delay, ms | frames/s | frozen % | kbit/s |',
    '|---|---|---|---|---|---|---|---|',
  ];
  for (const row of rows) {
    const entry = entries[row.name];
    if (!entry) continue;
    lines.push(`| ${row.words} | **Bedside** | ${cells(entry).join(' | ')} |`, `| | other | ${rival[row.name]!.join(' | ')} |`);
  }
  const text = fs.readFileSync(page, 'utf8');
  const [from, to] = [text.indexOf(opening), text.indexOf(closing)];
  if (from < 0 || to < from) throw new Error(`${page} has no place for the table`);
  fs.writeFileSync(page, `${text.slice(0, from + opening.length)}\n${lines.join('\n')}\n${text.slice(to)}`);
}
