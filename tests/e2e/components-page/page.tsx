// The prebuilt conference of @livekit/components-react, as an outside application would embed it.
import { LiveKitRoom, VideoConference } from '@livekit/components-react';
import { createRoot } from 'react-dom/client';

declare global {
  interface Window {
    enter(url: string, token: string): void;
  }
}

window.enter = (url, token) => {
  const page = createRoot(document.getElementById('page')!);
  page.render(
    <LiveKitRoom serverUrl={url} token={token} connect audio video onDisconnected={() => page.render(<p>The call is over</p>)}>
      <VideoConference />
    </LiveKitRoom>,
  );
};
document.title = 'ready';
