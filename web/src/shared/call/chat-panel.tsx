// The chat beside a call (over it on a phone).

import { useSignal } from '@preact/signals';
import { useEffect, useLayoutEffect, useRef } from 'preact/hooks';
import type { ChannelState } from '../channel';
import { type Chat, type ChatLine, LONGEST_MESSAGE } from '../chat';
import { fileSize, timeOfDay } from '../format';
import type { Attachment } from '../types';
import { ClipIcon, CloseIcon, SendIcon } from '../ui/icons';

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

const RECEIPTS = { sent: 'Sent', delivered: 'Delivered', read: 'Read' } as const;

function Line(props: { line: ChatLine; chat: Chat }) {
  const { line } = props;
  if (line.kind === 'system') {
    return (
      <li class="line-system">
        {line.content} <time>{timeOfDay(line.timestamp)}</time>
      </li>
    );
  }
  return (
    <li class={`line ${line.mine ? 'line-mine' : ''}`}>
      <p class="line-meta">
        <span>{line.mine ? 'You' : line.senderName}</span> <time>{timeOfDay(line.timestamp)}</time>
        {line.state === 'sending' && <span> · sending…</span>}
        {line.mine && line.state === 'stored' && <span> · {RECEIPTS[line.receipt]}</span>}
      </p>
      {line.attachment && (
        <AttachmentBox attachment={line.attachment} kind={line.kind} chat={props.chat} />
      )}
      {line.content !== '' && (
        <p class="line-text" dir="auto">
          {line.content}
        </p>
      )}
      {line.state === 'refused' && <p class="line-failed">Not sent. {line.reason}</p>}
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

/** A picture is shown, a file is named; both can be saved. */
function AttachmentBox(props: { attachment: Attachment; kind: ChatLine['kind']; chat: Chat }) {
  const { attachment, chat } = props;
  const picture = useSignal<string | null>(null);
  const failed = useSignal(false);
  useEffect(() => {
    if (props.kind !== 'image') return;
    let gone = false;
    void chat.download(attachment.attachmentId).then(
      (blob) => {
        if (!gone) picture.value = URL.createObjectURL(blob);
      },
      () => {
        failed.value = true;
      },
    );
    return () => {
      gone = true;
      if (picture.value) URL.revokeObjectURL(picture.value);
    };
  }, [chat, attachment.attachmentId, props.kind]);
  const save = async () => {
    failed.value = false;
    try {
      const url = URL.createObjectURL(await chat.download(attachment.attachmentId));
      const link = document.createElement('a');
      link.href = url;
      link.download = attachment.fileName;
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
    } catch {
      failed.value = true;
    }
  };
  return (
    <div class="line-file">
      {picture.value && (
        <img
          src={picture.value}
          alt={`Picture ${attachment.fileName}`}
          width={attachment.width}
          height={attachment.height}
        />
      )}
      <button type="button" class="link" onClick={() => void save()}>
        Save <bdi>{attachment.fileName}</bdi> ({fileSize(attachment.fileSize)})
      </button>
      {failed.value && <p role="status">It could not be loaded. Please try again.</p>}
    </div>
  );
}

/** What the file dialog offers first; the server looks at the content. */
const ACCEPT =
  'image/png,image/jpeg,image/gif,image/webp,application/pdf,text/plain,' +
  '.docx,.xlsx,.pptx,.odt,.ods,.odp,.dcm';

function AttachButton(props: { chat: Chat }) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <input
        ref={input}
        type="file"
        hidden
        accept={ACCEPT}
        onChange={(event) => {
          for (const file of event.currentTarget.files ?? []) props.chat.sendFile(file);
          // The same file may be chosen again.
          event.currentTarget.value = '';
        }}
      />
      <button
        type="button"
        class="round round-plain"
        aria-label="Attach a picture or file"
        onClick={() => input.current?.click()}
      >
        <ClipIcon />
      </button>
    </>
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
      <AttachButton chat={props.chat} />
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
