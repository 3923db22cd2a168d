// Choosing another camera, microphone or speaker in the middle of a call.

import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import type { CallModel } from './model';

const KINDS = [
  ['videoinput', 'Camera'],
  ['audioinput', 'Microphone'],
  ['audiooutput', 'Speaker'],
] as const;

export function DeviceDialog(props: { call: CallModel; onClose: () => void }) {
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => ref.current?.showModal(), []);
  return (
    <dialog ref={ref} class="dialog" aria-labelledby="devices-title" onClose={props.onClose}>
      <h2 id="devices-title">{props.call.voiceOnly ? 'Sound' : 'Camera and sound'}</h2>
      {KINDS.filter(([kind]) => !props.call.voiceOnly || kind !== 'videoinput').map(([kind, name]) => (
        <DeviceChoice key={kind} call={props.call} kind={kind} name={name} />
      ))}
      <form method="dialog">
        <button type="submit" class="button button-main">
          Done
        </button>
      </form>
    </dialog>
  );
}

function DeviceChoice(props: { call: CallModel; kind: MediaDeviceKind; name: string }) {
  const { call, kind, name } = props;
  const options = useSignal<MediaDeviceInfo[]>([]);
  const active = useSignal(call.activeDevice(kind) ?? '');
  useEffect(() => {
    call.devices(kind).then(
      (found) => {
        options.value = found.filter((d) => d.deviceId !== '');
      },
      () => undefined,
    );
  }, [call, kind]);
  if (options.value.length === 0) return null;
  return (
    <label class="choice">
      <span class="label">{name}</span>
      <select
        value={active.value}
        onChange={(event) => {
          active.value = event.currentTarget.value;
          void call.useDevice(kind, active.value);
        }}
      >
        {options.value.map((d, i) => (
          <option key={d.deviceId} value={d.deviceId}>
            {d.label || `${name} ${i + 1}`}
          </option>
        ))}
      </select>
    </label>
  );
}
