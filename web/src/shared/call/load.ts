// The call's code is large and needed late: it is fetched while the person waits.

let loading: Promise<typeof import('./call')> | null = null;

/** Begins to fetch the call's code; harmless when repeated. */
export function prefetchCall(): void {
  void loadCall().catch(() => undefined);
}

/** The call's code. Whoever makes a call with it checks first that the call is still wanted. */
export function loadCall(): Promise<typeof import('./call')> {
  loading ??= import('./call').catch((error: unknown) => {
    // A failed fetch must not be remembered, or the call could never start.
    loading = null;
    throw error;
  });
  return loading;
}
