//! The media of one participant: its senders and receivers, and the RTCP between them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bedside_sfu::core::api::MediaKind;
use bedside_sfu::core::rtcp::{self, ReportBlock, Rtcp};
use bedside_sfu::core::rtp::{self, Header};
use bedside_sfu::core::sdp::{Description, Extension};
use bedside_sfu::core::twcc::{self, Recorder};

use crate::negotiation::{receive_parameters, send_parameters};
use crate::receiver::{Packet, Receiver};
use crate::sender::Sender;
use crate::stats::{ReceivedTrack, Stats};
use crate::timed::Ear;
use crate::uplink::{self, Uplink};
use crate::wire::Wire;

/// Between two rounds of reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Between two transport-wide feedbacks.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);
/// Report blocks in one packet.
const MAX_BLOCKS: usize = 31;
/// Ended tracks whose counts are kept.
const MAX_ENDED: usize = 64;

/// What a stream number leads to.
#[derive(Clone, Copy, Debug)]
enum Route {
    Media(usize),
    Repair(usize),
}

/// All that is sent and received.
#[derive(Debug)]
pub(crate) struct Media {
    pub(crate) senders: Vec<Sender>,
    /// Is told of timed packets.
    pub(crate) ear: Option<Arc<dyn Ear>>,
    receivers: Vec<Receiver>,
    ended: Vec<ReceivedTrack>,
    routes: HashMap<u32, Route>,
    /// The stream that feedback comes from while nothing is published.
    ssrc: u32,
    cname: String,
    recorder: Recorder,
    transport_cc_id: Option<u8>,
    report_at: Instant,
    feedback_at: Option<Instant>,
    round_trip: Duration,
    feedback_sent: u64,
    feedback_received: u64,
    unknown_packets: u64,
    compound: Vec<u8>,
    lost: Vec<u16>,
}

