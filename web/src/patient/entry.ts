// The door into the call: one question at a time, one entry at most, none once it is given up.
//
// Answers, frames of the channel and the call's code arrive in any order. A second entry would make
// the server take this page for another window of the same person and close the first; a question
// that is dropped because another one is open would leave an admitted person waiting.

import type { JoinAnswer, RoomAccess } from '../shared/types';

export interface EntrySteps {
  /** Asks the server for the room. */
  ask: () => Promise<JoinAnswer>;
  onWaiting: (position: number) => void;
  /** Goes in. `wanted` turns false when the entry is given up meanwhile. */
  goIn: (access: RoomAccess, wanted: () => boolean) => Promise<void>;
  /** The question or the way in failed; a later knock tries again. */
  onFailed: (error: unknown) => void;
}

export class Entry {
  #steps: EntrySteps;
  #state: 'idle' | 'busy' | 'inside' | 'given up' = 'idle';
  #again = false;

  constructor(steps: EntrySteps) {
    this.#steps = steps;
  }

  /** Asks now, or once more after the open question: its answer may be older than this knock. */
  knock(): void {
    if (this.#state === 'busy') this.#again = true;
    if (this.#state === 'idle') void this.#try();
  }

  /** Nothing that is still on its way leads into the call any more. */
  giveUp(): void {
    this.#state = 'given up';
  }

  async #try(): Promise<void> {
    this.#state = 'busy';
    const wanted = () => this.#state === 'busy';
    try {
      let answer: JoinAnswer;
      do {
        this.#again = false;
        answer = await this.#steps.ask();
        if (!wanted()) return;
        if (answer.kind === 'waiting') this.#steps.onWaiting(answer.position);
      } while (answer.kind === 'waiting' && this.#again);
      if (answer.kind === 'room') await this.#steps.goIn(answer.access, wanted);
      if (wanted()) this.#state = answer.kind === 'room' ? 'inside' : 'idle';
    } catch (error) {
      if (!wanted()) return;
      this.#state = 'idle';
      this.#steps.onFailed(error);
    }
  }
}
