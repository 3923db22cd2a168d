// The call's code is large and needed late: it is fetched while the person waits.

import type { CallOptions } from './call';
import type { CallModel } from './model';

let loading: Promise<typeof import('./call')> | null = null;

/** Begins to fetch the call's code; harmless when repeated. */
export function prefetchCall(): void {
  void loadCall().catch(() => undefined);
}

/** Starts a call. The options are asked for once the code is here: they take the camera over. */
export async function startCall(options: () => CallOptions): Promise<CallModel> {
  const { Call } = await loadCall();
  return new Call(options());
}

function loadCall(): Promise<typeof import('./call')> {
  loading ??= import('./call').catch((error: unknown) => {
    // A failed fetch must not be remembered, or the call could never start.
    loading = null;
    throw error;
  });
  return loading;
}
