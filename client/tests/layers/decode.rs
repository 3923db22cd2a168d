//! Random switches of every codec's layers, decoded.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bedside_client::recording::{CLOCK, Loop, Played, Recording};
use bedside_sfu::core::Rng;
use bedside_sfu::core::api::{AnnouncedCodec, LayerInfo, Quality, Request, TrackSid};
use bedside_sfu::core::codec::Codec;
use bedside_sfu::core::peer::Crypto;
use bedside_sfu::core::rtp;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::source::{AV1, DESCRIPTOR, H264, MID, RID, Source, VP8, VP9};
use crate::stream::Stream;
use crate::unpack::pictures;
use crate::world::World;

/// Switches of each loop.
const SWITCHES: usize = 200;
/// How long a choice stays, in milliseconds: some are over before a keyframe comes.
const STAYS: (u64, u64) = (120, 1_600);

/// A room in which one person plays a recording and the other watches it.
struct Show {
    world: World,
    recording: Recording,
    played: usize,
    doctor: usize,
    patient: usize,
    track: TrackSid,
}

const RIDS: [&str; 3] = ["q", "h", "f"];

impl Show {
    fn new(name: Loop) -> Self {
        let recording = name.read();
        let (payload_type, codec) = match recording.codec {
            Codec::Vp9 => (VP9, "vp9"),
            Codec::Av1 => (AV1, "av1"),
            Codec::H264 => (H264, "h264"),
            Codec::Vp8 | Codec::Opus | Codec::Red | Codec::Other => (VP8, "vp8"),
        };
        let mut world = World::new(Crypto::Clear);
        let doctor = world.join_as("doctor", Default::default(), |client| client.receive_on(1, 1));
        let patient = world.join("patient");
        world.run_ms(500);
        let rids = if recording.sizes.len() > 1 { &RIDS[..] } else { &[] };
        let mut source = Source::video(world.now, "cam", "", 2_000, rids);
        // The recording is sent in its place.
        source.muted = true;
        for encoding in &mut source.encodings {
            encoding.payload_type = payload_type;
        }
        let mut announced = world.clients[patient].publish(source);
        let codec = AnnouncedCodec { codec: codec.into(), cid: "cam".into(), ..Default::default() };
        announced.codecs.push(codec);
        announced.layers = ladder(&recording);
        world.request(patient, Request::AddTrack(Box::new(announced)));
        world.offer(patient);
        world.run_ms(1_000);
        let track = world.clients[patient].published["cam"].sid.clone();
        Self { world, recording, played: 0, doctor, patient, track }
    }

    /// Plays on for this long.
    fn play(&mut self, duration: Duration) {
        let end = self.world.now + duration;
        while self.world.now < end {
            let (packet, played) = self.recording.play(self.played).unwrap();
            let at = self.world.start
                + Duration::from_secs(2)
                + Duration::from_micros(played.ticks * 1_000_000 / u64::from(CLOCK));
            if at > end {
                self.world.run(end - self.world.now);
                return;
            }
            if at > self.world.now {
                self.world.run(at - self.world.now);
            }
            let (stream, marker) = (usize::from(packet.stream), packet.marker);
            self.send(stream, marker, &played);
            self.played += 1;
        }
    }

    fn send(&mut self, stream: usize, marker: bool, played: &Played) {
        let patient = &mut self.world.clients[self.patient];
        let source = &mut patient.sources[0];
        let encoding = &mut source.encodings[stream];
        encoding.sequence = encoding.sequence.wrapping_add(1);
        let mut extensions: Vec<(u8, &[u8])> = vec![(MID, source.mid.as_bytes())];
        if !encoding.rid.is_empty() {
            extensions.push((RID, encoding.rid.as_bytes()));
        }
        if !played.descriptor.is_empty() {
            extensions.push((DESCRIPTOR, &played.descriptor));
        }
        let mut packet = Vec::new();
        let (pt, sequence, ssrc) = (encoding.payload_type, encoding.sequence, encoding.ssrc);
        // Each stream's clock begins somewhere else.
        let timestamp = (played.ticks as u32).wrapping_add(ssrc.wrapping_mul(0x9E37_79B9));
        let header =
            rtp::write_header(&mut packet, marker, pt, sequence, timestamp, ssrc, &extensions);
        packet.extend_from_slice(&played.payload);
        let peer = patient.peer.as_mut().unwrap();
        let path = peer.path().unwrap();
        assert!(peer.seal_rtp(&mut packet, 0, header));
        self.world.send_up(path, packet);
    }

