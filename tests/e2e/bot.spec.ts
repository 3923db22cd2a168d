// One person alone sees a real call: the doctor admits the demo's synthetic patient.
import { execFileSync } from 'node:child_process';
import os from 'node:os';
import path from 'node:path';
import { test, expect, type Browser } from '@playwright/test';
import { launch } from './support/chromium.js';
import { startDemo, type Demo } from './support/demo.js';
import { expectMedia } from './support/media.js';
import { button, enterWaitingRoom, linkState, movement, nameOf, openPage } from './support/visit.js';

/** Set by `npm run pictures`: where the pictures of the README go. */
const pictures = process.env.E2E_PICTURES;
const picture = (name: string) => (pictures ? { path: path.join(pictures, name) } : {});

/** For the pictures: a drawn face instead of the browser's test pattern, changed a little by a filter of ffmpeg's. */
function face(filter: string): { args?: string[] } {
  if (!pictures) return {};
  const loop = path.resolve(import.meta.dirname, '../../client/media/face.ivf');
  const file = path.join(os.tmpdir(), `bedside-face-${filter.length}.mjpeg`);
  const options = ['-v', 'error', '-y', '-i', loop, '-vf', filter, '-q:v', '2', file];
  execFileSync('ffmpeg', options);
  return { args: [`--use-file-for-fake-video-capture=${file}`] };
}

test('the doctor admits the synthetic patient and sees it move', async () => {
  let demo: Demo | undefined;
  const browsers: Browser[] = [];
  try {
    demo = await startDemo({ bot: true });
    const still = 'trim=2.3:2.5,setpts=PTS-STARTPTS,crop=iw*0.88:ih*0.88:iw*0.06:ih*0.12,scale=1280:720';
    const doctorsFace = `${still},hflip,eq=gamma=0.65:saturation=1.1,hue=s=0.9`;
    const patientsFace = `${still},eq=brightness=0.06`;
    browsers.push(await launch(face(patientsFace)), await launch(face(doctorsFace)));
    const { page: patient } = await openPage(browsers[0]!, demo.patient_link, { width: 390, height: 780 });
    await expect(patient.getByText('Your microphone works')).toBeVisible();
    const me = await nameOf(patient);
    await enterWaitingRoom(patient);

    const { page: doctor } = await openPage(browsers[1]!, demo.doctor_link);
    await expect(button(doctor, /^Admit /)).toHaveCount(2);
    await expect(button(doctor, `Admit ${me}`)).toBeVisible();
    const names = await button(doctor, /^Admit /).allInnerTexts();
    const bot = names.find((name) => name !== `Admit ${me}`);
    expect(bot).toBeDefined();
    await button(doctor, bot!).click();
    await expectMedia(doctor, { videos: 1, audio: true });
    expect(await movement(doctor, `Picture of ${bot!.replace('Admit ', '')}`)).toBeGreaterThan(0.2);
    await expect(linkState(doctor)).toHaveText('Connected');
    await doctor.screenshot(picture('doctor.png'));

    // From one call to the next: the synthetic patient stays in its consultation.
    await button(doctor, 'Leave').click();
    await button(doctor, `Admit ${me}`).click();
    await expectMedia(patient, { videos: 1, audio: true });
    await expectMedia(doctor, { videos: 1, audio: true });
    await patient.screenshot(picture('patient.png'));
  } catch (error) {
    console.log(demo?.log.slice(-40).join('\n'));
    throw error;
  } finally {
    await Promise.all(browsers.map((b) => b.close()));
    await demo?.stop();
  }
});
