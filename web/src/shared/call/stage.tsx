// The pictures of a call: a shared screen or the others large, the rest as small tiles.

import { useEffect, useRef } from 'preact/hooks';
import { MicrophoneOffIcon } from '../ui/icons';
import { Avatar } from '../ui/parts';
import type { CallModel, Picture, RemotePerson } from './model';

export function Stage(props: { call: CallModel; me: string; expected: string }) {
  const { call } = props;
  const people = call.people.value;
  const presenter = people.find((p) => p.screen !== null);
  return (
    <div class={`stage ${presenter ? 'stage-presenting' : ''}`}>
      {presenter?.screen && (
        <figure class="tile tile-screen">
          <PictureView picture={presenter.screen} label={`Screen shared by ${presenter.name}`} />
          <figcaption class="name-tag">{presenter.name}’s screen</figcaption>
        </figure>
      )}
      <div class={`people people-${Math.min(4, people.length)}`}>
        {people.map((p) => (
          <PersonTile key={p.identity} person={p} voiceOnly={call.voiceOnly} />
        ))}
        {people.length === 0 && !presenter && (
          <div class="tile tile-empty">
            <Avatar name={props.expected} />
            <p>{props.expected} is not here yet. The call begins as soon as they join.</p>
          </div>
        )}
      </div>
      {!call.voiceOnly && <SelfTile call={call} />}
    </div>
  );
}

function PersonTile(props: { person: RemotePerson; voiceOnly: boolean }) {
  const { person, voiceOnly } = props;
  return (
    <figure class={`tile tile-person ${person.speaking ? 'tile-speaking' : ''}`}>
      {person.camera ? (
        <PictureView picture={person.camera} label={`Picture of ${person.name}`} />
      ) : (
        <div class="tile-nopicture">
          <Avatar name={person.name} />
          <p>{voiceOnly ? 'You are talking by voice' : `${person.name}’s camera is off`}</p>
        </div>
      )}
      {person.picturePaused && (
        <p class="tile-paused">
          The picture is paused because the connection is weak. The voice is safe, and the picture
          comes back by itself.
        </p>
      )}
      <figcaption class="name-tag">
        {person.name}
        {!person.microphoneOn && (
          <span class="tag-muted">
            <MicrophoneOffIcon />
            <span>Microphone muted</span>
          </span>
        )}
      </figcaption>
    </figure>
  );
}

function SelfTile(props: { call: CallModel }) {
  const self = props.call.self.value;
  return (
    <figure class="tile tile-self">
      {self.camera ? (
        <PictureView picture={self.camera} label="Your own picture" mirrored muted />
      ) : (
        <p class="tile-nopicture">Your camera is off</p>
      )}
      <figcaption class="name-tag">
        You
        {!self.microphoneOn && (
          <span class="tag-muted">
            <MicrophoneOffIcon />
            <span class="sr-only">, your microphone is muted</span>
          </span>
        )}
      </figcaption>
    </figure>
  );
}

function PictureView(props: {
  picture: Picture;
  label: string;
  mirrored?: boolean;
  muted?: boolean;
}) {
  const ref = useRef<HTMLVideoElement>(null);
  const { picture } = props;
  useEffect(() => {
    const element = ref.current;
    if (!element) return undefined;
    picture.attach(element);
    return () => picture.detach(element);
  }, [picture]);
  return (
    <video
      ref={ref}
      class={props.mirrored ? 'mirrored' : ''}
      aria-label={props.label}
      autoplay
      playsInline
      muted={props.muted ?? false}
    />
  );
}
