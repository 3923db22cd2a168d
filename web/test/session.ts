// A session as the server would send it, for tests.

import type { Session } from '../src/shared/types';

export function aSession(over: Partial<Session> = {}): Session {
  return {
    sessionId: 's1',
    appointmentId: null,
    status: 'SCHEDULED',
    consultationMode: 'VIDEO',
    scheduledStartTime: '2026-01-05T09:00:00.000Z',
    scheduledDurationMinutes: 20,
    doctor: { id: 'd', name: 'Dr. Ines Moreau' },
    patient: { id: 'p', name: 'Anna Keller' },
    participants: [],
    waiting: [],
    actualStartTime: null,
    actualEndTime: null,
    endReason: null,
    ...over,
  };
}
