// The doctor's page: the day's list, the call, and what comes after it.

import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { Api } from '../shared/api';
import type { CallModel } from '../shared/call/model';
import { CallScreen } from '../shared/call/screen';
import { between, count, money, spoken, timeOfDay } from '../shared/format';
import { DeviceCheck } from '../shared/media/check';
import { isOver, type Session, type WaitingPerson } from '../shared/types';
import { CheckIcon } from '../shared/ui/icons';
import { Avatar, Busy, Card, Elapsed, Notice, Page, Status, Title } from '../shared/ui/parts';
import { problemWords } from '../shared/words';
import type { DeskController } from './controller';
import { type Desk, statusWords } from './desk';
import { LookUp } from './look-up';

export function App(props: { controller: DeskController }) {
  const { controller } = props;
  const desk = controller.desk.value;
  const waiting = waitingIn(controller.ordered.value);
  useEffect(() => {
    // The number is seen from another tab or window, where doctors spend their time.
    document.title = `${waiting > 0 ? `(${waiting}) ` : ''}Consultations · Bedside`;
  }, [waiting]);
  switch (desk.at) {
    case 'opening':
      return (
        <Page>
          <Busy>Opening your consultations…</Busy>
        </Page>
      );
    case 'refused':
      return <Refused controller={controller} desk={desk} />;
    case 'list':
      return <ListView controller={controller} desk={desk} />;
    case 'call':
      return <CallView controller={controller} />;
    case 'finished':
      return (
        <FinishedView
          controller={controller}
          session={controller.sessions.value.get(desk.sessionId)}
        />
      );
  }
}

function waitingIn(sessions: readonly Session[]): number {
  return sessions.reduce((sum, s) => sum + s.waiting.length, 0);
}

function Refused(props: { controller: DeskController; desk: Extract<Desk, { at: 'refused' }> }) {
  const words = problemWords(props.desk.kind);
  return (
    <Page>
      <Card title={words.title}>
        <p>{words.advice}</p>
        {props.desk.kind !== 'signed-out' && (
          <button type="button" class="button" onClick={() => void props.controller.open()}>
            Try again
          </button>
        )}
      </Card>
    </Page>
  );
}

function ListView(props: { controller: DeskController; desk: Extract<Desk, { at: 'list' }> }) {
  const { controller, desk } = props;
  const sessions = controller.ordered.value;
  const me = controller.api.me.name;
  return (
    <Page who={me}>
      <section class="list">
        <div class="list-head">
          <Title>Your consultations today</Title>
          <Status>{listWords(controller)}</Status>
        </div>
        {desk.problem && <Notice tone="bad" words={problemWords(desk.problem)} />}
        {controller.idle.value && (
          <Notice
            words={{
              title: 'You will be signed out in a minute.',
              advice: 'Touch the page or press a key to stay.',
            }}
          />
        )}
        {desk.replaced && (
          <Notice
            words={{
              title: 'Your call goes on in another window or on another device.',
              advice: 'You can return to it here.',
            }}
          />
        )}
        <ul class="sessions">
          {sessions.map((s) => (
            <SessionRow key={s.sessionId} session={s} controller={controller} desk={desk} />
          ))}
        </ul>
        {sessions.length === 0 && <p class="nothing">There are no consultations for today.</p>}
        <OwnCheck controller={controller} name={me} />
        <LookUp api={controller.api} />
      </section>
    </Page>
  );
}

function listWords(controller: DeskController): string {
  if (controller.listState.value === 'lost') {
    return 'The list is being reconnected. It may be some seconds old.';
  }
  const waiting = waitingIn(controller.ordered.value);
  return waiting === 0 ? 'Nobody is waiting.' : `${count(waiting, 'patient')} waiting`;
}

function SessionRow(props: {
  session: Session;
  controller: DeskController;
  desk: Extract<Desk, { at: 'list' }>;
}) {
  const { session, controller, desk } = props;
  const over = isOver(session.status);
  const busy = desk.entering !== null;
  const time = timeOfDay(session.scheduledStartTime);
  const waits = session.waiting.length > 0;
  return (
    <li class={`session ${waits ? 'session-waiting' : ''} ${over ? 'session-over' : ''}`}>
      <Avatar name={session.patient.name} />
      <div class="session-text">
        <h2>{session.patient.name}</h2>
        <p>
          {time !== '' && <span>{time}</span>}
          <span class={`pill ${waits ? 'pill-waiting' : ''}`}>{statusWords(session)}</span>
          {session.waiting.map((w) => (
            <WaitingFor key={w.userId} person={w} controller={controller} />
          ))}
        </p>
      </div>
      <div class="session-actions">
        {session.waiting.map((w) => (
          <button
            key={w.userId}
            type="button"
            class="button button-main"
            disabled={busy}
            onClick={() => void controller.admit(session.sessionId, w.userId)}
          >
            {desk.entering === session.sessionId ? 'Opening…' : `Admit ${w.name}`}
          </button>
        ))}
        {!over && !waits && (
          <button
            type="button"
            class="button"
            disabled={busy}
            aria-label={`Open call with ${session.patient.name}`}
            onClick={() => void controller.enter(session.sessionId)}
          >
            {desk.entering === session.sessionId ? 'Opening…' : 'Open call'}
          </button>
        )}
        {over && <CheckIcon />}
      </div>
    </li>
  );
}