    fn wish(&mut self, quality: Quality, fps: u32) {
        let settings = Request::TrackSettings {
            tracks: vec![self.track.clone()],
            disabled: false,
            quality,
            width: 0,
            height: 0,
            fps,
        };
        self.world.request(self.doctor, settings);
    }

    fn stream(&self) -> &Stream {
        self.world.clients[self.doctor].stream_of(&self.track).unwrap()
    }
}

fn ladder(recording: &Recording) -> Vec<LayerInfo> {
    let (width, height) = *recording.sizes.last().unwrap();
    [(Quality::Low, 4), (Quality::Medium, 2), (Quality::High, 1)]
        .into_iter()
        .zip(0..)
        .map(|((quality, part), spatial)| LayerInfo {
            quality,
            width: u32::from(width) / part,
            height: u32::from(height) / part,
            bitrate_bps: 0,
            rid: String::new(),
            ssrc: 0,
            repair_ssrc: 0,
            spatial,
        })
        .collect()
}

/// Switches at random; returns how many of them were asked for.
fn switch(show: &mut Show, seed: u8, switches: usize) -> usize {
    let mut rng = Rng::from_seed([seed; 32]);
    let mut before = None;
    let mut asked = 0;
    while asked < switches {
        let quality = [Quality::Low, Quality::Medium, Quality::High][rng.next_u32() as usize % 3];
        let fps = [0, 5, 10, 30][rng.next_u32() as usize % 4];
        if before.replace((quality, fps)) == Some((quality, fps)) {
            continue;
        }
        asked += 1;
        show.wish(quality, fps);
        let (least, most) = STAYS;
        let stay = least + u64::from(rng.next_u32()) % (most - least);
        show.play(Duration::from_millis(stay));
    }
    asked
}

/// The packets of a file, one for each picture, as the subscriber got them.
fn received(codec: Codec, stream: &Stream) -> Vec<(u32, Vec<u8>)> {
    let seen: Vec<_> = stream.seen.values().filter(|seen| !seen.payload.is_empty()).collect();
    seen.chunk_by(|a, b| a.timestamp == b.timestamp)
        .flat_map(|picture| {
            let payloads: Vec<&[u8]> = picture.iter().map(|seen| &*seen.payload).collect();
            let at = picture[0].timestamp;
            pictures(codec, &payloads).into_iter().map(move |data| (at, data))
        })
        .collect()
}

/// Writes a file that ffmpeg reads: IVF, or Annex B for H.264.
fn write(path: &Path, codec: Codec, pictures: &[(u32, Vec<u8>)]) {
    let fourcc = match codec {
        Codec::Vp9 => b"VP90",
        Codec::Av1 => b"AV01",
        Codec::Vp8 | Codec::H264 | Codec::Opus | Codec::Red | Codec::Other => b"VP80",
    };
    let mut file = Vec::new();
    if codec != Codec::H264 {
        file.extend_from_slice(b"DKIF\0\0\x20\0");
        file.extend_from_slice(fourcc);
        file.extend_from_slice(&[0xC0, 3, 0x1C, 2]);
        file.extend_from_slice(&30u32.to_le_bytes());
        file.extend_from_slice(&1u32.to_le_bytes());
        file.extend_from_slice(&[0; 8]);
    }
    for (number, (_, data)) in (0u64..).zip(pictures) {
        if codec != Codec::H264 {
            file.extend_from_slice(&(data.len() as u32).to_le_bytes());
            file.extend_from_slice(&number.to_le_bytes());
        }
        file.extend_from_slice(data);
    }
    std::fs::write(path, file).unwrap();
}

