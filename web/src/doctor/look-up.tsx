// Looks up a patient's connection check by the code that the patient tells.

import { useSignal } from '@preact/signals';
import { type Api, Problem } from '../shared/api';
import { ReportView } from '../shared/checks/list';
import type { StoredCheck } from '../shared/checks/report';
import { browserName } from '../shared/checks/words';
import { Notice } from '../shared/ui/parts';
import { kindOfError, problemWords, type Words } from '../shared/words';

/** Under which somebody could type it: eight characters, perhaps with a space or a dash. */
const MAX_TYPED = 12;

export function LookUp(props: { api: Api }) {
  const open = useSignal(false);
  const typed = useSignal('');
  const busy = useSignal(false);
  const found = useSignal<StoredCheck | null>(null);
  const failed = useSignal<Words | null>(null);
  const look = async () => {
    busy.value = true;
    found.value = null;
    failed.value = null;
    try {
      found.value = await props.api.connectionCheck(typed.value.trim());
    } catch (error) {
      failed.value = wordsOf(error);
    }
    busy.value = false;
  };
  return (
    <section class="own-check" aria-label="A patient’s connection check">
      <button
        type="button"
        class="button button-quiet"
        aria-expanded={open.value}
        onClick={() => {
          open.value = !open.value;
        }}
      >
        {open.value ? 'Close the connection check' : 'Look up a patient’s connection check'}
      </button>
      {open.value && (
        <form
          class="look-up"
          onSubmit={(event) => {
            event.preventDefault();
            void look();
          }}
        >
          <label class="choice">
            <span class="label">The code that the patient tells you</span>
            <input
              type="text"
              autocomplete="off"
              spellcheck={false}
              maxLength={MAX_TYPED}
              required
              value={typed.value}
              onInput={(event) => {
                typed.value = event.currentTarget.value;
              }}
            />
          </label>
          <button type="submit" class="button" disabled={busy.value}>
            Look up
          </button>
        </form>
      )}
      {open.value && failed.value && <Notice tone="bad" words={failed.value} />}
      {open.value && found.value && <Found check={found.value} />}
    </section>
  );
}

function Found(props: { check: StoredCheck }) {
  const { check } = props;
  const at = new Date(check.createdAt).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
  return (
    <div class="card found-check">
      <p class="hint">
        Checked {at}, {browserName(check.report.browser)}
      </p>
      <ReportView report={check.report} />
    </div>
  );
}

function wordsOf(error: unknown): Words {
  if (error instanceof Problem && error.status === 404) {
    return {
      title: 'There is no check with this code.',
      advice: 'Ask for the code again. Results are kept for some days only.',
    };
  }
  return problemWords(kindOfError(error));
}
