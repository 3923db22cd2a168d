// Times and durations as people read them.

/** `7:05`, `1:02:09`: for the running clock of a call. Never negative. */
export function clock(ms: number): string {
  const total = Math.max(0, Math.floor(ms / 1000));
  const seconds = String(total % 60).padStart(2, '0');
  const minutes = Math.floor(total / 60) % 60;
  const hours = Math.floor(total / 3600);
  return hours > 0
    ? `${hours}:${String(minutes).padStart(2, '0')}:${seconds}`
    : `${minutes}:${seconds}`;
}

/** `12 minutes`, `1 hour 5 minutes`, `40 seconds`: for a sentence. */
export function spoken(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return count(seconds, 'second');
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return count(minutes, 'minute');
  const hours = Math.floor(minutes / 60);
  const rest = minutes % 60;
  return rest === 0 ? count(hours, 'hour') : `${count(hours, 'hour')} ${count(rest, 'minute')}`;
}

/** `1 message`, `3 messages`. */
export function count(n: number, word: string): string {
  return `${n} ${word}${n === 1 ? '' : 's'}`;
}

/** The time of day in the reader's own manner; empty for a missing or broken timestamp. */
export function timeOfDay(iso: string | null, locale?: string): string {
  const at = iso === null ? Number.NaN : Date.parse(iso);
  if (Number.isNaN(at)) return '';
  const text = new Intl.DateTimeFormat(locale, { hour: 'numeric', minute: '2-digit' }).format(at);
  // “1:56 PM” must not be torn apart at the end of a line.
  return text.replace(/\s/g, '\u00a0');
}

/** `820 bytes`, `12 KB`, `3.4 MB`: as large as a file is. */
export function fileSize(bytes: number): string {
  if (bytes < 1_000) return count(bytes, 'byte');
  if (bytes < 1_000_000) return `${Math.round(bytes / 1_000)} KB`;
  return `${(bytes / 1_000_000).toFixed(1)} MB`;
}

/** Up to two letters that stand for a person where there is no picture. */
export function initials(name: string): string {
  const words = name
    .replace(/^(dr|prof|mr|mrs|ms)\.?\s+/i, '')
    .split(/\s+/)
    .filter((word) => word !== '');
  const first = words.at(0) ?? '';
  const last = words.length > 1 ? (words.at(-1) ?? '') : '';
  return [first, last].map((word) => [...word].at(0)?.toUpperCase() ?? '').join('');
}

/** The longer of nothing and the time between two timestamps; `null` where one is missing. */
export function between(start: string | null, end: string | null): number | null {
  const from = start === null ? Number.NaN : Date.parse(start);
  const to = end === null ? Number.NaN : Date.parse(end);
  return Number.isNaN(from) || Number.isNaN(to) ? null : Math.max(0, to - from);
}

/** An amount in the reader's own manner; the digits are the server's, never rounded. */
export function money(amount: string, currency: string, locale?: string): string {
  const digits = amount.split('.')[1]?.length ?? 0;
  return new Intl.NumberFormat(locale, {
    style: 'currency',
    currency,
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  }).format(Number(amount));
}
