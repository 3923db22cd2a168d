//! RTCP in both directions, and what time demands of a room: feedback to publishers each 50 ms,
//! reports each second, repair and keyframe requests when they are due.

use std::time::{Duration, Instant};

use super::api::MediaKind;
use super::context::{Context, ticks};
use super::keyframes::Need;
use super::link::{Link, Way};
use super::participant::Participant;
use super::quality::WINDOW;
use super::room::Room;
use super::rtcp::{self, ReportBlock, Rtcp, SenderInfo};
use super::subscription::Subscription;
use super::track::Track;

/// Transport-wide feedback to publishers.
const FEEDBACK: Duration = Duration::from_millis(50);
/// The least distance of two timeouts. Each looks at everybody in the room, so the many timers of many
/// bad lines must not add up to more of them.
const REST: Duration = Duration::from_millis(1);
/// Sender and receiver reports.
const REPORTS: Duration = Duration::from_secs(1);
/// Reports in one datagram: 12 × (28 + name) bytes stay below 1,200.
const SENDER_REPORTS: usize = 12;
/// What fits the header's count field.
const RECEIVER_BLOCKS: usize = 31;
/// Transport-wide feedback packets sent at once.
const FEEDBACK_PACKETS: usize = 8;
/// A measured round trip is kept within this.
const ROUND_TRIPS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(2));

impl Room {
    /// An RTCP compound of a participant, opened.
    pub(super) fn reports_came(&mut self, ctx: &mut Context<'_>, key: usize, compound: &[u8]) {
        ctx.counters.rtcp_in += 1;
        for packet in rtcp::packets(compound) {
            let Ok(packet) = packet else {
                ctx.counters.dropped_malformed += 1;
                return;
            };
            match packet {
                Rtcp::SenderReport { ssrc, info, reports } => {
                    self.sender_report_came(ctx, key, ssrc, info);
                    reports.for_each(|block| self.block_came(ctx, key, &block));
                }
                Rtcp::ReceiverReport { ssrc: _, reports } => {
                    reports.for_each(|block| self.block_came(ctx, key, &block));
                }
                Rtcp::Nack { sender: _, media, lost } => self.resend(ctx, key, media, lost),
                Rtcp::Pli { sender: _, media } => self.keyframe_wanted(ctx, key, media),
                Rtcp::Fir { sender: _, entries } => {
                    entries.for_each(|(media, _)| self.keyframe_wanted(ctx, key, media));
                }
                Rtcp::Twcc(packet) => self.arrivals_came(ctx, key, packet),
                Rtcp::Remb { bitrate_bps } => self.estimate_came(ctx, key, bitrate_bps),
                // A track ends by its section, not by its stream.
                Rtcp::Bye { .. } | Rtcp::Other { .. } => {}
            }
        }
    }

    fn sender_report_came(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        ssrc: u32,
        info: SenderInfo,
    ) {
        let ntp = ctx.ntp();
        let Some(sender) = self.participants.get_mut(key) else { return };
        let Some(bound) = sender.streams.get(ssrc).filter(|bound| !bound.repair) else { return };
        sender.streams.measure_clock(ntp, info.ntp);
        let track = self.tracks.get_mut(bound.track);
        if let Some(layer) = track.and_then(|track| track.layers.get_mut(bound.layer)) {
            layer.report = Some((info, ctx.now));
        }
    }

    fn block_came(&mut self, ctx: &mut Context<'_>, key: usize, block: &ReportBlock) {
        let ntp = (ctx.ntp() >> 16) as u32;
        let Some(person) = self.participants.get_mut(key) else { return };
        let at = person.sending.get(&block.ssrc).copied();
        let Some(sub) = at.and_then(|at| person.subscriptions.get_mut(at)) else { return };
        person.connection.reported(block, sub.packets);
        let more = block.lost.saturating_sub(sub.reported_lost);
        ctx.counters.lost_out += u64::try_from(more).unwrap_or(0);
        sub.reported_lost = block.lost;
        person.protection.report(block.fraction_lost);
        let mut told = None;
        if block.lsr != 0 {
            // RFC 3550 §6.4.1, in 1/65536 s.
            let passed = ntp.wrapping_sub(block.lsr).wrapping_sub(block.dlsr);
            if (passed as i32) >= 0 {
                let micros = (u64::from(passed) * 1_000_000) >> 16;
                let (least, most) = ROUND_TRIPS;
                let measured = Duration::from_micros(micros).clamp(least, most);
                // A report that was held up on its way is believed only when others follow.
                let before = person.round_trip;
                person.round_trip = measured.min((before * 3 + measured) / 4);
                told = Some(measured);
            }
        }
        let estimator = person.links.down.as_mut().and_then(|link| link.estimator.as_mut());
        if let Some(estimator) = estimator {
            estimator.report(ctx.now, block.fraction_lost, told);
        }
    }

