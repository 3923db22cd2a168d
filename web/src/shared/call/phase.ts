// The life of a call as a machine without a clock, network or SDK.
//
// The SDK mends short losses itself (`reconnecting`). When it gives up, the page asks the server for
// a new room token and enters again (`rejoining`), until a minute has passed (`failed`): from then on
// the person decides.

/** Why a call is over for this page. */
export type Gone = 'left' | 'ended' | 'removed' | 'replaced';

export type Phase =
  | { is: 'connecting' }
  | { is: 'connected' }
  | { is: 'reconnecting'; since: number }
  | { is: 'rejoining'; since: number; attempt: number }
  | { is: 'failed' }
  | { is: 'gone'; why: Gone };

export type PhaseEvent =
  | { type: 'CONNECTED' }
  | { type: 'INTERRUPTED' }
  | { type: 'LOST' }
  | { type: 'ATTEMPT_FAILED' }
  | { type: 'RETRY' }
  | { type: 'GONE'; why: Gone };

export const REJOIN_FOR_MS = 60_000;

export function step(phase: Phase, event: PhaseEvent, now: number): Phase {
  if (phase.is === 'gone') return phase;
  switch (event.type) {
    case 'CONNECTED':
      return { is: 'connected' };
    case 'INTERRUPTED':
      // The first loss starts the clock that the person sees; later ones do not set it back.
      return phase.is === 'connected' ? { is: 'reconnecting', since: now } : phase;
    case 'LOST':
      if (phase.is === 'rejoining' || phase.is === 'failed') return phase;
      return {
        is: 'rejoining',
        since: phase.is === 'reconnecting' ? phase.since : now,
        attempt: 0,
      };
    case 'ATTEMPT_FAILED': {
      const since = phase.is === 'rejoining' ? phase.since : now;
      const attempt = phase.is === 'rejoining' ? phase.attempt + 1 : 1;
      return now - since >= REJOIN_FOR_MS ? { is: 'failed' } : { is: 'rejoining', since, attempt };
    }
    case 'RETRY':
      return phase.is === 'failed' ? { is: 'rejoining', since: now, attempt: 0 } : phase;
    case 'GONE':
      return { is: 'gone', why: event.why };
  }
}

/** The pause before an attempt to enter again; the first is immediate. */
export function rejoinPause(attempt: number): number {
  return attempt === 0 ? 0 : Math.min(8_000, 500 * 2 ** attempt);
}

// The SDK's DisconnectReason numbers that end a call; all others are losses to be mended.
const CLIENT_INITIATED = 1;
const DUPLICATE_IDENTITY = 2;
const PARTICIPANT_REMOVED = 4;
const ROOM_DELETED = 5;
const ROOM_CLOSED = 10;

/** What a disconnect means: the call is over for a reason, or `null` for a loss. */
export function meaningOf(reason: number | undefined): Gone | null {
  switch (reason) {
    case CLIENT_INITIATED:
      return 'left';
    case DUPLICATE_IDENTITY:
      return 'replaced';
    case PARTICIPANT_REMOVED:
      return 'removed';
    case ROOM_DELETED:
    case ROOM_CLOSED:
      return 'ended';
    default:
      return null;
  }
}
