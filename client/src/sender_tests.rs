//! Tests of a sent stream: what its packets look like and how it answers.

use bedside_sfu::core::codec::Vp8;

use super::*;

#[derive(Default)]
struct Taken {
    packets: Vec<Vec<u8>>,
    transport: u16,
    paced: bool,
}

impl Outlet for Taken {
    fn rtp(&mut self, write: &mut dyn FnMut(&mut Vec<u8>) -> usize) -> Option<&[u8]> {
        let mut out = Vec::new();
        assert_eq!(Some(write(&mut out)), rtp::header_len(&out));
        self.packets.push(out);
        self.packets.last().map(Vec::as_slice)
    }

    fn again(&mut self, datagram: &[u8]) {
        self.packets.push(datagram.to_vec());
    }

    fn transport_sequence(&mut self, _: Instant, _: usize, _: Cargo) -> u16 {
        self.transport += 1;
        self.transport
    }

    fn is_paced(&self) -> bool {
        self.paced
    }

    fn clock(&self) -> Instant {
        Instant::now()
    }
}

fn sender(content: Content) -> Sender {
    let rid = if let Content::Layer(_) = content { "h" } else { "" };
    let numbers = [11, 12, 0x0001_FFF0, 5];
    let mut sender =
        Sender::new(content, rid.to_owned(), "7".to_owned(), "cid".to_owned(), numbers);
    sender.configure(Some(SendParameters {
        payload_type: 96,
        rtx_payload_type: Some(97),
        red_payload_type: Some(63),
        mid_id: Some(4),
        rid_id: Some(5),
        repaired_rid_id: Some(6),
        abs_send_time_id: Some(2),
        transport_cc_id: Some(3),
        audio_level_id: Some(1),
    }));
    sender
}

fn play(sender: &mut Sender, span: Duration) -> Vec<Vec<u8>> {
    let start = Instant::now();
    let mut taken = Taken::default();
    sender.start(start);
    for step in 0..span.as_millis() as u64 {
        sender.play(start + Duration::from_millis(step), &mut taken);
    }
    taken.packets
}

fn body(packet: &[u8]) -> (rtp::Header, &[u8]) {
    let header = rtp::Header::parse(packet).unwrap();
    (header, rtp::payload(packet, &header).unwrap())
}

#[test]
fn parts_are_about_even_and_cover_the_frame() {
    for size in [1, 7, 1165, 1166, 5000, 9336] {
        for parts in 1..=8_usize.min(size) {
            let cut: Vec<_> = (0..parts).map(|part| part_of(size, part, parts)).collect();
            assert_eq!((cut[0].start, cut[parts - 1].end), (0, size));
            assert!(cut.windows(2).all(|two| two[0].end == two[1].start));
            assert!(cut.windows(2).all(|two| two[0].len() <= two[1].len()));
            assert!(cut[parts - 1].len() - cut[0].len() <= 1);
        }
    }
}

#[test]
fn a_loop_of_pictures_reassembles_into_the_frames() {
    let mut sender = sender(Content::Face);
    let packets = play(&mut sender, Duration::from_secs(6));
    assert_eq!(sender.totals().frames, 120);
    let (mut frame, mut frames, mut last) = (Vec::new(), Vec::new(), None);
    for packet in &packets {
        assert!(packet.len() <= MAX_PACKET);
        let (header, payload) = body(packet);
        let sequence = header.sequence;
        assert!(last.is_none_or(|last: u16| sequence == last.wrapping_add(1)));
        last = Some(sequence);
        let descriptor = Vp8::parse(payload).unwrap();
        assert!(descriptor.picture_id.is_some_and(|(at, _, wide)| at == 2 && wide));
        frame.extend_from_slice(&payload[PLAIN_DESCRIPTOR..]);
        if header.marker {
            frames.push(std::mem::take(&mut frame));
        }
    }
    let loops = Loops::shared();
    assert!(
        frames
            .iter()
            .enumerate()
            .all(|(at, frame)| frame == loops.frame(Content::Face, 0, at).unwrap().data)
    );
}

#[test]
fn extensions_say_section_time_and_loudness() {
    let mut sender = sender(Content::Tone);
    let packets = play(&mut sender, Duration::from_millis(100));
    assert_eq!(packets.len(), 5);
    let found: Vec<_> = rtp::extensions(&packets[2]).collect();
    assert_eq!(found[0], (4, &b"7"[..]));
    assert_eq!((found[1].0, found[1].1.len()), (2, 3));
    assert_eq!(found[2], (3, &[0, 3][..]));
    assert_eq!(found[3], (1, &[AUDIO_LEVEL][..]));
    let step = body(&packets[1]).0.timestamp.wrapping_sub(body(&packets[0]).0.timestamp);
    assert_eq!(step, 960);
    assert_eq!(body(&packets[0]).1, Loops::shared().packet(0).unwrap());
    // Once the stream is reported on, its section is known.
    sender.reported(&ReportBlock::default(), None);
    let mut taken = Taken::default();
    sender.play(Instant::now() + Duration::from_secs(1), &mut taken);
    assert!(rtp::extensions(&taken.packets[0]).all(|(id, _)| id != 4));
}

