// The row of buttons under a call. Each is named by what it does next.

import type { Signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { count } from '../format';
import {
  CameraIcon,
  CameraOffIcon,
  ChatIcon,
  HangUpIcon,
  LeaveIcon,
  MicrophoneIcon,
  MicrophoneOffIcon,
  ScreenIcon,
  SettingsIcon,
} from '../ui/icons';
import type { CallModel } from './model';

export interface ControlsProps {
  call: CallModel;
  chatOpen: Signal<boolean>;
  unread: number;
  onDevices: () => void;
  onLeave: () => void;
  onEnd?: () => void;
}

export function Controls(props: ControlsProps) {
  const { call, chatOpen, unread } = props;
  const self = call.self.value;
  return (
    <div class="controls" role="toolbar" aria-label="Call controls">
      <Control
        name={self.microphoneOn ? 'Mute microphone' : 'Unmute microphone'}
        short={self.microphoneOn ? 'Mute' : 'Unmute'}
        off={!self.microphoneOn}
        onClick={() => void call.setMicrophone(!self.microphoneOn)}
      >
        {self.microphoneOn ? <MicrophoneIcon /> : <MicrophoneOffIcon />}
      </Control>
      {!call.voiceOnly && (
        <Control
          name={self.cameraOn ? 'Turn camera off' : 'Turn camera on'}
          short="Camera"
          off={!self.cameraOn}
          onClick={() => void call.setCamera(!self.cameraOn)}
        >
          {self.cameraOn ? <CameraIcon /> : <CameraOffIcon />}
        </Control>
      )}
      {call.canShare && (
        <Control
          name={self.sharing ? 'Stop sharing' : 'Share screen'}
          short={self.sharing ? 'Stop' : 'Share'}
          on={self.sharing}
          onClick={() => void call.setSharing(!self.sharing)}
        >
          <ScreenIcon />
        </Control>
      )}
      <Control
        name={chatName(unread)}
        short="Chat"
        on={chatOpen.value}
        expanded={chatOpen.value}
        onClick={() => {
          chatOpen.value = !chatOpen.value;
        }}
      >
        <ChatIcon />
        {unread > 0 && <span class="badge" data-count={unread > 9 ? '9+' : unread} />}
      </Control>
      <Control
        name={call.voiceOnly ? 'Sound settings' : 'Camera and sound settings'}
        short="Settings"
        onClick={props.onDevices}
      >
        <SettingsIcon />
      </Control>
      <Control
        name="Leave"
        short="Leave"
        danger={props.onEnd === undefined}
        onClick={props.onLeave}
      >
        <LeaveIcon />
      </Control>
      {props.onEnd && (
        <Control name="End call" short="End call" danger onClick={props.onEnd}>
          <HangUpIcon />
        </Control>
      )}
    </div>
  );
}

// The name stays when the panel opens: `aria-expanded` tells the state.
function chatName(unread: number): string {
  return unread > 0 ? `Chat, ${count(unread, 'unread message')}` : 'Chat';
}

function Control(props: {
  name: string;
  short: string;
  off?: boolean;
  on?: boolean;
  danger?: boolean;
  expanded?: boolean;
  onClick: () => void;
  children: ComponentChildren;
}) {
  const kind = props.danger ? 'round-danger' : props.off ? 'round-off' : props.on ? 'round-on' : '';
  return (
    <button
      type="button"
      class="control"
      aria-label={props.name}
      title={props.name}
      onClick={props.onClick}
      {...(props.expanded === undefined ? {} : { 'aria-expanded': props.expanded })}
    >
      <span class={`round ${kind}`}>{props.children}</span>
      <span class="control-name" aria-hidden="true">
        {props.short}
      </span>
    </button>
  );
}
