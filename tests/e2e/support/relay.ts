// Makes a page use relays of one kind only, and tells what it used.
import type { Page } from '@playwright/test';
import type { Evaluates } from './media.js';

/** How a client comes to the relay. */
export type Way = 'udp' | 'tcp' | 'tls';

declare global {
  interface Window {
    /** Names of the credentials that the page was given, in order. */
    credentials: string[];
  }
}

/** Runs in the page before its own code: no path but by a relay that is reached in this way. */
function onlyBy(way: Way): void {
  window.credentials = [];
  const fits = (url: string) =>
    way === 'tls' ? url.startsWith('turns:') : url.startsWith('turn:') && url.endsWith(`transport=${way}`);
  const bound = (config: RTCConfiguration = {}): RTCConfiguration => {
    const iceServers = (config.iceServers ?? []).map((server) => {
      if (server.username) window.credentials.push(server.username);
      return { ...server, urls: [server.urls].flat().filter(fits) };
    });
    return { ...config, iceTransportPolicy: 'relay', iceServers: iceServers.filter((server) => server.urls.length > 0) };
  };
  const Native = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Native {
    constructor(config?: RTCConfiguration) {
      super(bound(config));
    }
    override setConfiguration(config?: RTCConfiguration): void {
      super.setConfiguration(bound(config));
    }
  };
}

/** For a page of Playwright that has not been opened yet. */
export const forceRelay = (way: Way) => async (page: Page): Promise<void> => {
  await page.addInitScript(onlyBy, way);
};

/** For a page that is open, and has made no connection yet. */
export const forceRelayNow = (page: Evaluates, way: Way) => page.evaluate(onlyBy, way);

/** The kinds of the local candidates in use, and the ways to their relays: `relay/tls`. */
export async function ways(page: Evaluates): Promise<string[]> {
  return page.evaluate(async () => {
    const found: string[] = [];
    const { peers } = window as unknown as { peers: RTCPeerConnection[] };
    for (const peer of peers.filter((p) => p.connectionState === 'connected')) {
      const stats = [...((await peer.getStats()) as unknown as Map<string, Record<string, unknown>>).values()];
      // Firefox tells no transport.
      const chosen = stats.find((s) => s.type === 'transport')?.selectedCandidatePairId;
      const pair = stats.find((s) => (chosen ? s.id === chosen : s.type === 'candidate-pair' && s.selected))!;
      const local = stats.find((s) => s.id === pair.localCandidateId)!;
      found.push(`${local.candidateType}/${local.relayProtocol}`);
    }
    return found;
  }, undefined);
}
