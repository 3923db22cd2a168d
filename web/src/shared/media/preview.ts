// The camera and microphone before a call: asked for, shown, chosen, and handed over to the call.
//
// Both are asked for together, so that the browser shows one question; where that fails each is
// asked for alone, so that a missing camera does not cost the voice.

import { type Signal, signal } from '@preact/signals';
import { type Device, type DeviceProblem, deviceProblem } from './problem';

export type DeviceState =
  | { is: 'off' }
  | { is: 'asking' }
  | { is: 'on'; track: MediaStreamTrack }
  | { is: 'problem'; problem: DeviceProblem };

/** What a call starts with. A missing track means that the person takes part without it. */
export interface StartMedia {
  camera: MediaStreamTrack | null;
  microphone: MediaStreamTrack | null;
  cameraId: string | null;
  microphoneId: string | null;
}

export const CAMERA: MediaTrackConstraints = {
  width: { ideal: 1280 },
  height: { ideal: 720 },
  frameRate: { ideal: 30 },
};

/** Mono with echo cancellation: stereo capture switches the canceller off in some browsers. */
export const MICROPHONE: MediaTrackConstraints = {
  echoCancellation: true,
  noiseSuppression: true,
  autoGainControl: true,
  channelCount: 1,
};

function constraintsOf(device: Device, id: string | null): MediaTrackConstraints {
  const base = device === 'camera' ? CAMERA : MICROPHONE;
  return id === null ? base : { ...base, deviceId: { exact: id } };
}

export class Preview {
  readonly camera = signal<DeviceState>({ is: 'off' });
  readonly microphone = signal<DeviceState>({ is: 'off' });
  readonly devices = signal<readonly MediaDeviceInfo[]>([]);
  readonly chosen = signal<Record<Device, string | null>>({ camera: null, microphone: null });

  #asking: Promise<void> = Promise.resolve();
  #watching: AbortController | null = null;

  /** Asks for what is wanted. Safe to call again: it only asks for what is not on. */
  start(want: Record<Device, boolean>): Promise<void> {
    this.#watch();
    const asked = (['camera', 'microphone'] as const).filter(
      (d) => want[d] && this.#state(d).value.is !== 'on',
    );
    this.#asking = this.#asking.then(() => this.#ask(asked)).then(() => this.#enumerate());
    return this.#asking;
  }

  /** Resolves when no question to the browser is open, or after `ms`. */
  settled(ms: number): Promise<void> {
    return Promise.race([this.#asking, new Promise<void>((done) => setTimeout(done, ms))]);
  }

  async turn(device: Device, on: boolean): Promise<void> {
    if (on) {
      await this.start({ camera: device === 'camera', microphone: device === 'microphone' });
      return;
    }
    this.#release(device);
    this.#state(device).value = { is: 'off' };
  }

  async choose(device: Device, id: string): Promise<void> {
    this.chosen.value = { ...this.chosen.value, [device]: id };
    this.#release(device);
    this.#state(device).value = { is: 'off' };
    await this.turn(device, true);
  }

  /** Gives the tracks away: from now on the call owns them. */
  handOver(): StartMedia {
    this.#unwatch();
    const take = (device: Device) => {
      const state = this.#state(device);
      const track = state.value.is === 'on' ? state.value.track : null;
      if (track) {
        track.onended = null;
        state.value = { is: 'off' };
      }
      return track;
    };
    const camera = take('camera');
    const microphone = take('microphone');
    return {
      camera,
      microphone,
      cameraId: camera?.getSettings().deviceId ?? this.chosen.value.camera,
      microphoneId: microphone?.getSettings().deviceId ?? this.chosen.value.microphone,
    };
  }

  /** Lets go of camera and microphone: their lights go out. */
  stop(): void {
    this.#unwatch();
    for (const device of ['camera', 'microphone'] as const) {
      this.#release(device);
      this.#state(device).value = { is: 'off' };
    }
  }

  #state(device: Device): Signal<DeviceState> {
    return device === 'camera' ? this.camera : this.microphone;
  }

  async #ask(asked: Device[]): Promise<void> {
    if (asked.length === 0) return;
    // Without a secure page or inside some apps' built-in browsers the interface is simply absent.
    if (!navigator.mediaDevices?.getUserMedia) {
      const problem = window.isSecureContext ? 'unsupported' : 'insecure';
      for (const device of asked) this.#state(device).value = { is: 'problem', problem };
      return;
    }
    for (const device of asked) this.#state(device).value = { is: 'asking' };
    if (asked.length === 2 && (await this.#capture(asked)) === null) return;
    for (const device of asked) {
      const problem = await this.#capture([device]);
      if (problem !== null) this.#state(device).value = { is: 'problem', problem };
    }
  }

  async #capture(asked: Device[]): Promise<DeviceProblem | null> {
    const constraints: MediaStreamConstraints = {};
    if (asked.includes('camera'))
      constraints.video = constraintsOf('camera', this.chosen.value.camera);
    if (asked.includes('microphone')) {
      constraints.audio = constraintsOf('microphone', this.chosen.value.microphone);
    }
    let stream: MediaStream;
    try {
      stream = await navigator.mediaDevices.getUserMedia(constraints);
    } catch (error) {
      return deviceProblem(error);
    }
    for (const track of stream.getTracks()) {
      const device: Device = track.kind === 'video' ? 'camera' : 'microphone';
      const state = this.#state(device);
      // Unplugged, or taken away by the system: say so instead of showing a frozen picture.
      track.onended = () => {
        state.value = { is: 'problem', problem: 'busy' };
      };
      state.value = { is: 'on', track };
    }
    return null;
  }

  #release(device: Device): void {
    const state = this.#state(device).value;
    if (state.is !== 'on') return;
    state.track.onended = null;
    state.track.stop();
  }

  async #enumerate(): Promise<void> {
    if (!navigator.mediaDevices?.enumerateDevices) return;
    try {
      const all = await navigator.mediaDevices.enumerateDevices();
      // Before permission, browsers list devices without ids: nothing one could choose from.
      this.devices.value = all.filter((d) => d.deviceId !== '');
    } catch {
      this.devices.value = [];
    }
  }

  #watch(): void {
    if (this.#watching || !navigator.mediaDevices) return;
    this.#watching = new AbortController();
    const { signal: aborted } = this.#watching;
    navigator.mediaDevices.addEventListener('devicechange', () => void this.#enumerate(), {
      signal: aborted,
    });
    for (const device of ['camera', 'microphone'] as const) this.#watchPermission(device, aborted);
  }

  // Allowed in the browser's settings while our help text is shown: go on without another tap.
  #watchPermission(device: Device, aborted: AbortSignal): void {
    const query = navigator.permissions?.query({ name: device as PermissionName });
    query
      ?.then((status) => {
        const retry = () => {
          const state = this.#state(device).value;
          if (status.state === 'granted' && state.is === 'problem') void this.turn(device, true);
        };
        status.addEventListener('change', retry, { signal: aborted });
      })
      .catch(() => undefined);
  }

  #unwatch(): void {
    this.#watching?.abort();
    this.#watching = null;
  }
}
