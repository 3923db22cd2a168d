import { describe, expect, it } from 'vitest';
import { Entry } from '../src/patient/entry';
import type { JoinAnswer } from '../src/shared/types';

const access = { accessToken: 't', url: 'ws://x', roomName: 'r', identity: 'p', iceServers: [] };
const room: JoinAnswer = { kind: 'room', access };
const waiting: JoinAnswer = { kind: 'waiting', position: 1 };

/** Something that the test settles when it likes. */
interface Open<T> {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (why: Error) => void;
}

function anOpen<T>(): Open<T> {
  let resolve: (value: T) => void = () => undefined;
  let reject: (why: Error) => void = () => undefined;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

function aDoor() {
  const questions: Open<JoinAnswer>[] = [];
  const ways: (Open<void> & { wanted: () => boolean })[] = [];
  const told: string[] = [];
  const entry = new Entry({
    ask: () => {
      const question = anOpen<JoinAnswer>();
      questions.push(question);
      return question.promise;
    },
    onWaiting: (position) => told.push(`waiting ${position}`),
    goIn: (_access, wanted) => {
      const way = anOpen<void>();
      ways.push({ ...way, wanted });
      return way.promise;
    },
    onFailed: (error) => told.push(String(error)),
  });
  const settle = async (act?: () => void) => {
    act?.();
    for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
  };
  return { entry, questions, ways, told, settle };
}

describe('the door into the call', () => {
  it('asks again at each knock while it stays shut', async () => {
    const { entry, questions, told, settle } = aDoor();
    entry.knock();
    await settle(() => questions[0]?.resolve(waiting));
    expect(questions).toHaveLength(1);
    entry.knock();
    await settle(() => questions[1]?.resolve(waiting));
    expect(told).toEqual(['waiting 1', 'waiting 1']);
  });

  it('is gone through once, however often one knocks', async () => {
    const { entry, questions, ways, settle } = aDoor();
    entry.knock();
    entry.knock();
    await settle(() => questions[0]?.resolve(room));
    entry.knock();
    await settle(() => ways[0]?.resolve());
    entry.knock();
    await settle();
    expect([questions.length, ways.length]).toEqual([1, 1]);
  });

  it('asks once more when somebody knocked before the answer came', async () => {
    const { entry, questions, ways, settle } = aDoor();
    entry.knock();
    entry.knock();
    entry.knock();
    await settle(() => questions[0]?.resolve(waiting));
    expect(questions).toHaveLength(2);
    await settle(() => questions[1]?.resolve(room));
    expect(ways).toHaveLength(1);
  });

  it('tells a failure, and can be knocked at again', async () => {
    const { entry, questions, ways, told, settle } = aDoor();
    entry.knock();
    await settle(() => questions[0]?.reject(new Error('asked')));
    entry.knock();
    await settle(() => questions[1]?.resolve(room));
    await settle(() => ways[0]?.reject(new Error('went')));
    entry.knock();
    await settle(() => questions[2]?.resolve(room));
    expect(ways).toHaveLength(2);
    expect(told).toEqual(['Error: asked', 'Error: went']);
  });

  it('leads nowhere once it is given up, whatever is on its way', async () => {
    for (const answer of [room, waiting, null]) {
      const { entry, questions, ways, told, settle } = aDoor();
      entry.knock();
      entry.knock();
      entry.giveUp();
      await settle(() =>
        answer ? questions[0]?.resolve(answer) : questions[0]?.reject(new Error('late')),
      );
      entry.knock();
      await settle();
      expect([questions.length, ways.length, told.length]).toEqual([1, 0, 0]);
    }
  });

  it('tells who is on the way in that it was given up', async () => {
    const { entry, questions, ways, told, settle } = aDoor();
    entry.knock();
    await settle(() => questions[0]?.resolve(room));
    expect(ways[0]?.wanted()).toBe(true);
    entry.giveUp();
    expect(ways[0]?.wanted()).toBe(false);
    await settle(() => ways[0]?.reject(new Error('late')));
    expect(told).toEqual([]);
  });
});
