// Why a camera or microphone cannot be used, and what a person can do about it.

export type Device = 'camera' | 'microphone';

export type DeviceProblem = 'denied' | 'none' | 'busy' | 'insecure' | 'unsupported' | 'other';

/** Names the failure of `getUserMedia`. Browsers agree on the names, not on the messages. */
export function deviceProblem(error: unknown): DeviceProblem {
  const name = error instanceof Error || error instanceof DOMException ? error.name : '';
  switch (name) {
    case 'NotAllowedError':
    case 'PermissionDeniedError':
    case 'SecurityError':
      return 'denied';
    case 'NotFoundError':
    case 'DevicesNotFoundError':
    case 'OverconstrainedError':
      return 'none';
    case 'NotReadableError':
    case 'TrackStartError':
    case 'AbortError':
      return 'busy';
    default:
      return 'other';
  }
}

/** One sentence about what is wrong. */
export function problemTitle(device: Device, problem: DeviceProblem): string {
  switch (problem) {
    case 'denied':
      return `This page may not use your ${device}.`;
    case 'none':
      return `No ${device} was found.`;
    case 'busy':
      return `Your ${device} is in use or does not answer.`;
    case 'insecure':
      return `Browsers allow a ${device} on secure (https) pages only.`;
    case 'unsupported':
      return `This browser cannot use your ${device} here.`;
    case 'other':
      return `Your ${device} could not be started.`;
  }
}

/** What to try, in the order in which it helps most often. */
export function problemAdvice(device: Device, problem: DeviceProblem): string {
  switch (problem) {
    case 'denied':
      return `Open the settings icon beside the address of this page, allow the ${device}, then choose “Try again”.`;
    case 'none':
      return device === 'camera'
        ? 'Connect one and choose “Try again”, or take part with your voice only.'
        : 'Connect one or a headset and choose “Try again”. Without it you can still listen and write.';
    case 'busy':
      return 'Close other programs that use it, such as another video call, then choose “Try again”.';
    case 'insecure':
      return 'Ask your clinic for a link that begins with https.';
    case 'unsupported':
      return 'Open your link in Safari, Chrome, Firefox or Edge instead of inside another app.';
    case 'other':
      return 'Unplug it and plug it in again, or choose another one, then choose “Try again”.';
  }
}