#[test]
fn a_repair_is_the_packet_that_was_lost() {
    let mut sender = sender(Content::Face);
    let packets = play(&mut sender, Duration::from_secs(2));
    let (lost, original) = body(&packets[3]);
    sender.reported(&ReportBlock::default(), None);
    let mut taken = Taken::default();
    let ask = [lost.sequence, lost.sequence.wrapping_add(300)].into_iter();
    sender.repair(Instant::now(), ask, &mut taken);
    assert_eq!(taken.packets.len(), 1, "what was never sent cannot be repaired");
    let (header, payload) = body(&taken.packets[0]);
    assert_eq!((header.ssrc, header.payload_type), (sender.rtx_ssrc, 97));
    assert_eq!((header.timestamp, header.marker), (lost.timestamp, lost.marker));
    assert_eq!(payload[..2], lost.sequence.to_be_bytes());
    assert_eq!(&payload[2..], original);
    assert_eq!((sender.totals().nacked, sender.totals().repaired), (2, 1));
}

#[test]
fn lost_audio_is_sent_again_unchanged() {
    let mut sender = sender(Content::Tone);
    let packets = play(&mut sender, Duration::from_millis(200));
    let lost = body(&packets[4]).0.sequence;
    let mut taken = Taken::default();
    sender.repair(Instant::now(), [lost, lost.wrapping_add(64)].into_iter(), &mut taken);
    assert_eq!(taken.packets, [packets[4].clone()]);
}

#[test]
fn a_keyframe_request_is_answered_by_the_next_frame() {
    let mut sender = sender(Content::Face);
    let start = Instant::now();
    let mut taken = Taken::default();
    sender.start(start);
    sender.play(start + Duration::from_millis(120), &mut taken);
    taken.packets.clear();
    sender.keyframe();
    sender.play(start + Duration::from_millis(150), &mut taken);
    let (_, payload) = body(&taken.packets[0]);
    assert!(Vp8::parse(payload).unwrap().keyframe_start);
    assert_eq!(sender.totals().keyframe_requests, 1);
}

#[test]
fn a_muted_track_is_silent_and_its_clock_goes_on() {
    let mut sender = sender(Content::Tone);
    let start = Instant::now();
    let mut taken = Taken::default();
    sender.start(start);
    sender.play(start, &mut taken);
    sender.muted = true;
    for step in 1..10 {
        sender.play(start + Duration::from_millis(20 * step), &mut taken);
    }
    sender.muted = false;
    sender.play(start + Duration::from_millis(200), &mut taken);
    assert_eq!(taken.packets.len(), 2);
    let (first, second) = (body(&taken.packets[0]).0, body(&taken.packets[1]).0);
    assert_eq!(second.sequence, first.sequence.wrapping_add(1));
    assert_eq!(second.timestamp.wrapping_sub(first.timestamp), 9600);
}

#[test]
fn redundant_audio_repeats_what_was_sent_before() {
    let mut sender = sender(Content::Tone);
    sender.redundancy = 2;
    let packets = play(&mut sender, Duration::from_millis(100));
    let loops = Loops::shared();
    for (at, packet) in packets.iter().enumerate() {
        let (header, payload) = body(packet);
        assert_eq!(header.payload_type, 63);
        assert_eq!(red::primary(payload), loops.packet(at));
        let olds: Vec<_> = red::blocks(payload).into_iter().flatten().collect();
        assert_eq!(olds.len(), at.min(2), "nothing was said before the first");
        for old in olds {
            let distance = usize::from(old.distance);
            assert_eq!(
                (old.offset, Some(old.payload)),
                (distance as u32 * 960, loops.packet(at - distance))
            );
        }
    }
    let lost = body(&packets[3]).0.sequence;
    let mut taken = Taken::default();
    sender.repair(Instant::now(), [lost].into_iter(), &mut taken);
    assert_eq!(taken.packets, [packets[3].clone()], "again the very same packet");
}

