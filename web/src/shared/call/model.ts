// What the call screen knows of a call: no word of the SDK, so that the screen can be built and
// tested without one.

import type { ReadonlySignal } from '@preact/signals';
import type { Device, DeviceProblem } from '../media/problem';
import type { Phase } from './phase';

/** Something that can be shown in a `video` element. */
export interface Picture {
  readonly id: string;
  attach(element: HTMLVideoElement): void;
  detach(element: HTMLVideoElement): void;
}

export interface RemotePerson {
  identity: string;
  name: string;
  camera: Picture | null;
  screen: Picture | null;
  microphoneOn: boolean;
  speaking: boolean;
  weak: boolean;
  /** Nothing has come from them for some seconds though it should. */
  stalled: boolean;
  /** Their camera is on, but only their voice gets through: the link is too weak for both. */
  picturePaused: boolean;
}

export interface Self {
  microphoneOn: boolean;
  cameraOn: boolean;
  sharing: boolean;
  camera: Picture | null;
  speaking: boolean;
  weak: boolean;
  /** Nothing has come from the server for some seconds; the SDK notices later. */
  cutOff: boolean;
}

export interface Trouble {
  device: Device;
  problem: DeviceProblem;
}

export interface CallModel {
  readonly phase: ReadonlySignal<Phase>;
  readonly people: ReadonlySignal<readonly RemotePerson[]>;
  readonly self: ReadonlySignal<Self>;
  /** What the person wants on, whether or not it is at this moment. */
  readonly wanted: ReadonlySignal<Readonly<Record<Device, boolean>>>;
  /** The browser will not play sound until the person touches the page. */
  readonly soundBlocked: ReadonlySignal<boolean>;
  readonly trouble: ReadonlySignal<Trouble | null>;
  /** The browser asks, or has refused, to let the page reach the server's local network. */
  readonly localNetwork: ReadonlySignal<'prompt' | 'denied' | null>;
  readonly canShare: boolean;
  /** A consultation by voice: no cameras, no screens. */
  readonly voiceOnly: boolean;
  setMicrophone(on: boolean): Promise<void>;
  setCamera(on: boolean): Promise<void>;
  setSharing(on: boolean): Promise<void>;
  unlockSound(): Promise<void>;
  devices(kind: MediaDeviceKind): Promise<MediaDeviceInfo[]>;
  activeDevice(kind: MediaDeviceKind): string | undefined;
  useDevice(kind: MediaDeviceKind, id: string): Promise<void>;
  dismissTrouble(): void;
  retry(): void;
  leave(): Promise<void>;
}
