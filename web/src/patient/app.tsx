// The patient's page: one view per state of the visit.

import { useEffect } from 'preact/hooks';
import { CallScreen } from '../shared/call/screen';
import { between, spoken, timeOfDay } from '../shared/format';
import { DeviceCheck } from '../shared/media/check';
import { isVoiceOnly, type Session, tookPlace } from '../shared/types';
import { Avatar, Busy, Card, Elapsed, Notice, Page, Status, Title } from '../shared/ui/parts';
import { problemWords } from '../shared/words';
import type { VisitController } from './controller';
import { FeedbackForm } from './feedback-form';
import type { Visit } from './visit';

export function App(props: { controller: VisitController }) {
  const { controller } = props;
  const visit = controller.visit.value;
  const session = controller.consultation.value?.session.value;
  useEffect(() => {
    document.title = `${pageTitle(visit)} · Bedside`;
  }, [visit.at]);
  if (visit.at === 'opening') {
    return (
      <Page>
        <Busy>Opening your consultation…</Busy>
      </Page>
    );
  }
  if (visit.at === 'refused' || !session) {
    return <Refused controller={controller} visit={visit} />;
  }
  switch (visit.at) {
    case 'check':
      return <CheckView controller={controller} visit={visit} session={session} />;
    case 'waiting':
      return <WaitingView controller={controller} visit={visit} session={session} />;
    case 'call':
      return <CallView controller={controller} session={session} />;
    case 'left':
      return <LeftView controller={controller} visit={visit} session={session} />;
    case 'ended':
      return <EndedView controller={controller} session={session} />;
  }
}

function pageTitle(visit: Visit): string {
  switch (visit.at) {
    case 'opening':
    case 'refused':
      return 'Your consultation';
    case 'check':
      return 'Check before your consultation';
    case 'waiting':
      return visit.admitted ? 'Your doctor is ready' : 'Waiting room';
    case 'call':
      return 'In the consultation';
    case 'left':
      return 'You left';
    case 'ended':
      return 'Consultation ended';
  }
}

function Refused(props: { controller: VisitController; visit: Visit }) {
  const words = problemWords(props.visit.at === 'refused' ? props.visit.kind : 'server');
  return (
    <Page>
      <Card title={words.title}>
        <p>{words.advice}</p>
        <button type="button" class="button" onClick={() => void props.controller.open()}>
          Try again
        </button>
      </Card>
    </Page>
  );
}

function Appointment(props: { session: Session }) {
  const { session } = props;
  const time = timeOfDay(session.scheduledStartTime);
  const kind = isVoiceOnly(session) ? 'Voice consultation' : 'Video consultation';
  return (
    <div class="appointment">
      <Avatar name={session.doctor.name} />
      <p>
        <strong>{session.doctor.name}</strong>
        <span>{time === '' ? kind : `${kind} at ${time}`}</span>
      </p>
    </div>
  );
}

function CheckView(props: {
  controller: VisitController;
  visit: Extract<Visit, { at: 'check' }>;
  session: Session;
}) {
  const { controller, visit, session } = props;
  const me = controller.api.me.name;
  const problem = visit.problem === null ? null : problemWords(visit.problem);
  const voiceOnly = isVoiceOnly(session);
  return (
    <Page who={me}>
      <section class="card">
        <Title>Hello {me}</Title>
        <p class="lead">
          {voiceOnly
            ? 'Let us check that your doctor will hear you well.'
            : 'Let us check that your doctor will see and hear you well.'}
        </p>
        <Appointment session={session} />
        <DeviceCheck preview={controller.preview} name={me} voiceOnly={voiceOnly} />
        {problem && <Notice tone="bad" words={problem} />}
        <p class="hint">
          Is your connection good enough?{' '}
          <a
            href={`/check?clinic=${encodeURIComponent(controller.api.me.clinic)}`}
            target="_blank"
            rel="noopener"
          >
            Check it here
          </a>
          , in about a minute.
        </p>
        <div class="actions">
          <button
            type="button"
            class="button button-main button-large"
            disabled={visit.entering}
            onClick={() => controller.enter()}
          >
            Join the consultation
          </button>
          <p class="hint">
            {visit.entering
              ? visit.problem === 'unpaid'
                ? 'Looking for your payment…'
                : 'One moment…'
              : 'You come to the waiting room first. Your doctor lets you in.'}
          </p>
        </div>
      </section>
    </Page>
  );
}