#[test]
fn silence_is_not_repeated_after_a_pause() {
    let mut sender = sender(Content::Tone);
    sender.redundancy = 1;
    let start = Instant::now();
    let mut taken = Taken::default();
    sender.start(start);
    for step in 0..6 {
        sender.muted = (2..4).contains(&step);
        sender.play(start + Duration::from_millis(20 * step), &mut taken);
    }
    let olds = |packet: &[u8]| red::blocks(body(packet).1).iter().flatten().count();
    let counts: Vec<_> = taken.packets.iter().map(|packet| olds(packet)).collect();
    assert_eq!(counts, [0, 1, 0, 1]);
}

#[test]
fn layers_are_named_and_their_frames_numbered() {
    let mut sender = sender(Content::Layer(2));
    let packets = play(&mut sender, Duration::from_millis(450));
    let mut frames = Vec::new();
    for packet in &packets {
        let found: Vec<_> = rtp::extensions(packet).collect();
        assert_eq!(found[..2], [(4, &b"7"[..]), (5, &b"h"[..])]);
        assert!(packet.len() <= MAX_PACKET);
        let (header, payload) = body(packet);
        let read = Vp8::parse(payload).unwrap();
        if header.marker {
            let (_, id, _) = read.picture_id.unwrap();
            frames.push((id, read.tl0_picture_index.unwrap().1, read.temporal.unwrap()));
        }
    }
    let (first, base, _) = frames[0];
    let relative: Vec<_> = frames
        .iter()
        .map(|(id, tl0, layer)| (id - first, tl0.wrapping_sub(base), *layer))
        .collect();
    let expected = [(0, 0, 0), (1, 0, 2), (2, 0, 1), (3, 0, 2), (4, 1, 0), (5, 1, 2), (6, 1, 1)];
    assert_eq!(relative[..7], expected);
    // Once known, only the repair stream still says whose it is.
    sender.reported(&ReportBlock::default(), None);
    let mut taken = Taken::default();
    let lost = body(&packets[1]).0.sequence;
    sender.repair(Instant::now(), [lost].into_iter(), &mut taken);
    let found: Vec<_> = rtp::extensions(&taken.packets[0]).collect();
    assert_eq!(found[..2], [(4, &b"7"[..]), (6, &b"h"[..])]);
}

/// Frames in ten seconds at a rate, and the bits a second that they were.
fn at_rate(bps: Option<u64>) -> (u64, u64) {
    let mut sender = sender(Content::Layer(1));
    sender.allot(Instant::now(), bps);
    let packets = play(&mut sender, Duration::from_secs(10));
    let bytes: usize = packets.iter().map(|packet| packet.len() + TAG).sum();
    (sender.totals().frames, bytes as u64 * 8 / 10)
}

#[test]
fn quality_goes_first_and_then_frames_to_keep_to_a_rate() {
    let (frames, full) = at_rate(None);
    assert_eq!(frames, 200);
    let (frames, bps) = at_rate(Some(70_000));
    assert!(frames == 200 && bps < 70_000, "a lower quality: {frames}, {bps} of {full}");
    let (frames, bps) = at_rate(Some(30_000));
    assert!((80..160).contains(&frames), "{frames}");
    assert!((26_000..34_000).contains(&bps), "{bps} of {full}");
    assert_eq!(at_rate(Some(0)).0, 0);
}

#[test]
fn a_stream_that_starts_again_starts_with_a_keyframe() {
    let mut sender = sender(Content::Layer(1));
    let start = Instant::now();
    let mut taken = Taken::default();
    sender.start(start);
    for step in 0..40 {
        if step == 10 {
            sender.allot(start, Some(0));
        } else if step == 30 {
            sender.allot(start, None);
            taken.packets.clear();
        }
        sender.play(start + Duration::from_millis(50 * step), &mut taken);
    }
    assert_eq!(taken.packets.len(), 10);
    assert!(Vp8::parse(body(&taken.packets[0]).1).unwrap().keyframe_start);
    sender.wanted = false;
    sender.play(start + Duration::from_secs(3), &mut taken);
    assert_eq!(taken.packets.len(), 10, "nobody wants it");
}

#[test]
fn paced_video_waits_for_its_turn_and_pads_by_repair() {
    let mut sender = sender(Content::Layer(2));
    let start = Instant::now();
    let mut taken = Taken { paced: true, ..Taken::default() };
    sender.start(start);
    sender.play(start, &mut taken);
    assert!(taken.packets.is_empty() && sender.is_waiting());
    assert_eq!(sender.pad(start, &mut taken), 0, "nothing was sent yet");
    while sender.is_waiting() {
        assert!(sender.send_next(start, &mut taken) > 0);
    }
    let sent = taken.packets.len();
    assert!(sender.pad(start, &mut taken) > 1000);
    assert_eq!(body(&taken.packets[sent]).0.payload_type, 97);
    assert_eq!((sender.totals().padding, sender.totals().repaired), (1, 0));
}

