// Holds a connection to one way: the candidates and relay servers of all others are left out. The
// call's code has no setting for that, so it is done where it makes its connections.

import type { Way } from '../shared/checks/report';

/** The relay servers of one way; a direct way has none. */
export function onlyServers(servers: readonly RTCIceServer[], way: Way): RTCIceServer[] {
  return servers.flatMap((server) => {
    const urls = [server.urls].flat().filter((url) => wayOfUrl(url) === way);
    return urls.length === 0 ? [] : [{ ...server, urls }];
  });
}

/** The way that a relay's address stands for (RFC 7065). */
export function wayOfUrl(url: string): Way | null {
  if (url.startsWith('turns:')) return url.includes('transport=udp') ? null : 'relay_tls';
  if (!url.startsWith('turn:')) return null;
  return url.includes('transport=tcp') ? 'relay_tcp' : 'relay_udp';
}

/** Does this way use that candidate of the server? Relays reach candidates by UDP alone. */
export function usesCandidate(candidate: string, way: Way): boolean {
  const transport = /^(?:a=)?candidate:\S+ \d+ (\S+) /i.exec(candidate)?.[1]?.toLowerCase();
  return transport === (way === 'tcp' ? 'tcp' : 'udp');
}

/** A description with the candidates of one way. */
export function onlyCandidates(sdp: string, way: Way): string {
  const lines = sdp.split('\r\n');
  const kept = lines.filter((l) => !l.startsWith('a=candidate:') || usesCandidate(l, way));
  return kept.join('\r\n');
}

/** What was seen of the server's offer while a connection was made. */
export interface Seen {
  ways: Set<Way>;
  peers: RTCPeerConnection[];
}

export function nothingSeen(): Seen {
  return { ways: new Set(), peers: [] };
}

/** A class of connections that know one way; `null` = all of them. */
export function limited(
  Native: typeof RTCPeerConnection,
  way: Way | null,
  seen: Seen,
): typeof RTCPeerConnection {
  const note = (config: RTCConfiguration | undefined) => {
    for (const url of (config?.iceServers ?? []).flatMap((server) => [server.urls].flat())) {
      const of = wayOfUrl(url);
      if (of) seen.ways.add(of);
    }
  };
  const limit = (config: RTCConfiguration | undefined): RTCConfiguration => {
    note(config);
    if (way === null) return config ?? {};
    return {
      ...config,
      iceServers: onlyServers(config?.iceServers ?? [], way),
      iceTransportPolicy: way === 'udp' || way === 'tcp' ? 'all' : 'relay',
    };
  };
  return class extends Native {
    constructor(config?: RTCConfiguration) {
      super(limit(config));
      seen.peers.push(this);
    }

    override setConfiguration(config?: RTCConfiguration): void {
      super.setConfiguration(limit(config));
    }

    override setRemoteDescription(description: RTCSessionDescriptionInit): Promise<void> {
      const sdp = description.sdp ?? '';
      for (const of of ['udp', 'tcp'] as const) {
        if (sdp.split('\r\n').some((l) => l.startsWith('a=candidate:') && usesCandidate(l, of))) {
          seen.ways.add(of);
        }
      }
      if (way === null) return super.setRemoteDescription(description);
      return super.setRemoteDescription({ type: description.type, sdp: onlyCandidates(sdp, way) });
    }

    override addIceCandidate(candidate?: RTCIceCandidateInit | null): Promise<void> {
      const text = candidate?.candidate ?? '';
      if (way !== null && text !== '' && !usesCandidate(text, way)) return Promise.resolve();
      return super.addIceCandidate(candidate ?? undefined);
    }
  };
}
