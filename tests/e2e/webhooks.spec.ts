// Webhooks of a running server, verified by the receivers' own library.
import http from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

import { expect, test } from '@playwright/test';
import { Webhook } from 'standardwebhooks';

import { startDemo } from './support/demo';

const secrets = [1, 2].map((fill) => `whsec_${Buffer.alloc(32, fill).toString('base64')}`);

interface Request {
  headers: Record<string, string>;
  body: string;
}

/** Refuses the first request, takes all others. */
async function receiver() {
  const requests: Request[] = [];
  let asked = 0;
  const server = http.createServer((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString('utf8')));
    request.on('end', () => {
      asked += 1;
      requests.push({ headers: request.headers as Record<string, string>, body });
      response.writeHead(asked === 1 ? 500 : 204).end();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`;
  return { requests, url, close: () => server.close() };
}

test('a webhook passes the receiver’s library, and a refused one comes again', async () => {
  const hook = await receiver();
  const endpoint = { name: 'ehr', url: hook.url, secret: secrets[0], old_secret: secrets[1] };
  const demo = await startDemo({ env: { BEDSIDE_WEBHOOKS: JSON.stringify([endpoint]) } });
  try {
    const created = await fetch(`${demo.url}/api/v1/consultations/sessions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${demo.api_token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ doctorId: 'doc', patientId: 'pat', consultationMode: 'VIDEO' }),
    });
    expect(created.status).toBe(201);
    const ids = () => hook.requests.map((request) => request.headers['webhook-id']);
    // Refused the first time: it is there twice after a few seconds, with the same id.
    const repeats = () => ids().filter((id) => id === ids()[0]).length;
    await expect.poll(repeats, { timeout: 20_000 }).toBe(2);
    expect(new Set(ids()).size).toBeGreaterThan(1);

    for (const { headers, body } of hook.requests) {
      // Either secret alone is enough, while both are in use.
      for (const secret of secrets) {
        const told = new Webhook(secret).verify(body, headers) as { type: string; data: object };
        expect(told.type).toMatch(/^consultation\..*\.v1$/);
      }
      const other = new Webhook(`whsec_${Buffer.alloc(32, 3).toString('base64')}`);
      expect(() => other.verify(body, headers)).toThrow();
      expect(() => new Webhook(secrets[0]!).verify(`${body} `, headers)).toThrow();
    }
  } finally {
    await demo.stop();
    hook.close();
  }
});