#[test]
fn a_repair_on_its_way_is_not_sent_again() {
    let mut sender = sender(Content::Face);
    let packets = play(&mut sender, Duration::from_secs(1));
    sender.reported(&ReportBlock::default(), Some(Duration::from_millis(100)));
    let lost = body(&packets[3]).0.sequence;
    let start = Instant::now();
    let mut taken = Taken::default();
    for ms in [0, 50, 95] {
        sender.repair(start + Duration::from_millis(ms), [lost].into_iter(), &mut taken);
    }
    assert_eq!(taken.packets.len(), 2);
}

#[test]
fn a_stall_is_skipped_and_leaves_no_delay() {
    let mut sender = sender(Content::Tone);
    let start = Instant::now();
    let mut taken = Taken::default();
    sender.start(start);
    sender.play(start, &mut taken);
    sender.play(start + Duration::from_millis(930), &mut taken);
    assert_eq!(taken.packets.len(), 2);
    let (first, second) = (body(&taken.packets[0]).0, body(&taken.packets[1]).0);
    assert_eq!(second.timestamp.wrapping_sub(first.timestamp), 46 * 960);
    assert_eq!(sender.due(), Some(start + Duration::from_millis(940)));
}

#[test]
fn quality_falls_at_once_and_rises_after_a_while_each_time_with_a_keyframe() {
    let mut sender = sender(Content::Layer(2));
    let start = Instant::now();
    let mut taken = Taken::default();
    let mut keyframes = Vec::new();
    sender.start(start);
    for step in 0..100 {
        let now = start + Duration::from_millis(50 * step);
        match step {
            25 => sender.allot(now, Some(160_000)),
            26.. => sender.allot(now, None),
            _ => {}
        }
        taken.packets.clear();
        sender.play(now, &mut taken);
        let first = body(&taken.packets[0]).1;
        if Vp8::parse(first).unwrap().keyframe_start {
            keyframes.push(step);
        }
    }
    assert_eq!(keyframes, [0, 25, 65], "better after two seconds");
}

/// Counts what leaves.
#[derive(Debug, Default)]
struct Counting(std::sync::Mutex<Vec<Instant>>);

impl Ear for Counting {
    fn left(&self, at: Instant, _: Duration) {
        self.0.lock().unwrap().push(at);
    }

    fn heard(&self, _: timed::Heard) {}
}

#[test]
fn timed_packets_are_an_even_load_and_carry_when_they_left() {
    for (kind, packets) in [(MediaKind::Audio, 99..=101), (MediaKind::Video, 230..=300)] {
        let ear = Arc::new(Counting::default());
        let mut sender = sender(Content::Timed(kind));
        sender.ear = Some(ear.clone());
        // Neither the link nor a pacer holds a measured load back.
        sender.allot(Instant::now(), Some(1_000));
        let (start, before) = (Instant::now(), Instant::now());
        let mut taken = Taken { paced: true, ..Taken::default() };
        sender.start(start);
        for step in 0..2_000 {
            sender.play(start + Duration::from_millis(step), &mut taken);
        }
        assert!(packets.contains(&taken.packets.len()), "{kind:?}: {}", taken.packets.len());
        let told = ear.0.lock().unwrap().clone();
        assert_eq!(told.len(), taken.packets.len());
        for (packet, told) in taken.packets.iter().zip(&told) {
            let carried = timed::read_stamp(body(packet).1).unwrap();
            let off =
                told.saturating_duration_since(carried) + carried.saturating_duration_since(*told);
            assert!(off < Duration::from_micros(1) && *told >= before);
            assert!(packet.len() <= MAX_PACKET);
        }
    }
}

#[test]
fn a_repair_carries_the_time_of_the_first_sending() {
    let mut sender = sender(Content::Timed(MediaKind::Video));
    let start = Instant::now();
    let mut taken = Taken::default();
    sender.start(start);
    sender.play(start, &mut taken);
    let first = taken.packets.first().unwrap().clone();
    let sequence = body(&first).0.sequence;
    let sent = taken.packets.len();
    sender.repair(start + Duration::from_secs(1), [sequence].into_iter(), &mut taken);
    assert_eq!(taken.packets.len(), sent + 1);
    let again = taken.packets.last().unwrap();
    assert_eq!(timed::read_stamp(body(again).1), timed::read_stamp(body(&first).1));
    assert_eq!(body(again).1.get(2..), Some(body(&first).1));
}
