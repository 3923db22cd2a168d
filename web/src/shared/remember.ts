// What a tab remembers across a reload: that it was in a call, and the choices made for it.
//
// Kept per tab (`sessionStorage`), gone when the tab is closed. No secret and no name goes in.

export interface Remembered {
  sessionId: string;
  /** Two links may be opened one after the other in one tab. */
  userId: string;
  camera: boolean;
  microphone: boolean;
}

const KEY = 'bedside.call';

export function remember(call: Remembered): void {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(call));
  } catch {
    // Storage may be switched off; then a reload shows the camera check again.
  }
}

export function forget(): void {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // As above.
  }
}

/** The call that this tab was in as this person. */
export function recall(userId: string): Remembered | null {
  try {
    const value: unknown = JSON.parse(sessionStorage.getItem(KEY) ?? 'null');
    if (!isRemembered(value)) return null;
    return value.userId === userId ? value : null;
  } catch {
    return null;
  }
}

const GIVEN_KEY = 'bedside.feedback';

/** Feedback on this consultation was sent from this tab: a reload does not ask again. */
export function rememberGiven(sessionId: string): void {
  try {
    sessionStorage.setItem(GIVEN_KEY, sessionId);
  } catch {
    // Then the form is shown again, and the server takes no second one.
  }
}

export function wasGiven(sessionId: string): boolean {
  try {
    return sessionStorage.getItem(GIVEN_KEY) === sessionId;
  } catch {
    return false;
  }
}

function isRemembered(value: unknown): value is Remembered {
  return (
    typeof value === 'object' &&
    value !== null &&
    'sessionId' in value &&
    typeof value.sessionId === 'string' &&
    'userId' in value &&
    typeof value.userId === 'string' &&
    'camera' in value &&
    typeof value.camera === 'boolean' &&
    'microphone' in value &&
    typeof value.microphone === 'boolean'
  );
}
