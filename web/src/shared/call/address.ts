// Where the room's door is.

/** Where to connect: a page that came with TLS may not talk without, so it asks where it came from. */
export function roomAddress(url: string, page: Pick<Location, 'protocol' | 'host'> = location): string {
  return page.protocol === 'https:' && url.startsWith('ws:') ? `wss://${page.host}` : url;
}
