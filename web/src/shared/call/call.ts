// A call in a room: `livekit-client` on one side, plain signals for the screen on the other.

import { batch, signal } from '@preact/signals';
import {
  ConnectionQuality,
  LocalAudioTrack,
  LocalVideoTrack,
  type Participant,
  type RemoteParticipant,
  type RemoteTrack,
  Room,
  RoomEvent,
  setLogLevel,
  Track,
  VideoPresets,
} from 'livekit-client';
import { isFinal, Problem } from '../api';
import { localNetwork } from '../local-network';
import { CAMERA, MICROPHONE, type StartMedia } from '../media/preview';
import { type Device, deviceProblem } from '../media/problem';
import type { JoinAnswer, RoomAccess } from '../types';
import { roomAddress } from './address';
import type { CallModel, Picture, RemotePerson, Self, Trouble } from './model';
import { type Gone, meaningOf, type Phase, type PhaseEvent, rejoinPause, step } from './phase';
import { type LinkSample, linkIsWeak, readLink, Standstill } from './quality';

export interface CallOptions {
  access: RoomAccess;
  media: StartMedia;
  /** Asks the server for the room again: after a loss that the SDK could not mend. */
  join: () => Promise<JoinAnswer>;
  onGone: (why: Gone) => void;
  /** A consultation by voice. */
  voiceOnly: boolean;
}

// The SDK logs names of rooms and people; a console is read by others, and our words tell the state.
setLogLevel('silent');

const QUALITY_EVERY_MS = 1_000;
/** A call that works has come by then. */
const EXPLAIN_AFTER_MS = 3_000;
/** So many samples without anything, and something is wrong. */
const STALLED_SAMPLES = 4;
/** A picture that stands still beside a voice that goes on is paused; nobody should wonder for long. */
const PAUSED_SAMPLES = 2;

const CHANGES = [
  RoomEvent.ParticipantConnected,
  RoomEvent.ParticipantDisconnected,
  RoomEvent.ParticipantNameChanged,
  RoomEvent.TrackUnpublished,
  RoomEvent.TrackSubscribed,
  RoomEvent.TrackUnsubscribed,
  RoomEvent.TrackMuted,
  RoomEvent.TrackUnmuted,
  RoomEvent.TrackStreamStateChanged,
  RoomEvent.LocalTrackPublished,
  RoomEvent.LocalTrackUnpublished,
  RoomEvent.ActiveSpeakersChanged,
  RoomEvent.ConnectionQualityChanged,
  RoomEvent.ActiveDeviceChanged,
] as const;

export class Call implements CallModel {
  readonly phase = signal<Phase>({ is: 'connecting' });
  readonly people = signal<readonly RemotePerson[]>([]);
  readonly self = signal<Self>({
    microphoneOn: false,
    cameraOn: false,
    sharing: false,
    camera: null,
    speaking: false,
    weak: false,
    cutOff: false,
  });
  readonly wanted = signal<Readonly<Record<Device, boolean>>>({ camera: false, microphone: false });
  readonly soundBlocked = signal(false);
  readonly trouble = signal<Trouble | null>(null);
  readonly localNetwork = signal<'prompt' | 'denied' | null>(null);
  readonly canShare: boolean;
  readonly voiceOnly: boolean;

  #options: CallOptions;
  #room: Room;
  #pictures = new Map<string, Picture>();
  #sounds = document.createElement('div');
  #quality: ReturnType<typeof setInterval> | undefined;
  #link: LinkSample | null = null;
  #linkWeak = false;
  #cutOff = false;
  #fromServer = new Standstill(STALLED_SAMPLES);
  #fromPerson = new Map<string, { all: Standstill; picture: Standstill; sound: number }>();
  #stalled: ReadonlySet<string> = new Set();
  #paused: ReadonlySet<string> = new Set();

