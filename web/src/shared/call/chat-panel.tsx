// The chat beside a call (over it on a phone).

import { useSignal } from '@preact/signals';
import { useEffect, useLayoutEffect, useRef } from 'preact/hooks';
import type { ChannelState } from '../channel';
import { type Chat, type ChatLine, LONGEST_MESSAGE } from '../chat';
import { timeOfDay } from '../format';
import { CloseIcon, SendIcon } from '../ui/icons';

export function ChatPanel(props: { chat: Chat; channelState: ChannelState; onClose: () => void }) {
  const { chat } = props;
  const list = useRef<HTMLDivElement>(null);
  const lines = chat.lines.value;
  const last = lines.at(-1)?.key;
  useEffect(() => {
    chat.show(true);
    return () => chat.show(false);
  }, [chat]);
  // New lines scroll into view; earlier ones that are loaded above do not move the reader.
  useLayoutEffect(() => {
    if (list.current) list.current.scrollTop = list.current.scrollHeight;
  }, [last]);
  return (
    <aside
      class="chat"
      aria-label="Chat"
      onKeyDown={(event) => {
        if (event.key === 'Escape') props.onClose();
      }}
    >
      <header class="chat-head">
        <h2>Chat</h2>
        <button
          type="button"
          class="round round-plain"
          aria-label="Close chat"
          onClick={props.onClose}
        >
          <CloseIcon />
        </button>
      </header>
      <div ref={list} class="chat-lines" role="log" aria-label="Messages" tabIndex={0}>
        <ol>
          {chat.more.value && (
            <li class="chat-more">
              <button
                type="button"
                class="button button-quiet"
                disabled={chat.loading.value}
                onClick={() => void chat.earlier().catch(() => undefined)}
              >
                Show earlier messages
              </button>
            </li>
          )}
          {lines.length === 0 && (
            <li class="chat-none">
              No messages yet. What you write here is kept with the consultation.
            </li>
          )}
          {lines.map((line) => (
            <Line key={line.key} line={line} chat={chat} />
          ))}
        </ol>
      </div>
      {props.channelState === 'lost' && (
        <p class="chat-offline" role="status">
          Reconnecting. Messages will be sent as soon as possible.
        </p>
      )}
      <Composer chat={chat} />
    </aside>
  );
}

function Line(props: { line: ChatLine; chat: Chat }) {
  const { line } = props;
  return (
    <li class={`line ${line.mine ? 'line-mine' : ''}`}>
      <p class="line-meta">
        <span>{line.mine ? 'You' : line.senderName}</span> <time>{timeOfDay(line.timestamp)}</time>
        {line.state === 'sending' && <span> · sending…</span>}
      </p>
      <p class="line-text" dir="auto">
        {line.content}
      </p>
      {line.state === 'failed' && (
        <p class="line-failed">
          Not sent.{' '}
          <button type="button" class="link" onClick={() => props.chat.retry(line.key)}>
            Send again
          </button>
        </p>
      )}
    </li>
  );
}

function Composer(props: { chat: Chat }) {
  const text = useSignal('');
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => field.current?.focus(), []);
  const send = () => {
    props.chat.say(text.value);
    text.value = '';
    field.current?.focus();
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <textarea
        ref={field}
        rows={1}
        maxLength={LONGEST_MESSAGE}
        aria-label="Message"
        placeholder="Write a message"
        enterkeyhint="send"
        value={text.value}
        onInput={(event) => {
          text.value = event.currentTarget.value;
        }}
        onKeyDown={(event) => {
          if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
          event.preventDefault();
          send();
        }}
      />
      <button
        type="submit"
        class="round round-main"
        aria-label="Send message"
        disabled={text.value.trim() === ''}
      >
        <SendIcon />
      </button>
    </form>
  );
}
