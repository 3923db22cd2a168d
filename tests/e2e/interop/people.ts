// People on different SDKs, told and asked in one way.
import path from 'node:path';
import { expect, type Page } from '@playwright/test';
import { Foreign } from '../support/foreign.js';

/** What somebody knows of another participant, and what came of it since the start. */
export interface Other {
  sid: string;
  name: string;
  metadata: string;
  attributes: Record<string, string>;
  tracks: number;
  /** Of the microphone. */
  muted: boolean;
  frames: number;
  /** Rises with what is heard; how fast differs between the SDKs. */
  sounds: number;
}

export interface Report {
  others: Record<string, Other>;
  data: { text: string; from?: string; topic?: string }[];
  events: string[];
  published: number;
  mayPublish: boolean;
}

/** One participant: a foreign program, or a page that behaves like one. */
export interface Person {
  readonly identity: string;
  do(what: Command, more?: { text?: string; topic?: string; muted?: boolean; attributes?: Record<string, string> }): Promise<void>;
  report(): Promise<Report>;
}

export type Command = 'publish' | 'unpublish' | 'mute' | 'data' | 'name' | 'metadata' | 'attributes' | 'resume' | 'restart';

/** A page with livekit-client that has joined. */
export class InPage implements Person {
  constructor(
    readonly identity: string,
    readonly page: Page,
  ) {}

  async do(what: Command, more: { text?: string; topic?: string; muted?: boolean; attributes?: Record<string, string> } = {}): Promise<void> {
    await this.page.evaluate(
      async ([what, more]) => {
        const room = window.bench.room!;
        const me = room.localParticipant;
        const does: Record<Command, () => unknown> = {
          publish: () => window.bench.publish(),
          unpublish: () => Promise.all([...me.trackPublications.values()].map((p) => me.unpublishTrack(p.track!))),
          mute: () => me.setMicrophoneEnabled(!more.muted),
          data: () => me.publishData(new TextEncoder().encode(more.text), { reliable: true, topic: more.topic }),
          name: () => me.setName(more.text!),
          metadata: () => me.setMetadata(more.text!),
          attributes: () => me.setAttributes(more.attributes!),
          resume: () => room.simulateScenario('signal-reconnect'),
          restart: () => room.simulateScenario('full-reconnect'),
        };
        await does[what]();
      },
      [what, more] as const,
    );
  }

  report(): Promise<Report> {
    return this.page.evaluate(async () => {
      const { room, data, events, sdk } = window.bench;
      const came = await window.bench.received();
      const others: Record<string, Other> = {};
      for (const them of room!.remoteParticipants.values()) {
        others[them.identity] = {
          sid: them.sid,
          name: them.name ?? '',
          metadata: them.metadata ?? '',
          attributes: { ...them.attributes },
          tracks: them.trackPublications.size,
          muted: them.getTrackPublication(sdk.Track.Source.Microphone)?.isMuted ?? false,
          frames: came[them.identity]?.frames ?? 0,
          sounds: (came[them.identity]?.energy ?? 0) * 1e6,
        };
      }
      const me = room!.localParticipant;
      return { others, data, events, published: me.trackPublications.size, mayPublish: me.permissions?.canPublish ?? false };
    });
  }
}

/** A program on another SDK that has joined. */
export class InProgram implements Person {
  private constructor(
    readonly identity: string,
    readonly program: Foreign<Report>,
  ) {}

  static async go(identity: string, url: string, token: string): Promise<InProgram> {
    const media = path.resolve(import.meta.dirname, '../../../client/media');
    return new InProgram(identity, await Foreign.join(process.env.E2E_GO ?? 'participant', [url, token, media]));
  }

  /** `mode` `two` is for two connections. */
  static async python(identity: string, url: string, token: string, mode: 'one' | 'two'): Promise<InProgram> {
    const script = path.resolve(import.meta.dirname, '../../interop/python/participant.py');
    return new InProgram(identity, await Foreign.join(process.env.E2E_PYTHON ?? 'python3', [script, url, token, mode]));
  }

  do(what: Command, more: object = {}): Promise<void> {
    return this.program.do(what, { reliable: true, ...more });
  }

  report(): Promise<Report> {
    return this.program.report();
  }
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 250));

/** All of `whom` are seen and heard by everybody of `people`, from now on. */
export async function expectMeeting(people: Person[], whom = people, ms = 90_000): Promise<void> {
  const end = Date.now() + ms;
  const missing = new Map<string, Other | undefined>();
  for (const { identity } of people) {
    for (const them of whom) if (them.identity !== identity) missing.set(`${them.identity} at ${identity}`, undefined);
  }
  while (missing.size > 0 && Date.now() < end) {
    for (const person of people) {
      const { others } = await person.report();
      for (const [identity, now] of Object.entries(others)) {
        const pair = `${identity} at ${person.identity}`;
        if (!missing.has(pair)) continue;
        const first = missing.get(pair);
        // A track that is new begins to count anew.
        if (!first || now.frames < first.frames || now.sounds < first.sounds) missing.set(pair, now);
        else if (now.frames >= first.frames + 8 && now.sounds >= first.sounds + 10) missing.delete(pair);
      }
    }
    await pause();
  }
  const last = await Promise.all(people.map(async (p) => `${p.identity} has ${JSON.stringify((await p.report()).others)}`));
  expect([...missing.entries()], `not seen or heard:\n${last.join('\n')}`).toEqual([]);
}

/** `blind` gets no pictures of anybody, while the others get those of each other. */
export async function expectBlind(blind: Person, others: Person[], ms = 30_000): Promise<void> {
  const frames = async () => Object.values((await blind.report()).others).map((other) => other.frames);
  const end = Date.now() + ms;
  for (let before = await frames(); ; ) {
    await expectMeeting(others);
    const now = await frames();
    if (JSON.stringify(now) === JSON.stringify(before)) return;
    expect(Date.now(), `${blind.identity} still gets pictures`).toBeLessThan(end);
    before = now;
  }
}

/** Everybody of `people` but `whom` comes to know of it what is wanted. */
export async function expectKnown(people: Person[], whom: Person, known: (other: Other | undefined) => unknown, wanted: unknown): Promise<void> {
  for (const person of people.filter((p) => p !== whom)) {
    const read = async () => known((await person.report()).others[whom.identity]);
    await expect.poll(read, { message: `${whom.identity} as ${person.identity} knows it` }).toEqual(wanted);
  }
}
