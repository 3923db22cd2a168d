// What a connection check found, in plain words: what it is, how it is, and what to do about it.

import { localNetworkWords } from '../local-network';
import { problemAdvice, problemTitle } from '../media/problem';
import type { Words } from '../words';
import type { BrowserFacts, CheckReport, Finding, Measured, Subject } from './report';
import { WAYS } from './report';

/** What was looked at. */
export function subjectWords(subject: Subject): string {
  switch (subject) {
    case 'browser':
      return 'Browser';
    case 'camera':
      return 'Camera';
    case 'microphone':
      return 'Microphone';
    case 'speaker':
      return 'Sound';
    case 'signaling':
      return 'Connection to the clinic’s server';
    case 'udp':
      return 'Picture and sound, direct way (UDP)';
    case 'tcp':
      return 'Picture and sound, direct way (TCP)';
    case 'relay_udp':
      return 'Picture and sound, relay (UDP)';
    case 'relay_tcp':
      return 'Picture and sound, relay (TCP)';
    case 'relay_tls':
      return 'Picture and sound, relay (TLS)';
    case 'quality':
      return 'Quality of your connection';
    case 'local_network':
      return 'Local network';
  }
}

/** How it went, in a word or two. */
export function outcomeWords(finding: Finding): string {
  switch (finding.outcome) {
    case 'ok':
      return 'Works';
    case 'warning':
      return 'Works, not well';
    case 'failed':
      return 'Does not work';
    case 'skipped':
      return finding.reason === 'not_offered' ? 'Not offered here' : 'Not checked';
  }
}

/** One sentence on what is wrong and one on what to do; nothing where all is well. */
export function findingWords(finding: Finding): Words | null {
  if (finding.outcome === 'ok' || finding.outcome === 'skipped') return null;
  switch (finding.subject) {
    case 'browser':
      return browserWords(finding);
    case 'camera':
    case 'microphone':
      return deviceWords(finding.subject, finding);
    case 'speaker':
      return {
        title: 'You did not hear the test sound.',
        advice: 'Turn the volume up, choose another loudspeaker or headset, then play it again.',
      };
    case 'signaling':
      return signalingWords(finding);
    case 'udp':
    case 'tcp':
    case 'relay_udp':
    case 'relay_tcp':
    case 'relay_tls':
      return wayWords(finding);
    case 'quality':
      return qualityWords(finding);
    case 'local_network':
      return localNetworkWords(finding.reason === 'denied');
  }
}

function browserWords(finding: Finding): Words {
  if (finding.reason === 'insecure') {
    return {
      title: 'This page was not opened by a secure address.',
      advice: 'Ask your clinic for a link that begins with https.',
    };
  }
  return {
    title: 'This browser is too old or cannot make video calls.',
    advice: 'Update it, or open this page in the newest Chrome, Edge, Firefox or Safari.',
  };
}

function deviceWords(device: 'camera' | 'microphone', finding: Finding): Words {
  switch (finding.reason) {
    case 'denied':
    case 'none':
    case 'busy':
    case 'insecure':
    case 'unsupported':
      return {
        title: problemTitle(device, finding.reason),
        advice: problemAdvice(device, finding.reason),
      };
    case 'silent':
      return {
        title: 'Your microphone is on, and nothing was heard.',
        advice: 'Say something, look for a mute switch on it, or choose another one.',
      };
    default:
      return { title: problemTitle(device, 'other'), advice: problemAdvice(device, 'other') };
  }
}

function signalingWords(finding: Finding): Words {
  if (finding.reason === 'full') {
    return {
      title: 'Many people are checking their connection right now.',
      advice: 'Please try again in a minute.',
    };
  }
  if (finding.reason === 'intercepted') {
    return {
      title: 'Your network lets web pages through, and not the connection of a call.',
      advice: INTERCEPTED,
    };
  }
  return {
    title: 'The clinic’s server could not be reached.',
    advice: 'Check your internet connection, then try again. If it stays so, call your clinic.',
  };
}

const INTERCEPTED =
  'It probably opens and inspects encrypted connections, as some companies’ networks do: such a network cannot carry a video consultation. Use another one, for example your mobile phone’s.';

