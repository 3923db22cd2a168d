// The screen of a running call: the other person large, oneself small, the controls, the chat.

import { useSignal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { localNetworkWords } from '../local-network';
import type { Consultation } from '../consultation';
import { problemAdvice, problemTitle } from '../media/problem';
import { SpeakerIcon } from '../ui/icons';
import { Elapsed, Notice } from '../ui/parts';
import { ChatPanel } from './chat-panel';
import { Controls } from './controls';
import { DeviceDialog } from './device-dialog';
import type { CallModel } from './model';
import { Stage } from './stage';
import { linkWords } from './status';

export interface CallScreenProps {
  call: CallModel;
  consultation: Consultation;
  me: string;
  /** The person this call is with, until they are there themselves. */
  expected: string;
  now: () => number;
  onLeave: () => void;
  /** Only for those who may end the call for everybody. */
  onEnd?: () => void;
  /** Shown above the picture: the doctor's view of who waits. */
  banner?: ComponentChildren;
  /** Shown in the head of the call, beside the time. */
  tools?: ComponentChildren;
}

export function CallScreen(props: CallScreenProps) {
  const { call, consultation } = props;
  const chatOpen = useSignal(false);
  const devicesOpen = useSignal(false);
  const beganHere = useRef(props.now());
  const started = Date.parse(consultation.session.value.actualStartTime ?? '');
  const people = call.people.value;
  const other = people.at(0)?.name ?? props.expected;
  return (
    <div class={`call ${chatOpen.value ? 'call-with-chat' : ''}`}>
      <header class="call-head">
        <h1 class="call-title">{other}</h1>
        <LinkState {...props} />
        <span class="call-gap" />
        {props.tools}
        <Elapsed
          label="Time in this consultation"
          since={Number.isNaN(started) ? beganHere.current : started}
          now={props.now}
        />
      </header>
      <main class="call-main" aria-label="Call">
        <div class="call-notices">
          {props.banner}
          <CallNotices call={call} />
        </div>
        <Stage call={call} me={props.me} expected={props.expected} />
        <Controls
          call={call}
          chatOpen={chatOpen}
          unread={consultation.chat.unread.value}
          onDevices={() => {
            devicesOpen.value = true;
          }}
          onLeave={props.onLeave}
          {...(props.onEnd ? { onEnd: props.onEnd } : {})}
        />
      </main>
      {chatOpen.value && (
        <ChatPanel
          chat={consultation.chat}
          channelState={consultation.channelState.value}
          onClose={() => {
            chatOpen.value = false;
          }}
        />
      )}
      {devicesOpen.value && (
        <DeviceDialog
          call={call}
          onClose={() => {
            devicesOpen.value = false;
          }}
        />
      )}
    </div>
  );
}

function LinkState(props: CallScreenProps) {
  const { call, consultation } = props;
  const seconds = useSeconds();
  const words = linkWords({
    phase: call.phase.value,
    people: call.people.value,
    weak: call.self.value.weak,
    cutOff: call.self.value.cutOff,
    session: consultation.session.value,
    me: props.me,
    expected: props.expected,
    seconds,
  });
  return (
    <>
      <p class={`call-status status-${words.tone}`} role="status">
        <span class="status-dot" aria-hidden="true" />
        {words.text}
      </p>
      {words.seconds !== null && (
        // Beside the live region, so that a screen reader is not told every second.
        <span class="call-status-seconds" aria-hidden="true">
          {words.seconds} s
        </span>
      )}
    </>
  );
}

// Renders once a second: the wait during a reconnect is shown in seconds.
function useSeconds(): number {
  const now = useSignal(Date.now());
  useEffect(() => {
    const timer = setInterval(() => {
      now.value = Date.now();
    }, 1000);
    return () => clearInterval(timer);
  }, []);
  return now.value;
}

function CallNotices(props: { call: CallModel }) {
  const { call } = props;
  const trouble = call.trouble.value;
  const local = call.localNetwork.value;
  return (
    <>
      {local !== null && <Notice words={localNetworkWords(local === 'denied')} />}
      {call.phase.value.is === 'failed' && (
        <Notice
          tone="bad"
          words={{
            title: 'The call could not be resumed.',
            advice: 'Check your internet connection. The consultation is still open.',
          }}
        >
          <button type="button" class="button button-main" onClick={() => call.retry()}>
            Try again
          </button>
        </Notice>
      )}
      {call.soundBlocked.value && (
        <Notice words={{ title: 'Your browser has muted this call.', advice: '' }}>
          <button type="button" class="button button-main" onClick={() => void call.unlockSound()}>
            <SpeakerIcon />
            Turn sound on
          </button>
        </Notice>
      )}
      {trouble && (
        <Notice
          words={{
            title: problemTitle(trouble.device, trouble.problem),
            advice: problemAdvice(trouble.device, trouble.problem),
          }}
        >
          <button
            type="button"
            class="button"
            onClick={() =>
              void (trouble.device === 'camera' ? call.setCamera(true) : call.setMicrophone(true))
            }
          >
            Try again
          </button>
          <button type="button" class="button button-quiet" onClick={() => call.dismissTrouble()}>
            Go on without
          </button>
        </Notice>
      )}
    </>
  );
}
