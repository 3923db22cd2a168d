// The form after the end: how was it? Everything but the stars may be left out.

import { useSignal } from '@preact/signals';
import type { Api, ProblemKind } from '../shared/api';
import { rememberGiven, wasGiven } from '../shared/remember';
import { isVoiceOnly, type Session } from '../shared/types';
import { StarIcon, ThumbDownIcon, ThumbUpIcon } from '../shared/ui/icons';
import { Notice, Status } from '../shared/ui/parts';
import { kindOfError, problemWords } from '../shared/words';
import {
  charactersLeft,
  type Draft,
  EMPTY,
  missing,
  STAR_WORDS,
  STARS,
  TAGS,
  toSend,
  withTag,
} from './feedback';

/** When this many characters are left, the form begins to say so. */
const FEW_LEFT = 200;

type Stage = 'open' | 'sending' | 'given';

export function FeedbackForm(props: { api: Api; session: Session }) {
  const { api, session } = props;
  const id = session.sessionId;
  const stage = useSignal<Stage>(wasGiven(id) ? 'given' : 'open');
  const draft = useSignal<Draft>(EMPTY);
  const wrong = useSignal<string | null>(null);
  const failed = useSignal<ProblemKind | null>(null);

  const change = (part: Partial<Draft>) => {
    draft.value = { ...draft.value, ...part };
    wrong.value = null;
  };
  const send = async (event: Event) => {
    event.preventDefault();
    if (stage.value === 'sending') return;
    wrong.value = missing(draft.value);
    failed.value = null;
    if (wrong.value !== null) return;
    stage.value = 'sending';
    try {
      await api.giveFeedback(id, toSend(draft.value, isVoiceOnly(session)));
    } catch (error) {
      // A conflict: it was given before, from another window. Nothing is left to say.
      failed.value = kindOfError(error);
      if (failed.value !== 'changed') {
        stage.value = 'open';
        return;
      }
    }
    rememberGiven(id);
    stage.value = 'given';
  };

  if (stage.value === 'given') {
    return <Status class="feedback-thanks">Thank you. Your feedback has been sent.</Status>;
  }
  return (
    <form class="feedback" noValidate onSubmit={(event) => void send(event)}>
      <h2>How was your consultation?</h2>
      <Stars
        name="overall"
        legend="Overall"
        large
        value={draft.value.overall}
        onChoose={(overall) => change({ overall })}
      />
      <Tags draft={draft.value} onPress={(tag) => change(withTag(draft.value, tag))} />
      <Details draft={draft.value} session={session} onChange={change} />
      <Review value={draft.value.review} onInput={(review) => change({ review })} />
      <Recommend
        value={draft.value.recommend}
        doctor={session.doctor.name}
        onChoose={(recommend) => change({ recommend })}
      />
      {wrong.value !== null && (
        <p class="feedback-wrong" role="alert">
          {wrong.value}
        </p>
      )}
      {failed.value !== null && <Notice tone="bad" words={problemWords(failed.value)} />}
      <button type="submit" class="button button-main" disabled={stage.value === 'sending'}>
        {stage.value === 'sending' ? 'Sending…' : 'Send feedback'}
      </button>
    </form>
  );
}

function Stars(props: {
  name: string;
  legend: string;
  large?: boolean;
  value: number;
  onChoose: (stars: number) => void;
}) {
  const chosen = props.value === 0 ? '' : STAR_WORDS[props.value - 1];
  return (
    <fieldset class={props.large ? 'stars stars-large' : 'stars'}>
      <legend>{props.legend}</legend>
      <div class="stars-row">
        {STARS.map((stars) => (
          <label key={stars} class={stars <= props.value ? 'star star-lit' : 'star'}>
            <input
              type="radio"
              class="sr-only"
              name={props.name}
              value={stars}
              checked={stars === props.value}
              onChange={() => props.onChoose(stars)}
            />
            <StarIcon />
            <span class="sr-only">
              {stars === 1 ? '1 star' : `${stars} stars`}, {STAR_WORDS[stars - 1]}
            </span>
          </label>
        ))}
        <span class="stars-word" aria-hidden="true">
          {chosen}
        </span>
      </div>
    </fieldset>
  );
}

function Tags(props: { draft: Draft; onPress: (tag: string) => void }) {
  return (
    <fieldset class="chips">
      <legend>What fits? (optional)</legend>
      {TAGS.map((tag) => (
        <label key={tag} class="chip">
          <input
            type="checkbox"
            class="sr-only"
            checked={props.draft.tags.has(tag)}
            onChange={() => props.onPress(tag)}
          />
          {tag}
        </label>
      ))}
    </fieldset>
  );
}

function Details(props: {
  draft: Draft;
  session: Session;
  onChange: (part: Partial<Draft>) => void;
}) {
  const { draft, onChange } = props;
  return (
    <details class="feedback-details">
      <summary>More details (optional)</summary>
      <Stars
        name="audio"
        legend="Sound"
        value={draft.audio}
        onChoose={(audio) => onChange({ audio })}
      />
      {!isVoiceOnly(props.session) && (
        <Stars
          name="video"
          legend="Picture"
          value={draft.video}
          onChoose={(video) => onChange({ video })}
        />
      )}
      <Stars
        name="doctor"
        legend={props.session.doctor.name}
        value={draft.doctor}
        onChoose={(doctor) => onChange({ doctor })}
      />
    </details>
  );
}

function Review(props: { value: string; onInput: (text: string) => void }) {
  const left = charactersLeft(props.value);
  return (
    <label class="review">
      In your own words (optional)
      <textarea
        rows={3}
        value={props.value}
        onInput={(event) => props.onInput(event.currentTarget.value)}
      />
      {left <= FEW_LEFT && (
        <span class="hint" role="status">
          {left < 0 ? `${-left} characters too many` : `${left} characters left`}
        </span>
      )}
    </label>
  );
}

function Recommend(props: {
  value: boolean | null;
  doctor: string;
  onChoose: (recommend: boolean) => void;
}) {
  const choices = [
    { value: true, words: 'Yes', Icon: ThumbUpIcon },
    { value: false, words: 'No', Icon: ThumbDownIcon },
  ];
  return (
    <fieldset class="chips">
      <legend>Would you recommend {props.doctor}? (optional)</legend>
      {choices.map(({ value, words, Icon }) => (
        <label key={words} class="chip">
          <input
            type="radio"
            class="sr-only"
            name="recommend"
            checked={props.value === value}
            onChange={() => props.onChoose(value)}
          />
          <Icon />
          {words}
        </label>
      ))}
    </fieldset>
  );
}
