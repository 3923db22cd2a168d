//! What samples say of a time of a call.

use std::time::{Duration, Instant};

use bedside_client::{AudioPlayout, Freeze, ReceivedTrack, Stats, VideoPlayout};
use bedside_sfu::core::api::MediaKind;
use serde::{Deserialize, Serialize};

use crate::people::{Record, Sample};

/// Frames in a second of the source.
const SOURCE: f64 = 20.0;

/// What one person received in a time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Received {
    /// Per cent of the audio made up; per cent that was silence because concealment had faded.
    pub(crate) concealed: f64,
    pub(crate) silent: f64,
    /// Mean and largest wait in the play-out buffer, ms.
    pub(crate) audio_delay: f64,
    pub(crate) longest_delay: f64,
    /// 95 % of the audio packets spent less than this in queues on the way, ms.
    pub(crate) queue: f64,
    /// Per cent of the source's frames.
    pub(crate) frames: f64,
    /// Per cent of the time in freezes, their number and the longest, ms.
    pub(crate) frozen: f64,
    pub(crate) freezes: u64,
    pub(crate) longest_freeze: f64,
    /// Per cent of the time in which the server had paused the picture.
    pub(crate) paused: f64,
    /// Of the picture.
    pub(crate) kbit: f64,
    pub(crate) height: f64,
    /// Trend of the mean opinion score.
    pub(crate) mos: f64,
}

/// The tracks of a kind, newest last.
fn track(stats: &Stats, kind: MediaKind) -> Option<&ReceivedTrack> {
    stats.received.iter().rev().find(|track| track.kind == kind)
}

fn audio(sample: &Sample) -> AudioPlayout {
    track(&sample.stats, MediaKind::Audio).map(|track| track.audio.clone()).unwrap_or_default()
}

fn video(sample: &Sample) -> VideoPlayout {
    track(&sample.stats, MediaKind::Video).map(|track| track.video.clone()).unwrap_or_default()
}

fn video_bytes(sample: &Sample) -> u64 {
    track(&sample.stats, MediaKind::Video).map_or(0, |track| track.bytes)
}

const fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn share(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() { 0.0 } else { 100.0 * part.as_secs_f64() / whole.as_secs_f64() }
}

/// The samples between two times.
pub(crate) fn between(record: &Record, from: Instant, to: Instant) -> &[Sample] {
    let samples = &record.samples;
    let first = samples.partition_point(|sample| sample.at < from);
    let last = samples.partition_point(|sample| sample.at <= to);
    samples.get(first..last).unwrap_or_default()
}

/// The figures of a time; `round_trip` is the link's own.
pub(crate) fn received(samples: &[Sample], round_trip: f64) -> Option<Received> {
    let (first, last) = (samples.first()?, samples.last()?);
    let time = last.at.saturating_duration_since(first.at);
    let (was, is) = (audio(first), audio(last));
    let played = is.played.saturating_sub(was.played);
    let packets = is.packets.saturating_sub(was.packets).max(1);
    // Who hears nothing is missing all of it.
    let silence = is.packets == was.packets;
    let heard = share(is.concealed.saturating_sub(was.concealed), played);
    let concealed = if silence { 100.0 } else { heard };
    let audio_delay = ms(is.waited.saturating_sub(was.waited)) / packets as f64;
    let (saw, sees) = (video(first), video(last));
    let freezes = freezes(&sees, first.at, last.at);
    let paused = sees.paused.saturating_sub(saw.paused);
    let jitter = track(&last.stats, MediaKind::Audio).map_or(0.0, |track| ms(track.jitter));
    Some(Received {
        concealed,
        silent: share(is.silent.saturating_sub(was.silent), played),
        audio_delay,
        longest_delay: ms(is.longest_delay),
        queue: ms(is.queue_p95),
        frames: 100.0 * (sees.frames - saw.frames) as f64 / (SOURCE * time.as_secs_f64()),
        frozen: share(freezes.iter().map(|freeze| freeze.lasted).sum(), time),
        freezes: freezes.len() as u64,
        longest_freeze: freezes.iter().map(|freeze| ms(freeze.lasted)).fold(0.0, f64::max),
        paused: share(paused, time),
        kbit: (video_bytes(last).saturating_sub(video_bytes(first)) * 8) as f64 / ms(time),
        height: f64::from(sees.height),
        mos: mos(round_trip / 2.0 + audio_delay, jitter, concealed),
    })
}

/// The freezes that began in a time.
fn freezes(video: &VideoPlayout, from: Instant, to: Instant) -> Vec<Freeze> {
    let inside = |freeze: &&Freeze| (from..=to).contains(&freeze.from);
    video.log.iter().filter(inside).copied().collect()
}

/// A trend, by delay and jitter in ms and per cent of what is missing.
fn mos(delay: f64, jitter: f64, missing: f64) -> f64 {
    let latency = delay + 2.0 * jitter + 10.0;
    let linear = if latency < 160.0 { latency / 40.0 } else { (latency - 120.0) / 10.0 };
    let r = (93.2 - linear - 2.5 * missing).clamp(0.0, 100.0);
    1.0 + 0.035 * r + 7e-6 * r * (r - 60.0) * (100.0 - r)
}

/// How long after `end` the picture moved again and the voice was heard again, in seconds, for
/// whoever was cut off at `start`.
pub(crate) fn back(record: &Record, start: Instant, end: Instant) -> (f64, f64) {
    let Some(last) = record.samples.last() else { return (f64::INFINITY, f64::INFINITY) };
    let after = |instant: Instant| instant.saturating_duration_since(end).as_secs_f64();
    // The freeze that is under way at the end, and those that follow it closely.
    let slack = Duration::from_secs(1);
    let mut picture = 0.0_f64;
    for freeze in video(last).log {
        if freeze.from + slack >= start && freeze.from <= end + slack {
            picture = picture.max(after(freeze.from + freeze.lasted));
        }
    }
    let samples = between(record, end, last.at);
    let speaks = |pair: &&[Sample]| match pair {
        [before, now] => {
            let (was, is) = (audio(before), audio(now));
            let made_up = is.concealed + is.silent - was.concealed - was.silent;
            is.packets > was.packets && made_up < Duration::from_millis(100)
        }
        _ => false,
    };
    let voice = samples.windows(2).find(speaks).and_then(|pair| pair.last());
    (picture, voice.map_or(f64::INFINITY, |sample| after(sample.at)))
}

/// Kilobits of picture in each second of a time.
pub(crate) fn rates(record: &Record, from: Instant, seconds: u64) -> Vec<f64> {
    let at = |second: u64| {
        let samples = between(record, from, from + Duration::from_secs(second));
        samples.last().map_or(0, video_bytes)
    };
    let counts: Vec<u64> = (0..=seconds).map(at).collect();
    let gains =
        counts.windows(2).filter_map(|pair| Some(pair.last()?.saturating_sub(*pair.first()?)));
    gains.map(|bytes| bytes as f64 * 8.0 / 1000.0).collect()
}

/// The longest freeze that began in a time, in seconds.
pub(crate) fn longest_freeze(record: &Record, from: Instant, to: Instant) -> f64 {
    let Some(last) = record.samples.last() else { return f64::INFINITY };
    let lengths = freezes(&video(last), from, to).into_iter();
    lengths.map(|freeze| freeze.lasted.as_secs_f64()).fold(0.0, f64::max)
}