/// Decodes with errors fatal; returns the sizes of the decoded pictures, in order.
fn decode(path: &Path, decoder: &str) -> Vec<(u32, u32)> {
    let errors = "crccheck+bitstream+buffer+explode";
    let ffmpeg = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-v", "verbose", "-xerror", "-err_detect", errors])
        .args(["-threads", "1", "-c:v", decoder, "-i"])
        .arg(path)
        .args(["-vf", "showinfo", "-fps_mode", "passthrough", "-f", "null", "-"])
        .output()
        .expect("these tests need ffmpeg");
    let text = String::from_utf8_lossy(&ffmpeg.stderr);
    assert!(ffmpeg.status.success(), "ffmpeg: {}", tail(&text));
    let complaint = text.lines().find(|line| {
        let line = line.to_ascii_lowercase();
        line.contains("error") && !line.contains("errors") || line.contains("missing reference")
    });
    assert_eq!(complaint, None, "{}", tail(&text));
    let size = |line: &str| {
        let (_, rest) = line.split_once(" s:")?;
        let (width, height) = rest.split_whitespace().next()?.split_once('x')?;
        Some((width.parse().ok()?, height.parse().ok()?))
    };
    text.lines().filter(|line| line.contains("Parsed_showinfo")).filter_map(size).collect()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// How many pictures the first `packets` show.
fn played(recording: &Recording, packets: usize) -> usize {
    let ticks =
        (0..packets).filter_map(|index| recording.play(index)).map(|(_, played)| played.ticks);
    ticks.collect::<BTreeSet<u64>>().len()
}

/// Plays, switches, and decodes what came.
fn prove(name: Loop, decoder: &str, seed: u8) {
    let mut show = Show::new(name);
    show.wish(Quality::High, 0);
    show.play(Duration::from_secs(2));
    let asked = switch(&mut show, seed, SWITCHES);
    show.wish(Quality::High, 0);
    show.play(Duration::from_secs(3));
    let stream = show.stream();
    assert_eq!(stream.missing(), Some(vec![]), "{name:?}: a gap of our making");
    stream.check_order();
    let codec = show.recording.codec;
    let sent = received(codec, stream);
    let folder = std::env::temp_dir().join(format!("bedside-{name:?}-{}", std::process::id()));
    write(&folder, codec, &sent);
    let sizes = decode(&folder, decoder);
    std::fs::remove_file(&folder).unwrap();
    let pictures: BTreeSet<u32> = sent.iter().map(|(at, _)| *at).collect();
    // Of the layer frames of one picture, which a decoder gets singly, the last is shown.
    let shown: Vec<(u32, u32)> = if sizes.len() == sent.len() {
        let pairs: Vec<_> = sent.iter().map(|(at, _)| *at).zip(&sizes).collect();
        pairs.chunk_by(|a, b| a.0 == b.0).map(|all| *all[all.len() - 1].1).collect()
    } else {
        sizes.clone()
    };
    let different: BTreeSet<(u32, u32)> = shown.iter().copied().collect();
    let switched = shown.windows(2).filter(|pair| pair[0] != pair[1]).count();
    println!(
        "{name:?}: {asked} wishes, {} pictures sent, {} decoded, {switched} changes of size, {different:?}",
        pictures.len(),
        sizes.len()
    );
    assert!(sizes.len() >= pictures.len(), "{name:?}: every picture is decoded");
    let played = played(&show.recording, show.played);
    let thinned = pictures.len() * 10 < played * 8;
    assert_eq!(thinned, name != Loop::H264Simulcast, "{name:?}: {} of {played}", pictures.len());
    let rungs = if name == Loop::Av1L1T3 { 1 } else { 3 };
    assert_eq!(different.len(), rungs, "{name:?}: every size was shown");
    assert!(rungs == 1 || switched >= SWITCHES / 6, "{name:?}: {switched} changes");
}

#[test]
fn vp8_switches_decode() {
    prove(Loop::Vp8Simulcast, "libvpx", 1);
}

#[test]
fn vp8_told_by_descriptors_switches_decode() {
    prove(Loop::Vp8Described, "libvpx", 2);
}

#[test]
fn h264_switches_decode() {
    prove(Loop::H264Simulcast, "h264", 3);
}

#[test]
fn vp9_layers_decode() {
    prove(Loop::Vp9L3T3Key, "libvpx-vp9", 4);
}

#[test]
fn av1_layers_decode() {
    prove(Loop::Av1L3T3Key, "libdav1d", 5);
}

#[test]
fn av1_frame_rates_decode() {
    prove(Loop::Av1L1T3, "libdav1d", 6);
}
