// A forward proxy between one browser and the server, so that a test can cut the wire.
//
// Chromium sends every WebSocket through it as a CONNECT tunnel and every page and API call as a
// plain proxied request. Media is UDP and does not pass here.
import http from 'node:http';
import net, { type AddressInfo, type Socket } from 'node:net';

export class Wire {
  readonly url: string;
  #server: http.Server;
  #sockets = new Set<Socket>();
  #tunnels = 0;
  #cut = false;

  private constructor(server: http.Server, host: string) {
    this.#server = server;
    this.url = `http://${host}:${(server.address() as AddressInfo).port}`;
    server.on('connection', (socket) => this.#keep(socket));
    server.on('connect', (request, socket, head) => {
      this.#tunnel(request.url ?? '', socket as Socket, head);
    });
    server.on('request', (request, response) => this.#forward(request, response));
  }

  /** `host` may be an address that comes later. */
  static async open(host = '127.0.0.1'): Promise<Wire> {
    const server = http.createServer();
    // Bound to all: a namespace's address may not be there yet.
    await new Promise<void>((resolve) => server.listen(0, host === '127.0.0.1' ? host : '0.0.0.0', resolve));
    return new Wire(server, host);
  }

  /** How many tunnels were ever opened: to see that the page's sockets really pass here. */
  get tunnels(): number {
    return this.#tunnels;
  }

  /** Kills every connection without a goodbye and refuses new ones for `ms`. */
  async cut(ms: number): Promise<void> {
    this.#cut = true;
    for (const socket of this.#sockets) socket.resetAndDestroy();
    await new Promise((resolve) => setTimeout(resolve, ms));
    this.#cut = false;
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }

  #keep(socket: Socket): void {
    if (this.#cut) {
      socket.resetAndDestroy();
      return;
    }
    this.#sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => this.#sockets.delete(socket));
  }

  #tunnel(authority: string, client: Socket, head: Buffer): void {
    this.#tunnels += 1;
    const { hostname, port } = new URL(`http://${authority}`);
    const server = net.connect(Number(port), hostname, () => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n');
      server.write(head);
      server.pipe(client);
      client.pipe(server);
    });
    this.#keep(server);
    server.on('close', () => client.destroy());
    client.on('close', () => server.destroy());
  }

  #forward(request: http.IncomingMessage, response: http.ServerResponse): void {
    const { method, headers } = request;
    const onward = http.request(request.url ?? '', { method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  }
}
