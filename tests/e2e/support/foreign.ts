// A participant on a foreign SDK in a process of its own: one line of JSON in, one line out.
import { spawn, type ChildProcess } from 'node:child_process';
import readline from 'node:readline';
import { expect } from '@playwright/test';

interface Answer {
  joined?: unknown;
  ok?: boolean;
  answer?: unknown;
  error?: string;
}

export class Foreign<Report> {
  /** What it wrote on standard error, for the message of a failing test. */
  readonly said: string[] = [];
  private readonly answers: AsyncIterator<string>;

  private constructor(private readonly process: ChildProcess) {
    this.answers = readline.createInterface({ input: process.stdout! })[Symbol.asyncIterator]();
    readline.createInterface({ input: process.stderr! }).on('line', (line) => this.said.push(line));
  }

  /** Starts the program; it has joined when this resolves. */
  static async join<Report>(program: string, args: string[]): Promise<Foreign<Report>> {
    const it = new Foreign<Report>(spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] }));
    expect((await it.answer()).joined, it.said.join('\n')).toBeTruthy();
    return it;
  }

  private async answer(): Promise<Answer> {
    for (;;) {
      const line = await this.answers.next();
      if (line.done) throw new Error(`the program ended:\n${this.said.slice(-20).join('\n')}`);
      const answer = JSON.parse(line.value) as Answer;
      // The Node SDK logs where the answers go.
      if (answer.joined !== undefined || answer.ok !== undefined) return answer;
      this.said.push(line.value);
    }
  }

  private async ask(what: string, more: object): Promise<Answer> {
    this.process.stdin!.write(`${JSON.stringify({ do: what, ...more })}\n`);
    return this.answer();
  }

  async do(what: string, more: object = {}): Promise<void> {
    expect(await this.ask(what, more), what).toMatchObject({ ok: true });
  }

  async report(): Promise<Report> {
    return (await this.ask('report', {})).answer as Report;
  }

  /** The end of its input lets it leave the room. */
  async leave(): Promise<void> {
    const gone = new Promise((resolve) => this.process.once('exit', resolve));
    this.process.stdin!.end();
    await gone;
  }

  stop(): void {
    this.process.kill();
  }
}