impl Media {
    pub(crate) fn new(now: Instant, ssrc: u32, ear: Option<Arc<dyn Ear>>) -> Self {
        Self {
            senders: Vec::new(),
            ear,
            receivers: Vec::new(),
            ended: Vec::new(),
            routes: HashMap::new(),
            ssrc,
            cname: format!("{ssrc:08x}"),
            recorder: Recorder::new(now),
            transport_cc_id: None,
            report_at: now + REPORT_INTERVAL,
            feedback_at: None,
            round_trip: Duration::from_millis(50),
            feedback_sent: 0,
            feedback_received: 0,
            unknown_packets: 0,
            compound: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// Takes an answer; returns the tracks that it brings.
    pub(crate) fn apply(
        &mut self,
        now: Instant,
        answer: &Description,
        wire: &mut Wire,
    ) -> Vec<String> {
        for sender in &mut self.senders {
            let section = answer.sections.iter().find(|section| section.mid == sender.mid);
            let parameters = section.and_then(send_parameters);
            if parameters.as_ref().is_some_and(|known| known.transport_cc_id.is_some()) {
                wire.uplink.get_or_insert_with(|| Uplink::new(now));
            }
            sender.configure(parameters);
        }
        let wanted = receive_parameters(answer);
        let (kept, ended): (Vec<_>, Vec<_>) = std::mem::take(&mut self.receivers)
            .into_iter()
            .partition(|receiver| wanted.contains(&receiver.parameters));
        self.receivers = kept;
        self.end(now, ended);
        let mut added = Vec::new();
        for parameters in wanted {
            if self.receivers.iter().all(|receiver| receiver.parameters != parameters) {
                added.push(parameters.sid.clone());
                self.receivers.push(Receiver::new(now, parameters, self.ear.clone()));
            }
        }
        self.routes.clear();
        for (index, receiver) in self.receivers.iter().enumerate() {
            self.routes.insert(receiver.parameters.ssrc, Route::Media(index));
            if let Some(repair) = receiver.parameters.rtx_ssrc {
                self.routes.insert(repair, Route::Repair(index));
            }
        }
        let feeds = |feedback: &String| feedback == "transport-cc";
        let agreed = answer
            .sections
            .iter()
            .filter(|section| section.sends())
            .any(|section| section.codecs.iter().any(|codec| codec.feedback.iter().any(feeds)));
        self.transport_cc_id = answer.extension_id(Extension::TransportCc).filter(|_| agreed);
        added
    }

    /// Forgets every track: the transport is gone.
    pub(crate) fn end_all(&mut self, now: Instant) {
        let receivers = std::mem::take(&mut self.receivers);
        self.end(now, receivers);
        self.routes.clear();
        self.senders.clear();
    }

    fn end(&mut self, now: Instant, mut receivers: Vec<Receiver>) {
        self.ended.extend(receivers.iter_mut().map(|receiver| receiver.totals(now, false)));
        let surplus = self.ended.len().saturating_sub(MAX_ENDED);
        self.ended.drain(..surplus);
    }

    /// Starts the clocks of the senders, a little apart from one another and from other participants.
    pub(crate) fn start(&mut self, now: Instant) {
        let phase = Duration::from_micros(u64::from(self.ssrc % 50_000));
        for sender in &mut self.senders {
            sender.start(now + phase);
        }
    }

    /// Takes an opened RTP packet.
    pub(crate) fn rtp(&mut self, now: Instant, packet: &[u8]) {
        let Some(header) = Header::parse(packet) else { return };
        if let Some(id) = self.transport_cc_id
            && let Some((_, value)) = rtp::extensions(packet).find(|(known, _)| *known == id)
            && let Some(sequence) = value.first_chunk()
        {
            self.recorder.record(u16::from_be_bytes(*sequence), now);
            self.feedback_at.get_or_insert(now + FEEDBACK_INTERVAL);
        }
        let Some(payload) = rtp::payload(packet, &header) else { return };
        let extension = |id: Option<u8>| {
            let found = rtp::extensions(packet).find(|(known, _)| Some(*known) == id);
            found.filter(|_| id.is_some()).map(|(_, value)| value)
        };
        match self.routes.get(&header.ssrc) {
            Some(Route::Media(index)) => {
                if let Some(receiver) = self.receivers.get_mut(*index) {
                    let descriptor = extension(receiver.parameters.descriptor_id);
                    receiver.media(now, &header, Packet { payload, descriptor });
                }
            }
            Some(Route::Repair(index)) => {
                if let Some(receiver) = self.receivers.get_mut(*index) {
                    let descriptor = extension(receiver.parameters.descriptor_id);
                    receiver.repair(now, &header, Packet { payload, descriptor });
                }
            }
            None => self.unknown_packets += 1,
        }
    }

    /// Takes an opened RTCP compound and answers what it asks for.
    pub(crate) fn rtcp(&mut self, now: Instant, compound: &[u8], wire: &mut Wire) {
        for packet in rtcp::packets(compound).flatten() {
            match packet {
                Rtcp::SenderReport { ssrc, info, reports } => {
                    if let Some(Route::Media(index)) = self.routes.get(&ssrc)
                        && let Some(receiver) = self.receivers.get_mut(*index)
                    {
                        receiver.sender_report(now, info.ntp);
                    }
                    self.reported(now, reports, wire);
                }
                Rtcp::ReceiverReport { reports, .. } => self.reported(now, reports, wire),
                Rtcp::Nack { media, lost, .. } => {
                    if let Some(sender) = self.sender(media) {
                        sender.repair(now, lost, wire);
                    }
                }
                Rtcp::Pli { media, .. } => self.keyframe(media),
                Rtcp::Fir { entries, .. } => {
                    for (media, _) in entries {
                        self.keyframe(media);
                    }
                }
                Rtcp::Twcc(packet) => {
                    self.feedback_received += u64::from(twcc::parse(packet).is_some());
                    if let Some(uplink) = &mut wire.uplink {
                        uplink.feedback(now, packet);
                    }
                }
                Rtcp::Remb { bitrate_bps } => {
                    if let Some(uplink) = &mut wire.uplink {
                        uplink.remb(now, bitrate_bps);
                    }
                }
                Rtcp::Bye { .. } | Rtcp::Other { .. } => {}
            }
        }
    }

    fn sender(&mut self, ssrc: u32) -> Option<&mut Sender> {
        self.senders.iter_mut().find(|sender| sender.ssrc == ssrc)
    }

    fn keyframe(&mut self, ssrc: u32) {
        if let Some(sender) = self.sender(ssrc) {
            sender.keyframe();
        }
    }

    fn reported(&mut self, now: Instant, reports: rtcp::Reports<'_>, wire: &mut Wire) {
        for report in reports {
            let round_trip = round_trip(&report);
            self.round_trip = round_trip.unwrap_or(self.round_trip);
            if let Some(sender) = self.sender(report.ssrc) {
                sender.reported(&report, round_trip);
                if let Some(uplink) = &mut wire.uplink {
                    uplink.report(now, report.fraction_lost, round_trip);
                }
            }
        }
    }

    /// The server has paused a track's picture, or its sender has muted it; `None`: as before.
    pub(crate) fn pause(
        &mut self,
        now: Instant,
        sid: &str,
        paused: Option<bool>,
        muted: Option<bool>,
    ) {
        let known = |receiver: &&mut Receiver| receiver.parameters.sid == sid;
        if let Some(receiver) = self.receivers.iter_mut().find(known) {
            receiver.pause(now, paused, muted);
        }
    }

    /// Which qualities of a track anybody wants: low, medium, high.
    pub(crate) fn wanted(&mut self, sid: &str, qualities: [bool; 3]) {
        let layers = self.senders.iter_mut().filter(|sender| sender.sid == sid);
        let layers = layers.filter(|sender| sender.kind() == MediaKind::Video);
        for (sender, wanted) in layers.zip(qualities) {
            let any = sender.rid.is_empty() && qualities.contains(&true);
            sender.wanted = wanted || any;
        }
    }

    /// When [`Media::tick`] has something to do.
    pub(crate) fn due(&self, wire: &Wire) -> Instant {
        let uplink = wire.uplink.as_ref().and_then(Uplink::due);
        let senders = self.senders.iter().filter_map(Sender::due);
        let receivers = self.receivers.iter().filter_map(Receiver::due);
        let times = senders.chain(receivers).chain(self.feedback_at).chain(uplink);
        times.fold(self.report_at, Instant::min)
    }

    /// Sends what is due: media, askings, feedback, reports.
    pub(crate) fn tick(&mut self, now: Instant, wire: &mut Wire) {
        for sender in &mut self.senders {
            sender.play(now, wire);
        }
        uplink::tick(now, &mut self.senders, wire);
        let measured = wire.uplink.as_ref().and_then(Uplink::round_trip);
        self.round_trip = measured.unwrap_or(self.round_trip);
        let mut compound = std::mem::take(&mut self.compound);
        self.ask(now, &mut compound);
        if self.feedback_at.is_some_and(|at| at <= now) {
            self.feedback_at = None;
            let media = self.receivers.first().map_or(0, |receiver| receiver.parameters.ssrc);
            while self.recorder.write(&mut compound, self.ssrc, media) {
                self.feedback_sent += 1;
                send(&mut compound, wire);
            }
        }
        if !compound.is_empty() {
            send(&mut compound, wire);
        }
        if self.report_at <= now {
            self.report_at = now + REPORT_INTERVAL;
            self.report(now, &mut compound, wire);
            self.synchronise();
        }
        self.compound = compound;
    }

    /// Lets the sound of a stream wait for its picture, or the other way round.
    fn synchronise(&mut self) {
        for at in 0..self.receivers.len() {
            let Some(video) = self.receivers.get(at) else { continue };
            if video.parameters.kind != MediaKind::Video || !video.is_flowing() {
                continue;
            }
            let (mut sync, stream) = (video.lip_sync, video.parameters.stream.clone());
            let together = |other: &&mut Receiver| {
                let audio = other.parameters.kind == MediaKind::Audio;
                audio && other.parameters.stream == stream && other.is_flowing()
            };
            let Some(audio) = self.receivers.iter_mut().find(together) else { continue };
            let heard = audio.delay(sync.audio());
            let Some(video) = self.receivers.get_mut(at) else { continue };
            sync.compare(heard, video.delay(sync.video()));
            video.lip_sync = sync;
        }
    }

    /// Asks for what is missing.
    fn ask(&mut self, now: Instant, compound: &mut Vec<u8>) {
        let (ssrc, round_trip) = (self.ssrc, self.round_trip);
        for receiver in &mut self.receivers {
            self.lost.clear();
            receiver.asks(now, round_trip, &mut self.lost);
            rtcp::write_nack(compound, ssrc, receiver.parameters.ssrc, &self.lost);
            if receiver.asks_keyframe(now) {
                rtcp::write_pli(compound, ssrc, receiver.parameters.ssrc);
            }
        }
    }

    /// Tells what was sent and what was received.
    fn report(&mut self, now: Instant, compound: &mut Vec<u8>, wire: &mut Wire) {
        let blocks: Vec<ReportBlock> =
            self.receivers.iter_mut().filter_map(|receiver| receiver.report(now)).collect();
        let mut blocks = blocks.chunks(MAX_BLOCKS);
        let ntp = ntp_now();
        for sender in &self.senders {
            if let Some(info) = sender.report(now, ntp) {
                let block = blocks.next().unwrap_or_default();
                rtcp::write_sender_report(compound, sender.ssrc, &info, block);
                rtcp::write_sdes_cname(compound, sender.ssrc, &self.cname);
                send(compound, wire);
            }
        }
        for block in blocks {
            rtcp::write_receiver_report(compound, self.ssrc, block);
            send(compound, wire);
        }
    }

    /// Fills in what is known here.
    pub(crate) fn fill(&mut self, now: Instant, wire: &Wire, stats: &mut Stats) {
        stats.sent = self.senders.iter().map(Sender::totals).collect();
        let informed = wire.uplink.as_ref().filter(|_| self.feedback_received > 0);
        stats.uplink = informed.map(Uplink::estimate);
        let flowing = self.receivers.iter_mut().map(|receiver| receiver.totals(now, true));
        stats.received = self.ended.iter().cloned().chain(flowing).collect();
        stats.feedback_sent = self.feedback_sent;
        stats.feedback_received = self.feedback_received;
        stats.unknown_packets = self.unknown_packets;
    }
}

fn send(compound: &mut Vec<u8>, wire: &mut Wire) {
    wire.rtcp(compound);
    compound.clear();
}

/// Wall clock in NTP format (RFC 5905 §6): seconds since 1900 in 32.32 fixed point.
fn ntp_now() -> u64 {
    const SECONDS_1900_TO_1970: u64 = 2_208_988_800;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    ((since.as_secs() + SECONDS_1900_TO_1970) << 32) | fraction
}

/// Round trip by a report (RFC 3550 §6.4.1); nothing when it answers no sender report of ours.
fn round_trip(report: &ReportBlock) -> Option<Duration> {
    if report.lsr == 0 {
        return None;
    }
    let now = (ntp_now() >> 16) as u32;
    let units = now.wrapping_sub(report.lsr).wrapping_sub(report.dlsr);
    // More than a minute is a clock that was set.
    (units < 60 << 16).then(|| Duration::from_micros((u64::from(units) * 1_000_000) >> 16))
}
