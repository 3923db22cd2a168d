// The page of a check: begin, the devices, the connection, and the code for the clinic.

import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { FindingRow, ReportView } from '../shared/checks/list';
import { spelled } from '../shared/checks/report';
import { subjectWords } from '../shared/checks/words';
import { localNetworkWords } from '../shared/local-network';
import { DeviceCheck } from '../shared/media/check';
import { playTestSound } from '../shared/media/level';
import { SpeakerIcon } from '../shared/ui/icons';
import { Notice, Page, Status, Title } from '../shared/ui/parts';
import type { CheckController } from './controller';

export function App(props: { controller: CheckController }) {
  const { controller } = props;
  const stage = controller.stage.value;
  useEffect(() => {
    document.title =
      stage === 'done' ? 'Your check is done · Bedside' : 'Check your connection · Bedside';
  }, [stage]);
  return (
    <Page>
      {stage === 'start' ? (
        <Begin controller={controller} />
      ) : (
        <>
          <Connection controller={controller} />
          <Devices controller={controller} />
          {stage === 'done' && <Code controller={controller} />}
        </>
      )}
    </Page>
  );
}

function Begin(props: { controller: CheckController }) {
  return (
    <section class="card card-narrow">
      <Title>Check your connection</Title>
      <p class="lead">
        This page tries, in about a minute, whether a video consultation works from here: your
        camera, microphone and sound, and the ways through your network.
      </p>
      <p class="hint">
        Your browser will ask for your camera and microphone. Their picture and sound stay on this
        device; what is sent is a test picture and a tone.
      </p>
      <button
        type="button"
        class="button button-main button-large"
        onClick={() => void props.controller.run()}
      >
        Begin the check
      </button>
    </section>
  );
}

function Connection(props: { controller: CheckController }) {
  const { controller } = props;
  const done = controller.stage.value === 'done';
  const trying = controller.trying.value;
  return (
    <section class="card check-card">
      <Title>{done ? 'Your check is done' : 'Checking your connection…'}</Title>
      {!done && (
        <Status class="lead">
          {trying === null ? 'One moment…' : `Now: ${subjectWords(trying)}`}
        </Status>
      )}
      {controller.willAsk.value && <Notice words={localNetworkWords(false)} />}
      {done ? (
        <>
          <ReportView report={controller.report.value} />
          <button type="button" class="button check-again" onClick={() => void controller.run()}>
            Check again
          </button>
        </>
      ) : (
        <ul class="findings">
          {controller.connection.value.map((finding) => (
            <FindingRow key={finding.subject} finding={finding} />
          ))}
        </ul>
      )}
    </section>
  );
}

function Devices(props: { controller: CheckController }) {
  const { controller } = props;
  const asked = useSignal(false);
  const heard = controller.heardSound.value;
  return (
    <section class="card check-card">
      <h2>Camera and sound</h2>
      <DeviceCheck preview={controller.preview} name="You" withoutSound />
      <div class="actions">
        <button
          type="button"
          class="button"
          onClick={() => {
            playTestSound();
            asked.value = true;
          }}
        >
          <SpeakerIcon />
          Play a test sound
        </button>
        {asked.value && (
          <fieldset class="heard">
            <legend>Did you hear it?</legend>
            {[true, false].map((yes) => (
              <button
                key={String(yes)}
                type="button"
                class={`button ${heard === yes ? 'button-main' : ''}`}
                aria-pressed={heard === yes}
                onClick={() => {
                  controller.heardSound.value = yes;
                }}
              >
                {yes ? 'Yes' : 'No'}
              </button>
            ))}
          </fieldset>
        )}
      </div>
    </section>
  );
}

function Code(props: { controller: CheckController }) {
  const { controller } = props;
  const code = controller.code.value;
  if (!controller.canGetCode) return null;
  if (code) {
    const until = new Date(code.expiresAt).toLocaleDateString([], { dateStyle: 'long' });
    return (
      <section class="card check-card">
        <h2>The code for your clinic</h2>
        <p class="check-code">{spelled(code.code)}</p>
        <p>
          Tell it to your clinic: with it they can look up these results until {until}. They hold
          nothing that says who you are.
        </p>
      </section>
    );
  }
  return (
    <section class="card check-card">
      <h2>Does your clinic ask for the results?</h2>
      <p>A short code lets your clinic look them up. They hold nothing that says who you are.</p>
      {controller.codeFailed.value && (
        <Notice
          tone="bad"
          words={{
            title: 'The results could not be stored.',
            advice: 'Please try again, or begin a new check.',
          }}
        />
      )}
      <button
        type="button"
        class="button check-again"
        disabled={controller.coding.value}
        onClick={() => void controller.getCode()}
      >
        {controller.coding.value ? 'One moment…' : 'Get a code for your clinic'}
      </button>
    </section>
  );
}
