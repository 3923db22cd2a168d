// Small parts that several pages share.

import { useSignal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { clock, initials } from '../format';
import type { Words } from '../words';
import { LockIcon } from './icons';

/** The frame of every page outside a call. */
export function Page(props: { who?: string; children: ComponentChildren }) {
  return (
    <div class="page">
      <header class="page-head">
        <span class="brand">
          <span class="brand-mark" aria-hidden="true" />
          Bedside
        </span>
        {props.who && <span class="who">{props.who}</span>}
      </header>
      <main class="page-main">{props.children}</main>
      <footer class="page-foot">
        <LockIcon />
        <span>Encrypted on its way. Your clinic’s own server carries this call.</span>
      </footer>
    </div>
  );
}

/**
 * A heading that takes the focus when it appears, so that keyboard and screen-reader users land at
 * the top of what is new.
 */
export function Title(props: { children: ComponentChildren }) {
  const ref = useRef<HTMLHeadingElement>(null);
  useEffect(() => ref.current?.focus(), []);
  return (
    <h1 ref={ref} tabIndex={-1}>
      {props.children}
    </h1>
  );
}

/** A sentence that is read out when it changes. */
export function Status(props: { children: ComponentChildren; class?: string }) {
  return (
    <p class={props.class} role="status" aria-live="polite">
      {props.children}
    </p>
  );
}

export function Notice(props: {
  words: Words;
  tone?: 'warn' | 'bad';
  children?: ComponentChildren;
}) {
  return (
    <div class={`notice notice-${props.tone ?? 'warn'}`} role="alert">
      <p>
        <strong>{props.words.title}</strong> {props.words.advice}
      </p>
      {props.children && <div class="notice-actions">{props.children}</div>}
    </div>
  );
}

export function Avatar(props: { name: string }) {
  return (
    <span class="avatar" aria-hidden="true">
      {initials(props.name)}
    </span>
  );
}

/** A centred card that says one thing, for the beginning, the end and failures. */
export function Card(props: { title: string; children: ComponentChildren }) {
  return (
    <section class="card card-narrow">
      <Title>{props.title}</Title>
      {props.children}
    </section>
  );
}

export function Busy(props: { children: ComponentChildren }) {
  return (
    <div class="busy">
      <h1 class="sr-only">Bedside</h1>
      <span class="spinner" aria-hidden="true" />
      <Status>{props.children}</Status>
    </div>
  );
}

/** Time gone by since `since`, once a second. `now` is the server's clock. */
export function Elapsed(props: { since: number; now: () => number; label: string }) {
  const text = useSignal(clock(props.now() - props.since));
  useEffect(() => {
    const update = () => {
      text.value = clock(props.now() - props.since);
    };
    update();
    const timer = setInterval(update, 1000);
    return () => clearInterval(timer);
  }, [props.since]);
  return (
    <span class="elapsed" role="timer" aria-label={props.label}>
      {text.value}
    </span>
  );
}
