// @stomp/stompjs and sockjs-client, unchanged, in a page of another origin.
import { Client, type IMessage } from '@stomp/stompjs';
import SockJS from 'sockjs-client';

export interface StompPage {
  /** Connects and subscribes to a consultation and to one's own notifications. */
  connect(options: { url: string; token: string; session: string; sockjs: boolean }): Promise<void>;
  say(session: string, content: string): void;
  bodies: string[];
  errors: string[];
}

declare global {
  interface Window {
    stomp: StompPage;
  }
}

let client: Client;
const keep = (message: IMessage) => void window.stomp.bodies.push(message.body);

window.stomp = {
  bodies: [],
  errors: [],
  connect: ({ url, token, session, sockjs }) =>
    new Promise((resolve, reject) => {
      client = new Client({
        ...(sockjs
          ? { webSocketFactory: () => new SockJS(url.replace(/^ws/, 'http')) }
          : { brokerURL: `${url}/websocket` }),
        connectHeaders: { Authorization: `Bearer ${token}` },
        reconnectDelay: 0,
        onConnect: () => {
          client.subscribe('/user/queue/notifications', keep);
          client.watchForReceipt('subscribed', () => resolve());
          client.subscribe(`/topic/session.${session}`, keep, { receipt: 'subscribed' });
        },
        onStompError: (frame) => {
          window.stomp.errors.push(frame.headers.message ?? '');
          reject(new Error(frame.body));
        },
      });
      client.activate();
    }),
  say: (session, content) =>
    client.publish({
      destination: '/app/chat.send',
      body: JSON.stringify({ type: 'CHAT_MESSAGE', payload: { sessionId: session, content, messageType: 'text' } }),
    }),
};
document.title = 'ready';
