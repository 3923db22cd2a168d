// The camera and microphone check: preview, level, choice of devices, and help when one fails.

import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import {
  CameraIcon,
  CameraOffIcon,
  MicrophoneIcon,
  MicrophoneOffIcon,
  SpeakerIcon,
} from '../ui/icons';
import { Notice } from '../ui/parts';
import { playTestSound, watchLevel } from './level';
import type { DeviceState, Preview } from './preview';
import { type Device, problemAdvice, problemTitle } from './problem';

/** `voiceOnly`: nothing of a camera is asked or shown. `withoutSound`: the page has its own button. */
export function DeviceCheck(props: {
  preview: Preview;
  name: string;
  voiceOnly?: boolean;
  withoutSound?: boolean;
}) {
  const { preview, voiceOnly } = props;
  const camera = preview.camera.value;
  const microphone = preview.microphone.value;
  return (
    <div class="check">
      <div class="check-picture">
        {voiceOnly ? (
          <p class="check-nothing">This consultation is by voice.</p>
        ) : (
          <CameraPreview state={camera} name={props.name} />
        )}
        <div class="check-toggles">
          <Toggle device="microphone" state={microphone} preview={preview} />
          {!voiceOnly && <Toggle device="camera" state={camera} preview={preview} />}
        </div>
      </div>
      <div class="check-side">
        {!voiceOnly && <DeviceProblemNotice device="camera" state={camera} preview={preview} />}
        <DeviceProblemNotice device="microphone" state={microphone} preview={preview} />
        <LevelMeter state={microphone} />
        {!voiceOnly && <Choice device="camera" preview={preview} />}
        <Choice device="microphone" preview={preview} />
        {!props.withoutSound && (
          <button type="button" class="button button-quiet" onClick={playTestSound}>
            <SpeakerIcon />
            Play a test sound
          </button>
        )}
      </div>
    </div>
  );
}

function CameraPreview(props: { state: DeviceState; name: string }) {
  const ref = useRef<HTMLVideoElement>(null);
  const track = props.state.is === 'on' ? props.state.track : null;
  useEffect(() => {
    if (ref.current) ref.current.srcObject = track ? new MediaStream([track]) : null;
  }, [track]);
  return (
    <>
      <video
        ref={ref}
        class="mirrored"
        aria-label="Your own picture"
        autoplay
        muted
        playsInline
        hidden={track === null}
      />
      {track === null && <p class="check-nothing">{withoutPicture(props.state)}</p>}
      <span class="name-tag">{props.name}</span>
    </>
  );
}

function withoutPicture(state: DeviceState): string {
  switch (state.is) {
    case 'asking':
      return 'Your browser asks whether this page may use your camera and microphone. Please choose “Allow”.';
    case 'problem':
      return 'No picture. You can take part with your voice.';
    case 'off':
    case 'on':
      return 'Your camera is off.';
  }
}

function Toggle(props: { device: Device; state: DeviceState; preview: Preview }) {
  const { device, preview } = props;
  const on = props.state.is === 'on';
  const label =
    device === 'camera'
      ? `Turn camera ${on ? 'off' : 'on'}`
      : `${on ? 'Mute' : 'Unmute'} microphone`;
  return (
    <button
      type="button"
      class={`round ${on ? '' : 'round-off'}`}
      aria-label={label}
      title={label}
      disabled={props.state.is === 'asking'}
      onClick={() => void preview.turn(device, !on)}
    >
      {device === 'camera' ? (
        on ? (
          <CameraIcon />
        ) : (
          <CameraOffIcon />
        )
      ) : on ? (
        <MicrophoneIcon />
      ) : (
        <MicrophoneOffIcon />
      )}
    </button>
  );
}

function DeviceProblemNotice(props: { device: Device; state: DeviceState; preview: Preview }) {
  const { device, state, preview } = props;
  if (state.is !== 'problem') return null;
  const words = {
    title: problemTitle(device, state.problem),
    advice: problemAdvice(device, state.problem),
  };
  return (
    <Notice words={words}>
      <button type="button" class="button" onClick={() => void preview.turn(device, true)}>
        Try again
      </button>
    </Notice>
  );
}

/** Parts of the meter; a bar in steps needs no animation and reads well in both themes. */
const STEPS = 12;

function LevelMeter(props: { state: DeviceState }) {
  const lit = useSignal(0);
  const heard = useSignal(false);
  const track = props.state.is === 'on' ? props.state.track : null;
  useEffect(() => {
    lit.value = 0;
    if (!track) return undefined;
    return watchLevel(track, (level) => {
      lit.value = Math.round(level * STEPS);
      if (level > 0.3) heard.value = true;
    });
  }, [track]);
  return (
    <div class="level">
      <p class="label" id="level-label">
        {track === null
          ? 'Your microphone is off'
          : heard.value
            ? 'Your microphone works'
            : 'Say something: the bar should move'}
      </p>
      <div
        class="level-bar"
        role="meter"
        aria-labelledby="level-label"
        aria-valuemin={0}
        aria-valuemax={STEPS}
        aria-valuenow={lit.value}
      >
        {Array.from({ length: STEPS }, (_, i) => (
          <span key={i} class={i < lit.value ? 'lit' : ''} />
        ))}
      </div>
    </div>
  );
}

function Choice(props: { device: Device; preview: Preview }) {
  const { device, preview } = props;
  const kind = device === 'camera' ? 'videoinput' : 'audioinput';
  const options = preview.devices.value.filter((d) => d.kind === kind);
  const state = (device === 'camera' ? preview.camera : preview.microphone).value;
  if (options.length === 0) return null;
  const active = state.is === 'on' ? state.track.getSettings().deviceId : undefined;
  return (
    <label class="choice">
      <span class="label">{device === 'camera' ? 'Camera' : 'Microphone'}</span>
      <select
        value={active ?? preview.chosen.value[device] ?? ''}
        onChange={(event) => void preview.choose(device, event.currentTarget.value)}
      >
        {options.map((d, i) => (
          <option key={d.deviceId} value={d.deviceId}>
            {d.label || `${device === 'camera' ? 'Camera' : 'Microphone'} ${i + 1}`}
          </option>
        ))}
      </select>
    </label>
  );
}