function WaitingView(props: {
  controller: VisitController;
  visit: Extract<Visit, { at: 'waiting' }>;
  session: Session;
}) {
  const { controller, visit, session } = props;
  const channel = controller.consultation.value?.channelState.value;
  const { api } = controller;
  const since = session.waiting.find((w) => w.userId === api.me.userId)?.since;
  return (
    <Page who={api.me.name}>
      <section class="card">
        <Title>{visit.admitted ? 'Your doctor is ready' : 'You are in the waiting room'}</Title>
        <Status class="lead">
          {visit.admitted ? 'Connecting you now…' : waitingWords(visit, session)}
        </Status>
        <Appointment session={session} />
        {!visit.admitted && (
          <p class="waiting-facts">
            <span class={channel === 'lost' ? 'pulse pulse-lost' : 'pulse'} aria-hidden="true" />
            <span class="waiting-words">
              {channel === 'lost'
                ? 'Your connection was interrupted. Reconnecting; you keep your place.'
                : 'You are connected. You do not need to do anything.'}
            </span>
            {since && (
              <Elapsed label="Time waiting" since={Date.parse(since)} now={() => api.now()} />
            )}
          </p>
        )}
        <DeviceCheck
          preview={controller.preview}
          name={api.me.name}
          voiceOnly={isVoiceOnly(session)}
        />
        <div class="actions">
          <button type="button" class="button" onClick={() => void controller.leave()}>
            Leave
          </button>
          <p class="hint">
            Keep this page open.
            {!isVoiceOnly(session) && ' Only you see this picture until you are let in.'}
          </p>
        </div>
      </section>
    </Page>
  );
}

function waitingWords(visit: Extract<Visit, { at: 'waiting' }>, session: Session): string {
  const doctor = session.doctor.name;
  if (visit.sentBack) {
    return `${doctor} has asked you to wait a moment and will let you in again. Nobody sees or hears you now.`;
  }
  if (visit.position > 1) {
    return `You are number ${visit.position} in line. ${doctor} knows that you are here.`;
  }
  return `You are next. ${doctor} knows that you are here and will let you in.`;
}

function CallView(props: { controller: VisitController; session: Session }) {
  const { controller, session } = props;
  const call = controller.call.value;
  const consultation = controller.consultation.value;
  if (!call || !consultation) return null;
  return (
    <CallScreen
      call={call}
      consultation={consultation}
      me={controller.api.me.userId}
      expected={session.doctor.name}
      now={() => controller.api.now()}
      onLeave={() => void controller.leave()}
    />
  );
}

function LeftView(props: {
  controller: VisitController;
  visit: Extract<Visit, { at: 'left' }>;
  session: Session;
}) {
  const { visit, session } = props;
  return (
    <Page who={props.controller.api.me.name}>
      <Card title={visit.replaced ? 'This call goes on elsewhere' : 'You left the consultation'}>
        <p>
          {visit.replaced
            ? 'You opened it in another window or on another device. This page is no longer part of it.'
            : `${session.doctor.name} can still see you as soon as you come back.`}
        </p>
        <button
          type="button"
          class="button button-main"
          onClick={() => void props.controller.comeBack()}
        >
          {visit.replaced ? 'Continue here' : 'Come back'}
        </button>
      </Card>
    </Page>
  );
}

function EndedView(props: { controller: VisitController; session: Session }) {
  const { session } = props;
  const { api } = props.controller;
  const duration = between(session.actualStartTime, session.actualEndTime);
  return (
    <Page>
      <Card title="The consultation has ended">
        <Appointment session={session} />
        <p>
          {duration === null
            ? 'Thank you for your visit.'
            : `It took ${spoken(duration)}. Thank you for your visit.`}
        </p>
        <p class="hint">Your camera and microphone are off. You can close this page.</p>
        {api.me.role === 'patient' && tookPlace(session) && (
          <FeedbackForm api={api} session={session} />
        )}
      </Card>
    </Page>
  );
}
