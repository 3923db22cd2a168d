// Local Network Access: newer Chromium lets a page from a public address reach addresses of a local
// network only when the person allows it, WebRTC included. Without that media is dropped silently.

import type { Words } from './words';

export type LocalNetwork = 'granted' | 'prompt' | 'denied' | 'unknown';

/** The permission's name, then the one that it had when it was new. */
const NAMES = ['local-network', 'local-network-access'];

/** What the browser says; `unknown` where it has no such permission, which needs none then. */
export async function localNetwork(
  permissions: Pick<Permissions, 'query'> | undefined = globalThis.navigator?.permissions,
): Promise<LocalNetwork> {
  for (const name of NAMES) {
    try {
      const status = await permissions?.query({ name: name as PermissionName });
      if (status) return status.state;
    } catch {
      // Not known by this name.
    }
  }
  return 'unknown';
}

/** Why the browser asks, and what to choose. */
export function localNetworkWords(denied: boolean): Words {
  const why =
    'The clinic’s server carries picture and sound from an address of a local network, such as the clinic’s own.';
  return denied
    ? {
        title: 'Your browser may not connect to devices on your local network.',
        advice: `${why} Open the settings icon beside the address of this page, allow the local network, then try again.`,
      }
    : {
        title: 'Your browser will ask whether this page may connect to devices on your local network.',
        advice: `${why} Choose “Allow”: nothing else on your network is contacted.`,
      };
}
