import { expect, it } from 'vitest';
import { roomAddress } from '../src/shared/call/address';

it('keeps to TLS once the page came with it', () => {
  const secure = { protocol: 'https:', host: 'localhost:8443' };
  const plain = { protocol: 'http:', host: '127.0.0.1:8000' };
  expect(roomAddress('ws://127.0.0.1:8000', secure)).toBe('wss://localhost:8443');
  expect(roomAddress('wss://video.example/x', secure)).toBe('wss://video.example/x');
  expect(roomAddress('ws://127.0.0.1:8000', plain)).toBe('ws://127.0.0.1:8000');
});
