// A UDP forwarder between browsers and the server, with a mapping that can be forgotten (as a NAT does).
import dgram from 'node:dgram';
import type { AddressInfo } from 'node:net';
import type { Page } from '@playwright/test';

interface Mapping {
  generation: number;
  socket: dgram.Socket;
}

export class Forwarder {
  private mappings = new Map<string, Mapping>();
  private generation = 0;
  private target = 0;
  private sockets: dgram.Socket[] = [];
  private lose: (datagram: Buffer) => boolean = () => false;
  private silent = false;
  /** Datagrams that were lost on purpose. */
  lost = 0;

  private constructor(private front: dgram.Socket) {
    front.on('message', (datagram, from) => {
      if (this.target && !this.drops(datagram)) {
        this.upstream(from).send(datagram, this.target, '127.0.0.1');
      }
    });
  }

  /** Loses this share of the DTLS datagrams, each way; the same seed loses alike. */
  loseDtls(share: number, seed: number): void {
    this.losePackets(20, 63, share, seed);
  }

  /** Loses this share of the RTP and RTCP packets, each way. */
  loseMedia(share: number, seed: number): void {
    this.losePackets(128, 191, share, seed);
  }

  /** RFC 7983: the first byte tells DTLS from STUN and SRTP. */
  private losePackets(from: number, to: number, share: number, seed: number): void {
    const random = generator(seed);
    this.lose = ([first = 0]) => first >= from && first <= to && random() < share;
  }

  /** Loses everything, both ways, for `ms`. */
  async silence(ms: number): Promise<void> {
    this.silent = true;
    await new Promise((resolve) => setTimeout(resolve, ms));
    this.silent = false;
  }

  private drops(datagram: Buffer): boolean {
    const drop = this.silent || this.lose(datagram);
    if (drop) this.lost++;
    return drop;
  }

  static async open(): Promise<Forwarder> {
    const front = dgram.createSocket('udp4');
    await new Promise<void>((resolve) => front.bind({ port: 0, address: '127.0.0.1' }, resolve));
    return new Forwarder(front);
  }

  /** Makes a page send its media here: the candidates of every answer are rewritten. */
  async divert(page: Page): Promise<void> {
    const port = (this.front.address() as AddressInfo).port;
    await page.exposeFunction('mediaPortIs', (real: number) => void (this.target = real));
    await page.addInitScript((port) => {
      type Apply = (description: RTCSessionDescriptionInit) => Promise<void>;
      const apply = RTCPeerConnection.prototype.setRemoteDescription as Apply;
      RTCPeerConnection.prototype.setRemoteDescription = async function (description) {
        const lines = (description.sdp ?? '').split('\r\n').flatMap((line) => {
          const words = line.split(' ');
          if (!line.startsWith('a=candidate:')) return [line];
          // TCP would go past the forwarder.
          if (words[2]?.toLowerCase() !== 'udp') return [];
          (window as unknown as { mediaPortIs(p: number): void }).mediaPortIs(Number(words[5]));
          words[5] = String(port);
          return [words.join(' ')];
        });
        return apply.call(this, { type: description.type, sdp: lines.join('\r\n') });
      };
    }, port);
  }

  /** From now on every client comes from a new port, and the old ones lead nowhere. */
  rebind(): void {
    this.generation++;
  }

  clients(): number {
    return this.mappings.size;
  }

  close(): void {
    for (const socket of [this.front, ...this.sockets]) socket.close();
  }

  private upstream(client: dgram.RemoteInfo): dgram.Socket {
    const key = `${client.address}:${client.port}`;
    const known = this.mappings.get(key);
    if (known?.generation === this.generation) return known.socket;
    const { generation } = this;
    const socket = dgram.createSocket('udp4');
    this.sockets.push(socket);
    socket.on('message', (datagram) => {
      if (generation === this.generation && !this.drops(datagram)) this.front.send(datagram, client.port, client.address);
    });
    this.mappings.set(key, { generation, socket });
    return socket;
  }
}

/** Numbers in 0..1 that look random and are the same for the same seed (mulberry32). */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