    fn keyframe_wanted(&mut self, ctx: &mut Context<'_>, key: usize, media: u32) {
        ctx.counters.pli_in += 1;
        let Some(person) = self.participants.get_mut(key) else { return };
        let at = person.sending.get(&media).copied();
        let Some(sub) = at.and_then(|at| person.subscriptions.get_mut(at)) else { return };
        let shown = sub.kind == MediaKind::Video && sub.is_flowing();
        let wanted = sub.wanted().or_else(|| sub.stream());
        let Some(layer) = wanted.filter(|_| shown) else { return };
        let Some(track) = self.tracks.get(sub.track) else { return };
        let keyframes = track.layers.get(layer).map(|layer| &layer.keyframes);
        let need = if sub.stream() != Some(layer) {
            Need::Start
        } else if keyframes.is_some_and(|all| all.answered(ctx.now, person.round_trip))
            || !sub.viewer.passes(ctx.now, track.subscribers.len() > 1)
        {
            return;
        } else {
            Need::Repeat
        };
        let track = sub.track;
        self.ask_keyframe(ctx, track, layer, need);
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        self.rested_at = ctx.now + REST;
        let everyone: Vec<usize> = self.participants.iter().map(|(key, _)| key).collect();
        for key in everyone {
            self.peer_timeout(ctx, key);
            self.ask_for_sections(ctx, key);
        }
        self.links_due(ctx);
        self.lifecycle(ctx);
        self.wishes_due(ctx);
        for track in self.track_keys() {
            self.repair_due(ctx, track);
        }
        if ctx.now >= self.feedback_at {
            self.feedback_at = next(self.feedback_at, FEEDBACK, ctx.now);
            self.transport_feedback(ctx);
            self.protect(ctx.now);
            self.relieve(ctx);
            for track in self.track_keys() {
                if let Some(track) = self.tracks.get_mut(track) {
                    track.measure(ctx.now);
                }
                self.retarget_voice(ctx, track);
                self.review_demand(ctx, track);
            }
            self.share_links(ctx);
            self.watch_pictures(ctx.now);
            self.report_changes(ctx);
        }
        if ctx.now >= self.reports_at {
            self.reports_at = next(self.reports_at, REPORTS, ctx.now);
            self.send_reports(ctx);
        }
        self.speakers_due(ctx);
        if ctx.now >= self.quality_at {
            self.quality_at = next(self.quality_at, WINDOW, ctx.now);
            self.value_connections(ctx);
        }
        self.plan();
    }

    /// Plans the next timeout anew.
    pub(super) fn plan(&mut self) {
        let speaking = self.participants.iter().any(|(_, other)| other.voice.is_told());
        let flowing = !self.tracks.is_empty() || speaking;
        let regular = [self.feedback_at, self.reports_at, self.speakers_at, self.quality_at];
        let regular = regular.into_iter().filter(|_| flowing);
        let people = self.participants.iter().flat_map(|(_, other)| {
            let peers = other.links.all().filter_map(|link| link.peer.poll_timeout());
            let link = other.links.down.as_ref().and_then(Link::due);
            [
                peers.min(),
                link,
                other.negotiation.due(),
                other.wants.settling.due(),
                other.audience.settling.due(),
            ]
        });
        let layers = self.tracks.iter().flat_map(|(_, track)| &track.layers);
        let layers = layers.flat_map(|layer| [layer.reception.next_ask(), layer.keyframes.due()]);
        let single = people.chain(layers).chain([self.lifecycle_due()]).flatten();
        let next = single.chain(regular).min();
        self.deadline = next.map(|at| at.max(self.rested_at));
    }

    fn peer_timeout(&mut self, ctx: &mut Context<'_>, key: usize) {
        for way in [Way::Down, Way::Up] {
            let link = self.participants.get_mut(key).and_then(|other| other.links.get_mut(way));
            let Some(link) = link else { continue };
            if link.peer.poll_timeout().is_some_and(|at| at <= ctx.now) {
                link.peer.handle_timeout(ctx.now);
                self.peer_events(ctx, key, way);
            }
        }
    }

    fn transport_feedback(&mut self, ctx: &mut Context<'_>) {
        for (_, participant) in &mut self.participants {
            let Participant { links, streams, .. } = participant;
            let Some((link, recorder)) = links.source().zip(streams.feedback.as_mut()) else {
                continue;
            };
            let (sender, media) = (link.ssrc, streams.any);
            for _ in 0..FEEDBACK_PACKETS {
                if !recorder.pending() {
                    break;
                }
                let write = |out: &mut Vec<u8>| {
                    recorder.write(out, sender, media);
                };
                if !link.send_rtcp(ctx.departures, ctx.counters, write) {
                    break;
                }
            }
        }
    }

    fn send_reports(&mut self, ctx: &mut Context<'_>) {
        let everyone: Vec<usize> = self.participants.iter().map(|(key, _)| key).collect();
        for key in everyone {
            self.report_reception(ctx, key);
            self.report_sending(ctx, key, None);
        }
    }

