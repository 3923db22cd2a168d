// Icons drawn for these pages: one 24 × 24 grid, one stroke.

import type { ComponentChildren } from 'preact';

const icon = (children: ComponentChildren) => () => (
  <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
    {children}
  </svg>
);

const slash = <path d="M4 4l16 16" />;

export const MicrophoneIcon = icon(
  <>
    <rect x="9" y="3" width="6" height="11" rx="3" />
    <path d="M5.5 11.5a6.5 6.5 0 0 0 13 0M12 18v3" />
  </>,
);
export const MicrophoneOffIcon = icon(
  <>
    <rect x="9" y="3" width="6" height="11" rx="3" />
    <path d="M5.5 11.5a6.5 6.5 0 0 0 13 0M12 18v3" />
    {slash}
  </>,
);
export const CameraIcon = icon(
  <>
    <rect x="3" y="6.5" width="12" height="11" rx="2.5" />
    <path d="M15 10.5l6-3v9l-6-3z" />
  </>,
);
export const CameraOffIcon = icon(
  <>
    <rect x="3" y="6.5" width="12" height="11" rx="2.5" />
    <path d="M15 10.5l6-3v9l-6-3z" />
    {slash}
  </>,
);
export const ScreenIcon = icon(
  <>
    <rect x="3" y="4.5" width="18" height="12" rx="2" />
    <path d="M8.5 20h7M12 13.5V8m-2.5 2.4L12 8l2.5 2.4" />
  </>,
);
export const ChatIcon = icon(<path d="M4 5.5h16v11H10l-4.5 3.5v-3.5H4z" />);
export const SettingsIcon = icon(
  <>
    <path d="M4 7h9M19 7h1M4 17h1M11 17h9" />
    <circle cx="16" cy="7" r="2.5" />
    <circle cx="8" cy="17" r="2.5" />
  </>,
);
export const HangUpIcon = icon(
  <path d="M3.5 15.5c-1-4 3.5-7 8.5-7s9.5 3 8.5 7l-4.5-.9.1-2.7c-2.6-.9-5.6-.9-8.2 0l.1 2.7z" />,
);
export const LeaveIcon = icon(<path d="M10 4.5H5.5v15H10M14 8l4.5 4-4.5 4M18 12H9.5" />);
export const CloseIcon = icon(<path d="M6 6l12 12M18 6L6 18" />);
export const SendIcon = icon(<path d="M4 12l16-7.5-5 15-3.5-6z" />);
export const ClipIcon = icon(
  <path d="M19 11.5l-7 7a4.2 4.2 0 0 1-6-6l8-8a2.8 2.8 0 0 1 4 4l-7.5 7.5a1.4 1.4 0 0 1-2-2l6.5-6.5" />,
);
export const SpeakerIcon = icon(
  <>
    <path d="M4 9.5v5h3.5L12 18.5v-13L7.5 9.5z" />
    <path d="M15.5 9a4.5 4.5 0 0 1 0 6M18 6.5a8 8 0 0 1 0 11" />
  </>,
);
export const CheckIcon = icon(<path d="M5 12.5l4.5 4.5L19 7.5" />);
export const LockIcon = icon(
  <>
    <rect x="5" y="11" width="14" height="9" rx="2" />
    <path d="M8 11V8a4 4 0 0 1 8 0v3" />
  </>,
);
export const StarIcon = icon(
  <path d="M12 3.5l2.6 5.4 5.9.8-4.3 4.1 1 5.9-5.2-2.8-5.2 2.8 1-5.9-4.3-4.1 5.9-.8z" />,
);
export const ThumbUpIcon = icon(
  <path d="M7 11v9H4v-9zM7 11l4-7.5c1.6 0 2.4 1.2 2 2.8L12.3 9.5H18a2 2 0 0 1 2 2.4l-1.2 6.4a2 2 0 0 1-2 1.7H7" />,
);
export const ThumbDownIcon = icon(
  <path d="M17 13V4h3v9zM17 13l-4 7.5c-1.6 0-2.4-1.2-2-2.8l.7-3.2H6a2 2 0 0 1-2-2.4l1.2-6.4a2 2 0 0 1 2-1.7H17" />,
);
