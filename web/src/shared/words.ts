// What the pages say when something fails: plain sentences, no codes.

import type { ProblemKind } from './api';
import { Problem } from './api';

export interface Words {
  title: string;
  advice: string;
}

export function problemWords(kind: ProblemKind): Words {
  switch (kind) {
    case 'offline':
      return {
        title: 'We cannot reach the clinic’s server.',
        advice: 'Check your internet connection, then try again.',
      };
    case 'link-unknown':
      return {
        title: 'This link is not valid.',
        advice: 'Open the newest link that your clinic sent you, or ask the clinic for a new one.',
      };
    case 'link-expired':
      return {
        title: 'This link has expired.',
        advice: 'The consultation is over or the link was replaced. Ask your clinic for a new one.',
      };
    case 'signed-out':
      return {
        title: 'You were signed out.',
        advice: 'Nothing was done on this page for a while. Open your link again to go on.',
      };
    case 'over':
      return {
        title: 'This consultation is over.',
        advice: 'If you need another one, please contact your clinic.',
      };
    case 'unpaid':
      return {
        title: 'Your payment is not confirmed yet.',
        advice:
          'Keep this page open: we look again every few seconds, and you come in by yourself. If you have paid and it takes long, call your clinic.',
      };
    case 'refused':
      return {
        title: 'You cannot enter this consultation.',
        advice: 'Open the newest link that your clinic sent you, or ask the clinic for help.',
      };
    case 'full':
      return {
        title: 'This consultation has no free place.',
        advice: 'Please ask your clinic to let one more person take part.',
      };
    case 'changed':
      return {
        title: 'Something has changed in the meantime.',
        advice: 'Please look again and try once more.',
      };
    case 'busy':
      return {
        title: 'The clinic’s server is very busy.',
        advice: 'Please wait a moment, then try again.',
      };
    case 'server':
      return {
        title: 'Something went wrong on the clinic’s server.',
        advice: 'Please try again in a moment. If it stays so, call your clinic.',
      };
  }
}

/** The kind of a caught failure; what is no `Problem` is our own mistake and shown as the server's. */
export function kindOfError(error: unknown): ProblemKind {
  return error instanceof Problem ? error.kind : 'server';
}