    fn report_reception(&mut self, ctx: &mut Context<'_>, key: usize) {
        let own = self.tracks.iter_mut().filter(|(_, track)| track.owner == key);
        let layers = own.flat_map(|(_, track)| &mut track.layers);
        let mut blocks = Vec::new();
        for layer in layers.filter(|layer| layer.reception.started() && layer.ssrc != 0) {
            ctx.counters.lost_in += layer.reception.take_given_up();
            let mut block = layer.reception.report(layer.ssrc);
            if let Some((info, at)) = layer.report {
                block.lsr = (info.ntp >> 16) as u32;
                block.dlsr = ticks(ctx.now.saturating_duration_since(at), 65_536);
            }
            blocks.push(block);
        }
        let link = self.participants.get_mut(key).and_then(|other| other.links.source());
        let Some(link) = link else { return };
        let sender = link.ssrc;
        for blocks in blocks.chunks(RECEIVER_BLOCKS) {
            let write = |out: &mut Vec<u8>| rtcp::write_receiver_report(out, sender, blocks);
            link.send_rtcp(ctx.departures, ctx.counters, write);
        }
    }

    /// Reports at once what a subscription has begun with, or switched to: sound and picture are to
    /// be together from the start. All streams of a publisher are reported together, by one reading
    /// of its clock.
    fn report_changes(&mut self, ctx: &mut Context<'_>) {
        let everyone: Vec<usize> = self.participants.iter().map(|(key, _)| key).collect();
        for key in everyone {
            let Some(person) = self.participants.get(key) else { continue };
            let changed = person.subscriptions.iter().filter(|(_, sub)| {
                let clock = self.described_by(sub).map(|(stream, _, shift)| (stream, shift));
                clock.is_some() && clock.as_ref() != person.described.get(&sub.ssrc)
            });
            let owners = changed.filter_map(|(_, sub)| Some(self.tracks.get(sub.track)?.owner));
            let owners: Vec<usize> = owners.collect();
            if !owners.is_empty() {
                self.report_sending(ctx, key, Some(&owners));
            }
        }
    }

    /// What a subscription's clock can be reported by: the layer that it gets now, the publisher's
    /// report of that, and what was subtracted from its clock.
    fn described_by(&self, sub: &Subscription) -> Option<(usize, SenderInfo, u32)> {
        let shift = sub.clock_shift().filter(|_| sub.packets > 0)?;
        let stream = sub.stream()?;
        let (info, _) = self.tracks.get(sub.track)?.layers.get(stream)?.report?;
        Some((stream, info, shift))
    }

    /// Sender reports on what a participant is sent, of these publishers or of all.
    fn report_sending(&mut self, ctx: &mut Context<'_>, key: usize, owners: Option<&[usize]>) {
        let ntp = ctx.ntp();
        let Some(person) = self.participants.get(key) else { return };
        let mut reports = Vec::new();
        let mut described = Vec::new();
        for (_, sub) in &person.subscriptions {
            let Some(track) = self.tracks.get(sub.track) else { continue };
            if owners.is_some_and(|owners| !owners.contains(&track.owner)) {
                continue;
            }
            let Some(owner) = self.participants.get(track.owner) else { continue };
            let Some((stream, info, shift)) = self.described_by(sub) else { continue };
            let Some(offset) = owner.streams.clock_offset else { continue };
            described.push((sub.ssrc, (stream, shift)));
            let info = SenderInfo {
                ntp,
                rtp_timestamp: media_clock(track, &info, ntp, offset).wrapping_sub(shift),
                packets: sub.packets,
                octets: sub.octets,
            };
            let name = format!("{}|{}", owner.sid.0, sub.sid.0);
            reports.push((sub.ssrc, info, name));
        }
        let Some(person) = self.participants.get_mut(key) else { return };
        if owners.is_none() {
            person.described.clear();
        }
        person.described.extend(described);
        let Some(link) = &mut person.links.down else { return };
        for reports in reports.chunks(SENDER_REPORTS) {
            let write = |out: &mut Vec<u8>| {
                for (ssrc, info, name) in reports {
                    rtcp::write_sender_report(out, *ssrc, info, &[]);
                    rtcp::write_sdes_cname(out, *ssrc, name);
                }
            };
            link.send_rtcp(ctx.departures, ctx.counters, write);
        }
    }
}

/// What the publisher's media clock shows at our wall clock's `ntp`.
fn media_clock(track: &Track, report: &SenderInfo, ntp: u64, offset: i64) -> u32 {
    let theirs = ntp.wrapping_sub(offset as u64);
    let since = i128::from(theirs.wrapping_sub(report.ntp) as i64);
    let ticks = (since * i128::from(track.clock)) >> 32;
    report.rtp_timestamp.wrapping_add(ticks as u32)
}

/// The next time on a regular grid, or a fresh grid after a pause.
fn next(planned: Instant, distance: Duration, now: Instant) -> Instant {
    let next = planned + distance;
    if next > now { next } else { now + distance }
}