function WaitingFor(props: { person: WaitingPerson; controller: DeskController }) {
  const since = Date.parse(props.person.since);
  if (Number.isNaN(since)) return null;
  return (
    <span class="since">
      for{' '}
      <Elapsed
        label={`${props.person.name} has been waiting`}
        since={since}
        now={() => props.controller.api.now()}
      />
    </span>
  );
}

function OwnCheck(props: { controller: DeskController; name: string }) {
  const { controller } = props;
  const on = controller.checking.value;
  return (
    <section class="own-check" aria-label="Camera and sound">
      <button
        type="button"
        class="button button-quiet"
        aria-expanded={on}
        onClick={() => void controller.check(!on)}
      >
        {on ? 'Close the camera check' : 'Check your camera and sound'}
      </button>
      {on && <DeviceCheck preview={controller.preview} name={props.name} />}
    </section>
  );
}

function CallView(props: { controller: DeskController }) {
  const { controller } = props;
  const call = controller.call.value;
  const consultation = controller.consultation.value;
  if (!call || !consultation) return null;
  return (
    <CallScreen
      call={call}
      consultation={consultation}
      me={controller.api.me.userId}
      expected={consultation.session.value.patient.name}
      now={() => controller.api.now()}
      onLeave={() => void controller.leave()}
      onEnd={() => void controller.end()}
      banner={<CallBanner controller={controller} sessionId={consultation.id} />}
      tools={<People controller={controller} sessionId={consultation.id} call={call} />}
    />
  );
}

function CallBanner(props: { controller: DeskController; sessionId: string }) {
  const { controller, sessionId } = props;
  const here = controller.sessions.value.get(sessionId)?.waiting ?? [];
  const problem = controller.actionProblem.value;
  return (
    <>
      {problem && <Notice tone="bad" words={{ title: problem, advice: 'Please try again.' }} />}
      {here.map((w) => (
        <div key={w.userId} class="banner" role="status">
          <p>{w.name} is in the waiting room.</p>
          <button
            type="button"
            class="button button-main"
            onClick={() => void controller.admitHere(w.userId)}
          >
            Admit {w.name}
          </button>
        </div>
      ))}
    </>
  );
}

/** Who is in the call, and how many others wait meanwhile. */
function People(props: { controller: DeskController; sessionId: string; call: CallModel }) {
  const { controller, sessionId } = props;
  const people = props.call.people.value;
  const here = controller.sessions.value.get(sessionId)?.waiting.length ?? 0;
  const elsewhere = waitingIn(controller.ordered.value) - here;
  return (
    <details class="people-menu">
      <summary>
        People
        {elsewhere > 0 && <span class="pill pill-waiting">{elsewhere} waiting</span>}
      </summary>
      <ul>
        {people.map((p) => (
          <li key={p.identity}>
            <span>{p.name}</span>
            <button
              type="button"
              class="button button-small"
              aria-label={`Send ${p.name} back to the waiting room`}
              onClick={() => void controller.sendBack(p.identity)}
            >
              Back to the waiting room
            </button>
          </li>
        ))}
        {people.length === 0 && <li>Nobody else is in the call.</li>}
        {elsewhere > 0 && <li>{count(elsewhere, 'patient')} waiting for another consultation.</li>}
      </ul>
    </details>
  );
}

function FinishedView(props: { controller: DeskController; session: Session | undefined }) {
  const { controller, session } = props;
  const duration = between(session?.actualStartTime ?? null, session?.actualEndTime ?? null);
  return (
    <Page who={controller.api.me.name}>
      <Card title="The consultation has ended">
        <p>
          {session?.patient.name ?? 'The patient'}
          {duration === null ? '' : ` · ${spoken(duration)}`}
        </p>
        {session && <Charged key={session.sessionId} api={controller.api} session={session} />}
        <button type="button" class="button button-main" onClick={() => controller.toList()}>
          Back to your consultations
        </button>
      </Card>
    </Page>
  );
}

/** What the consultation cost, where it has a price. */
function Charged(props: { api: Api; session: Session }) {
  const words = useSignal('');
  useEffect(() => {
    void props.api.billing(props.session.sessionId).then(
      ({ amountCharged, currency }) => {
        if (amountCharged !== null && currency !== null) words.value = money(amountCharged, currency);
      },
      // It is in the books; the doctor need not hear that this page could not look it up.
      () => undefined,
    );
  }, []);
  return words.value === '' ? null : <Status>Charged: {words.value}</Status>;
}