  constructor(options: CallOptions) {
    this.#options = options;
    this.voiceOnly = options.voiceOnly;
    this.canShare =
      !this.voiceOnly && typeof navigator.mediaDevices?.getDisplayMedia === 'function';
    this.#room = new Room({
      adaptiveStream: true,
      dynacast: true,
      audioCaptureDefaults: {
        echoCancellation: true,
        noiseSuppression: true,
        autoGainControl: true,
        channelCount: 1,
        ...idOf(options.media.microphoneId),
      },
      videoCaptureDefaults: {
        resolution: VideoPresets.h720.resolution,
        ...idOf(options.media.cameraId),
      },
      publishDefaults: { simulcast: true, dtx: true, red: true },
    });
    this.#sounds.hidden = true;
    document.body.append(this.#sounds);
    this.#listen();
    void this.#begin();
  }

  async setMicrophone(on: boolean): Promise<void> {
    this.wanted.value = { ...this.wanted.value, microphone: on };
    await this.#try('microphone', () => this.#room.localParticipant.setMicrophoneEnabled(on));
  }

  async setCamera(on: boolean): Promise<void> {
    this.wanted.value = { ...this.wanted.value, camera: on };
    await this.#try('camera', () => this.#room.localParticipant.setCameraEnabled(on));
  }

  async setSharing(on: boolean): Promise<void> {
    try {
      await this.#room.localParticipant.setScreenShareEnabled(on, { audio: true });
    } catch {
      // The person closed the browser's picker: they know, and nothing has to be said.
    }
    this.#show();
  }

  async unlockSound(): Promise<void> {
    await this.#room.startAudio();
    this.soundBlocked.value = !this.#room.canPlaybackAudio;
  }

  devices(kind: MediaDeviceKind): Promise<MediaDeviceInfo[]> {
    return Room.getLocalDevices(kind, false);
  }

  activeDevice(kind: MediaDeviceKind): string | undefined {
    return this.#room.getActiveDevice(kind);
  }

  async useDevice(kind: MediaDeviceKind, id: string): Promise<void> {
    const device = kind === 'videoinput' ? 'camera' : 'microphone';
    await this.#try(device, () => this.#room.switchActiveDevice(kind, id));
  }

  dismissTrouble(): void {
    this.trouble.value = null;
  }

  retry(): void {
    if (this.phase.value.is !== 'failed') return;
    this.#step({ type: 'RETRY' });
    void this.#rejoin();
  }

  async leave(): Promise<void> {
    this.#finish('left');
    await this.#room.disconnect();
  }

  async #begin(): Promise<void> {
    const { access, media } = this.#options;
    this.wanted.value = { microphone: media.microphone !== null, camera: media.camera !== null };
    const asking = setTimeout(() => void this.#explainLocalNetwork(), EXPLAIN_AFTER_MS);
    try {
      await this.#room.connect(roomAddress(access.url), access.accessToken);
    } catch {
      this.#stopHandedOver();
      this.#lose();
      return;
    } finally {
      clearTimeout(asking);
    }
    await this.#publishHandedOver();
  }

  // A call that is there at once needs no words; one that does not come may wait for this answer.
  async #explainLocalNetwork(): Promise<void> {
    const state = await localNetwork();
    const wanting = this.phase.value.is !== 'connected';
    if (wanting && (state === 'prompt' || state === 'denied')) this.localNetwork.value = state;
  }

  // Both at once, so that they share one negotiation. The tracks stay the SDK's to restart
  // (`false`: not the caller's), which is what lets it switch devices and mend ended ones.
  async #publishHandedOver(): Promise<void> {
    const { camera, cameraId, microphone, microphoneId } = this.#options.media;
    const publish: Promise<unknown>[] = [];
    if (microphone) {
      const track = new LocalAudioTrack(
        microphone,
        { ...MICROPHONE, ...idOf(microphoneId) },
        false,
      );
      publish.push(this.#publish('microphone', track, Track.Source.Microphone));
    }
    if (camera) {
      const track = new LocalVideoTrack(camera, { ...CAMERA, ...idOf(cameraId) }, false);
      publish.push(this.#publish('camera', track, Track.Source.Camera));
    }
    await Promise.all(publish);
    this.#show();
  }

  #publish(device: Device, track: LocalAudioTrack | LocalVideoTrack, source: Track.Source) {
    return this.#try(device, () => this.#room.localParticipant.publishTrack(track, { source }));
  }

  #stopHandedOver(): void {
    this.#options.media.camera?.stop();
    this.#options.media.microphone?.stop();
  }

  async #try(device: Device, action: () => Promise<unknown>): Promise<void> {
    try {
      await action();
      if (this.trouble.value?.device === device) this.trouble.value = null;
    } catch (error) {
      // A publication that failed because the call was lost is repeated by the rejoin.
      if (this.phase.value.is === 'connected') {
        this.trouble.value = { device, problem: deviceProblem(error) };
      }
    }
    this.#show();
  }

  #listen(): void {
    const room = this.#room;
    for (const change of CHANGES) room.on(change, () => this.#show());
    room.on(RoomEvent.Connected, () => this.#connected());
    room.on(RoomEvent.Reconnected, () => this.#connected());
    room.on(RoomEvent.Reconnecting, () => this.#step({ type: 'INTERRUPTED' }));
    room.on(RoomEvent.SignalReconnecting, () => this.#step({ type: 'INTERRUPTED' }));
    room.on(RoomEvent.Disconnected, (reason) => {
      const why = meaningOf(reason);
      if (why === null) this.#lose();
      else this.#finish(why);
    });
    room.on(RoomEvent.TrackSubscribed, (track) => this.#playSound(track));
    room.on(RoomEvent.TrackUnsubscribed, (track) => {
      this.#pictures.delete(track.sid ?? '');
      for (const element of track.detach()) element.remove();
    });
    room.on(RoomEvent.AudioPlaybackStatusChanged, () => {
      this.soundBlocked.value = !room.canPlaybackAudio;
    });
    room.on(RoomEvent.MediaDevicesError, (error, kind) => {
      const device = kind === 'videoinput' ? 'camera' : 'microphone';
      this.trouble.value = { device, problem: deviceProblem(error) };
    });
  }

  #connected(): void {
    this.#step({ type: 'CONNECTED' });
    this.localNetwork.value = null;
    this.soundBlocked.value = !this.#room.canPlaybackAudio;
    this.#quality ??= setInterval(() => void this.#measure(), QUALITY_EVERY_MS);
    this.#show();
  }

  #playSound(track: RemoteTrack): void {
    if (track.kind === Track.Kind.Audio) this.#sounds.append(track.attach());
  }

  #lose(): void {
    const { is } = this.phase.value;
    if (is === 'gone' || is === 'rejoining' || is === 'failed') return;
    this.#step({ type: 'LOST' });
    void this.#rejoin();
  }

  async #rejoin(): Promise<void> {
    for (;;) {
      const phase = this.phase.value;
      if (phase.is !== 'rejoining') return;
      await new Promise((done) => setTimeout(done, rejoinPause(phase.attempt)));
      if (this.phase.value.is !== 'rejoining') return;
      try {
        const answer = await this.#options.join();
        // Left while the answer was on its way: from then on nothing may open the room again.
        if (this.#isGone()) return;
        if (answer.kind === 'waiting') {
          this.#finish('removed');
          return;
        }
        await this.#room.connect(roomAddress(answer.access.url), answer.access.accessToken);
        await this.#republish();
        return;
      } catch (error) {
        if (this.#isGone()) return;
        if (error instanceof Problem && isFinal(error.kind)) {
          this.#finish('ended');
          return;
        }
        this.#step({ type: 'ATTEMPT_FAILED' });
      }
    }
  }

  // The SDK stopped our tracks when it gave up: they are opened again as they were wanted.
  async #republish(): Promise<void> {
    const { camera, microphone } = this.wanted.value;
    if (microphone && !this.#isGone()) await this.setMicrophone(true);
    if (camera && !this.#isGone()) await this.setCamera(true);
  }

  #isGone(): boolean {
    return this.phase.value.is === 'gone';
  }

  #finish(why: Gone): void {
    if (this.phase.value.is === 'gone') return;
    clearInterval(this.#quality);
    this.#step({ type: 'GONE', why });
    this.#stopHandedOver();
    this.#sounds.remove();
    this.#options.onGone(why);
  }

  #step(event: PhaseEvent): void {
    this.phase.value = step(this.phase.value, event, Date.now());
  }

  #show(): void {
    const local = this.#room.localParticipant;
    batch(() => {
      this.people.value = [...this.#room.remoteParticipants.values()].map((p) => this.#person(p));
      this.self.value = {
        microphoneOn: local.isMicrophoneEnabled,
        cameraOn: local.isCameraEnabled,
        sharing: local.isScreenShareEnabled,
        camera: local.isCameraEnabled ? this.#picture(local, Track.Source.Camera) : null,
        speaking: local.isSpeaking,
        weak: this.#linkWeak || isWeak(local),
        cutOff: this.#cutOff,
      };
    });
  }

  #person(person: RemoteParticipant): RemotePerson {
    return {
      identity: person.identity,
      name: person.name || 'The other person',
      camera: person.isCameraEnabled ? this.#picture(person, Track.Source.Camera) : null,
      screen: this.#picture(person, Track.Source.ScreenShare),
      microphoneOn: person.isMicrophoneEnabled,
      speaking: person.isSpeaking,
      weak: isWeak(person),
      stalled: this.#stalled.has(person.identity),
      picturePaused: person.isCameraEnabled && this.#isPaused(person),
    };
  }

  // Told by the server, which pauses pictures before voices suffer; or seen from here, when the
  // other person's own link carries no picture any more.
  #isPaused(person: RemoteParticipant): boolean {
    const camera = person.getTrackPublication(Track.Source.Camera)?.track;
    return camera?.streamState === Track.StreamState.Paused || this.#paused.has(person.identity);
  }

  // One picture per track, the same object each time: the screen attaches it once.
  #picture(person: Participant, source: Track.Source): Picture | null {
    const track = person.getTrackPublication(source)?.track;
    const media = track?.mediaStreamTrack;
    if (!track || !media) return null;
    const id = track.sid ?? media.id;
    const known = this.#pictures.get(id);
    if (known) return known;
    const picture: Picture = {
      id,
      attach: (element) => void track.attach(element),
      detach: (element) => void track.detach(element),
    };
    this.#pictures.set(id, picture);
    return picture;
  }

  async #measure(): Promise<void> {
    const reports: RTCStatsReport[] = [];
    const stalled = new Set<string>();
    const paused = new Set<string>();
    for (const person of this.#room.remoteParticipants.values()) {
      const theirs = await reportsOf(person);
      reports.push(...theirs);
      const still = this.#standstills(person, theirs);
      if (still.all) stalled.add(person.identity);
      else if (still.picture) paused.add(person.identity);
    }
    reports.push(...(await reportsOf(this.#room.localParticipant)));
    const now = readLink(reports);
    this.#linkWeak = this.#link !== null && linkIsWeak(this.#link, now);
    this.#link = now;
    // Alone and silent there is nothing to measure.
    this.#cutOff = this.#fromServer.add(now.heard) && reports.length > 0;
    this.#stalled = stalled;
    this.#paused = paused;
    this.#show();
  }

  // What of a person has stood still. A hidden page asks for no video: then silence proves nothing.
  #standstills(person: RemoteParticipant, reports: RTCStatsReport[]) {
    const flowing = [...person.trackPublications.values()].some((p) => p.track && !p.isMuted);
    if (!flowing || document.hidden) {
      this.#fromPerson.delete(person.identity);
      return { all: false, picture: false };
    }
    const before = this.#fromPerson.get(person.identity) ?? {
      all: new Standstill(STALLED_SAMPLES),
      picture: new Standstill(PAUSED_SAMPLES),
      sound: 0,
    };
    const now = readLink(reports);
    const heard = now.sound > before.sound;
    this.#fromPerson.set(person.identity, { ...before, sound: now.sound });
    const all = before.all.add(now.received);
    // Without a voice beside it, a picture that stands still is no pause but a loss; and one that
    // is switched off, or has not begun, does not stand still.
    const shown = person.isCameraEnabled && now.picture > 0;
    if (!shown) before.picture.reset();
    const picture = shown && before.picture.add(now.picture) && heard;
    return { all, picture };
  }
}

async function reportsOf(person: Participant): Promise<RTCStatsReport[]> {
  const tracks = [...person.trackPublications.values()].map((p) => p.track);
  const reports = await Promise.all(tracks.map((track) => track?.getRTCStatsReport()));
  return reports.filter((report) => report !== undefined);
}

function idOf(deviceId: string | null): { deviceId?: string } {
  return deviceId === null ? {} : { deviceId };
}

function isWeak(person: Participant): boolean {
  return (
    person.connectionQuality === ConnectionQuality.Poor ||
    person.connectionQuality === ConnectionQuality.Lost
  );
}
