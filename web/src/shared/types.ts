// The shapes of the consultation API and its channels, as the server sends them.

export type Role = 'patient' | 'doctor' | 'guest' | 'service' | 'admin';

export interface Person {
  id: string;
  name: string;
}

export type Presence = 'waiting' | 'admitted' | 'connected' | 'reconnecting' | 'left' | 'connection_lost';

export interface SessionParticipant {
  userId: string;
  name: string;
  role: string;
  status: Presence;
  /** It left because its connection did not come back. */
  connectionLost?: boolean;
}

export interface WaitingPerson {
  userId: string;
  name: string;
  since: string;
  position: number;
}

/** One consultation; the API calls it a session. */
export interface Session {
  sessionId: string;
  appointmentId: string | null;
  status: string;
  consultationMode: string;
  scheduledStartTime: string | null;
  scheduledDurationMinutes: number | null;
  doctor: Person;
  patient: Person;
  participants: SessionParticipant[];
  waiting: WaitingPerson[];
  actualStartTime: string | null;
  actualEndTime: string | null;
  endReason: string | null;
}

/** What a join link is exchanged for. */
export interface Exchange {
  token: string;
  expiresAt: string;
  role: Role;
  userId: string;
  name: string;
  sessionId: string | null;
  clinic: string;
}

/** The right to enter a room now. */
export interface RoomAccess {
  accessToken: string;
  url: string;
  roomName: string;
  identity: string;
  iceServers: RTCIceServer[];
}

/** The answer to a join: a room, or a place in the waiting room. */
export type JoinAnswer =
  | { kind: 'room'; access: RoomAccess }
  | { kind: 'waiting'; position: number };

/** What a patient says of a consultation; what is left out was not answered. */
export interface Feedback {
  overallRating: number;
  audioQuality?: number;
  videoQuality?: number;
  doctorBehaviour?: number;
  reviewText?: string;
  feedbackTags: string[];
  wouldRecommend?: boolean;
}

/** What a consultation cost; amounts are decimals in text. */
export interface Billing {
  isFinal: boolean;
  amountCharged: string | null;
  currency: string | null;
}

export interface ChatMessage {
  messageId: string;
  sessionId: string;
  senderId: string;
  senderName: string;
  senderType: string;
  /** Its number in the consultation. */
  sequence: number;
  content: string;
  /** `text`, `image`, `file`, `system`. */
  messageType: string;
  timestamp: string;
  /** `sent`, `delivered`, `read`. */
  status: string;
  attachment?: Attachment;
  clientId?: string | null;
}

/** The picture or file of a message. */
export interface Attachment {
  attachmentId: string;
  fileName: string;
  fileSize: number;
  mimeType: string;
  width?: number;
  height?: number;
}

export interface Page<T> {
  items: T[];
  nextCursor: string | null;
}

/** What the server says on a channel. Unknown types are dropped by the channel client. */
export type ServerFrame =
  | {
      type: 'READY';
      payload: { sessionId?: string; userId: string; role: string; status?: string };
    }
  | { type: 'CHAT_MESSAGE'; payload: ChatMessage }
  | {
      type: 'RECEIPT';
      payload: { userId: string; status: string; sequence: number };
    }
  | { type: 'MESSAGE_DELETED'; payload: { messageId: string } }
  | {
      type: 'SESSION_STATUS';
      payload: { sessionId: string; status: string; participants: SessionParticipant[] };
    }
  | { type: 'WAITING'; payload: { position: number } }
  | { type: 'ADMITTED'; payload: Record<string, never> }
  | { type: 'SENT_BACK'; payload: Record<string, never> }
  | { type: 'PARTICIPANT_STATUS'; payload: { participantId: string; status: string } }
  | { type: 'SESSIONS'; payload: { items: Session[] } }
  | { type: 'SESSION_CHANGED'; payload: { session: Session } }
  | { type: 'PONG'; payload: unknown }
  | { type: 'ERROR'; payload: { code: string; detail: string; clientId?: string } };

const OVER = new Set(['COMPLETED', 'CANCELLED', 'NO_SHOW', 'FAILED', 'ENDED']);

/** Whether a consultation in this status is over for good. */
export function isOver(status: string): boolean {
  return OVER.has(status.toUpperCase());
}

/** A consultation without cameras: the server takes no picture in its room. */
export function isVoiceOnly(session: Session): boolean {
  return session.consultationMode === 'AUDIO';
}

/** Whether a consultation is over and took place: it was completed, or broke off. */
export function tookPlace(session: Session): boolean {
  const over = session.status === 'COMPLETED' || session.status === 'FAILED';
  return over && session.actualStartTime !== null;
}
