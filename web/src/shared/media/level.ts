// How loud a microphone is, and a tone to try the speakers with.

let context: AudioContext | null = null;

function audio(): AudioContext {
  context ??= new AudioContext();
  // Browsers start it suspended until the person has touched the page; asking again is harmless.
  if (context.state === 'suspended') void context.resume().catch(() => undefined);
  return context;
}

/** Loudness from 0 to 1 on a scale that follows the ear: -60 dB is nothing, -10 dB is full. */
export function loudness(samples: Float32Array): number {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  const rms = Math.sqrt(sum / Math.max(1, samples.length));
  if (rms <= 0) return 0;
  return Math.min(1, Math.max(0, (20 * Math.log10(rms) + 60) / 50));
}

/** Reports the loudness of a track some 20 times a second until the returned function is called. */
export function watchLevel(track: MediaStreamTrack, onLevel: (level: number) => void): () => void {
  const source = audio().createMediaStreamSource(new MediaStream([track]));
  const analyser = audio().createAnalyser();
  analyser.fftSize = 1024;
  source.connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    void audio();
    analyser.getFloatTimeDomainData(samples);
    onLevel(loudness(samples));
  }, 50);
  return () => {
    clearInterval(timer);
    source.disconnect();
  };
}

/** Two soft notes, about a second in all. */
export function playTestSound(): void {
  const out = audio();
  const notes = [
    [523.25, 0],
    [659.25, 0.35],
  ] as const;
  for (const [frequency, delay] of notes) {
    const start = out.currentTime + delay;
    const oscillator = out.createOscillator();
    const gain = out.createGain();
    oscillator.frequency.value = frequency;
    gain.gain.setValueAtTime(0, start);
    gain.gain.linearRampToValueAtTime(0.25, start + 0.03);
    gain.gain.exponentialRampToValueAtTime(0.001, start + 0.6);
    oscillator.connect(gain).connect(out.destination);
    oscillator.start(start);
    oscillator.stop(start + 0.65);
  }
}