function wayWords(finding: Finding): Words {
  if (finding.reason === 'intercepted') {
    return {
      title: 'Something in your network cuts encrypted connections that are no web pages.',
      advice: INTERCEPTED,
    };
  }
  return {
    title: 'Your network lets nothing through this way.',
    advice: 'That is no trouble as long as another way works.',
  };
}

function qualityWords(finding: Finding): Words {
  switch (finding.reason) {
    case 'blocked':
      return {
        title: 'Picture and sound cannot get through.',
        advice:
          'Your network or a firewall blocks them on every way. Use another network, for example your mobile phone’s, or ask whoever runs this one to let this server’s addresses through.',
      };
    case 'lossy':
      return {
        title: 'Much is lost on the way.',
        advice: 'Go nearer to your Wi-Fi, or use a cable or another network.',
      };
    case 'delayed':
      return {
        title: 'Your connection has a long delay.',
        advice: 'Turn off a VPN if you use one, and end large downloads.',
      };
    case 'uneven':
      return {
        title: 'Your connection is uneven.',
        advice: 'Go nearer to your Wi-Fi, use a cable, and end downloads on this network.',
      };
    case 'narrow':
      return {
        title: 'Your connection carries little.',
        advice: 'The voice will work; the picture may be small or pause. Another network helps.',
      };
    default:
      return {
        title: 'The quality could not be measured.',
        advice: 'Please try again.',
      };
  }
}

/** What was measured, in one line each. */
export function measuredWords(measured: Measured): [string, string][] {
  const percent = (perMille: number) => `${(perMille / 10).toLocaleString()} %`;
  const rate = (kbps: number) => `${(kbps / 1000).toFixed(1)} Mbit/s`;
  return [
    ['Delay, there and back', `${measured.roundTripMs} ms`],
    ['Unevenness', `${measured.jitterMs} ms`],
    ['Lost on the way up', percent(measured.lostUpPerMille)],
    ['Lost on the way down', percent(measured.lostDownPerMille)],
    ['Carried up', rate(measured.upKbps)],
    ['Carried down', rate(measured.downKbps)],
  ];
}

/** All of it in one sentence. */
export function verdict(report: CheckReport): Words & { tone: 'good' | 'warn' | 'bad' } {
  const of = (subject: Subject) => report.findings.find((f) => f.subject === subject);
  const failed = (subject: Subject) => of(subject)?.outcome === 'failed';
  const media = WAYS.some((way) => of(way)?.outcome === 'ok');
  if (failed('browser') || failed('signaling') || !media) {
    return {
      tone: 'bad',
      title: 'A video consultation does not work from here yet.',
      advice: 'See below what stands in its way.',
    };
  }
  if (failed('microphone')) {
    return {
      tone: 'bad',
      title: 'Your connection is good for a consultation, but nobody would hear you.',
      advice: 'See below what to do about your microphone.',
    };
  }
  if (report.findings.some((f) => needsAttention(f))) {
    return {
      tone: 'warn',
      title: 'A video consultation works from here, with some limits.',
      advice: 'See below what can be better.',
    };
  }
  return {
    tone: 'good',
    title: 'Everything is ready for a video consultation.',
    advice: 'There is nothing that you need to do.',
  };
}

/** A way that is blocked is no trouble while another one works. */
function needsAttention(finding: Finding): boolean {
  if (finding.outcome === 'ok' || finding.outcome === 'skipped') return false;
  return !(WAYS as readonly Subject[]).includes(finding.subject);
}

/** The browser as people call it. */
export function browserName(browser: BrowserFacts): string {
  const names = {
    chrome: 'Chrome',
    edge: 'Edge',
    firefox: 'Firefox',
    safari: 'Safari',
    samsung: 'Samsung Internet',
    other: 'Another browser',
  };
  const systems = {
    windows: 'Windows',
    macos: 'macOS',
    ios: 'iPhone or iPad',
    android: 'Android',
    linux: 'Linux',
    other: 'another system',
  };
  const version = browser.version > 0 ? ` ${browser.version}` : '';
  return `${names[browser.name]}${version} on ${systems[browser.system]}`;
}
