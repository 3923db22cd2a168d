//! How much the link upwards carries, who gets it, and when video may leave.
//!
//! As a browser does it: a send-side estimate by the server's transport-wide feedback; audio first,
//! then the simulcast layers from the lowest up; video leaves a little faster than the estimate and
//! no faster, and probes fill up with repairs of what was sent.

use std::time::{Duration, Instant};

use bedside_sfu::core::api::MediaKind;
use bedside_sfu::core::bwe::{Cargo, Estimator, Probe};

use crate::sender::Sender;
use crate::stats::UplinkEstimate;
use crate::wire::Wire;

/// Before anything is known, as in browsers.
const START_BPS: u64 = 300_000;
/// Between two divisions of the estimate.
const ALLOT_INTERVAL: Duration = Duration::from_millis(100);
/// Packets that wait are looked after so often.
const PACE_INTERVAL: Duration = Duration::from_millis(5);
/// What may leave at once after a pause.
const BURST: Duration = Duration::from_millis(40);
/// The lowest layer is never turned off while anyone wants it.
const LEAST_BPS: u64 = 30_000;
/// A layer starts when it fits with so many hundredths of its rate.
const ROOM_TO_START: u64 = 115;
/// A probe that takes longer than this is given up.
const PROBE_LIMIT: Duration = Duration::from_millis(500);

/// A probe under way.
#[derive(Debug)]
struct Probing {
    probe: Probe,
    since: Instant,
    bytes: usize,
    packets: u32,
}

impl Probing {
    fn is_over(&self, now: Instant) -> bool {
        let sent = self.bytes >= self.probe.bytes && self.packets >= self.probe.packets;
        sent || now.saturating_duration_since(self.since) > PROBE_LIMIT
    }

    /// Bytes that should have left by now.
    fn owed(&self, now: Instant) -> usize {
        let since = now.saturating_duration_since(self.since) + PACE_INTERVAL;
        bytes_in(since, self.probe.bps) as usize
    }
}

/// The link upwards.
#[derive(Debug)]
pub(crate) struct Uplink {
    estimator: Estimator,
    /// Bytes that may leave; below zero after audio and repairs, which do not wait.
    budget: f64,
    filled: Instant,
    allot_at: Instant,
    pace_at: Option<Instant>,
    probing: Option<Probing>,
}

impl Uplink {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            estimator: Estimator::new(now, START_BPS),
            budget: 0.0,
            filled: now,
            allot_at: now,
            pace_at: None,
            probing: None,
        }
    }

    /// Notes a packet that leaves; gives its transport-wide number.
    pub(crate) fn sent(&mut self, now: Instant, bytes: usize, cargo: Cargo) -> u16 {
        self.budget -= bytes as f64;
        let probe = self.probing.as_mut().map(|probing| {
            probing.bytes += bytes;
            probing.packets += 1;
            probing.probe.id
        });
        self.estimator.sent(now, bytes, cargo, probe)
    }

    pub(crate) fn feedback(&mut self, now: Instant, packet: &[u8]) {
        self.estimator.feedback(now, packet);
    }

    pub(crate) fn report(&mut self, now: Instant, fraction: u8, round_trip: Option<Duration>) {
        self.estimator.report(now, fraction, round_trip);
    }

    pub(crate) fn remb(&mut self, now: Instant, bps: u64) {
        self.estimator.remb(now, bps);
    }

    /// Another network carries it from now on.
    pub(crate) fn path_changed(&mut self, now: Instant) {
        self.estimator.path_changed(now);
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.estimator.round_trip()
    }

    /// What is known, once feedback has come.
    pub(crate) fn estimate(&self) -> UplinkEstimate {
        UplinkEstimate {
            bps: self.estimator.target_bps(),
            loss: self.estimator.loss(),
            round_trip: self.estimator.round_trip(),
        }
    }

    /// When there is something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        let times = [self.pace_at, self.estimator.poll_timeout()];
        times.into_iter().flatten().chain([self.allot_at]).min()
    }

    /// Divides the estimate among the streams.
    fn allot(&mut self, now: Instant, senders: &mut [Sender]) {
        if self.allot_at > now {
            return;
        }
        self.allot_at = now + ALLOT_INTERVAL;
        let wants = |sender: &&mut Sender| sender.is_taken() && !sender.muted && sender.wanted;
        let full: u64 = senders.iter_mut().filter(wants).map(|sender| sender.full_rate()).sum();
        let used = divide(now, self.estimator.target_bps(), senders);
        self.estimator.needs(now, used, full);
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled);
        self.filled = now;
        let rate = self.estimator.pacing_bps();
        self.budget = (self.budget + bytes_in(passed, rate)).min(bytes_in(BURST, rate));
    }

    fn start_probe(&mut self, now: Instant) {
        if self.probing.as_ref().is_some_and(|probing| probing.is_over(now)) {
            self.probing = None;
        }
        if self.probing.is_none() {
            let start = |probe| Probing { probe, since: now, bytes: 0, packets: 0 };
            self.probing = self.estimator.poll_probe(now).map(start);
        }
    }
}

fn bytes_in(time: Duration, bps: u64) -> f64 {
    time.as_secs_f64() * bps as f64 / 8.0
}

/// Gives each stream its share of `bps`: audio what it needs, then video from the lowest layer up. An
/// upper layer is on while its lowest quality fits, and starts when that has fitted well for a while:
/// each start and stop is a switch for those who watch. Returns what was given.
fn divide(now: Instant, bps: u64, senders: &mut [Sender]) -> u64 {
    let mut used = 0;
    for audio in senders.iter().filter(|sender| sender.kind() == MediaKind::Audio) {
        used += if audio.flows() { audio.full_rate() } else { 0 };
    }
    let mut lowest = true;
    for video in senders.iter_mut().filter(|sender| sender.kind() == MediaKind::Video) {
        if !video.is_taken() || video.muted || !video.wanted {
            continue;
        }
        let (full, rest) = (video.full_rate(), bps.saturating_sub(used));
        let least = video.least_rate();
        let fits = if video.flows() || lowest {
            rest >= least
        } else {
            video.may_start(now, rest >= least * ROOM_TO_START / 100)
        };
        let given = match (lowest, rest >= full && fits, fits) {
            (_, true, _) => full,
            (true, false, _) => rest.max(LEAST_BPS),
            (false, false, true) => rest,
            // What does not fit ends the row: no layer above one that is missing.
            (false, false, false) => 0,
        };
        lowest = false;
        used += given;
        // Enough is no limit: the loops are not as even as their rate.
        video.allot(now, if given == full { None } else { Some(given) });
        if given == 0 {
            used = bps.max(used);
        }
    }
    used.min(bps.max(used))
}

/// Does what is due: divides, probes, and sends what waits. Does nothing while no feedback is agreed.
pub(crate) fn tick(now: Instant, senders: &mut [Sender], wire: &mut Wire) {
    let Some(uplink) = &mut wire.uplink else { return };
    uplink.estimator.handle_timeout(now);
    uplink.allot(now, senders);
    uplink.fill(now);
    uplink.start_probe(now);
    loop {
        let Some(uplink) = &wire.uplink else { return };
        let probing = uplink.probing.as_ref().filter(|probing| !probing.is_over(now));
        let owed = probing.map_or(0, |probing| probing.owed(now).saturating_sub(probing.bytes));
        if uplink.budget <= 0.0 && owed == 0 {
            break;
        }
        let waiting = senders.iter().position(Sender::is_waiting);
        let sent = match waiting.and_then(|at| senders.get_mut(at)) {
            Some(sender) => sender.send_next(now, wire),
            None if owed > 0 => pad(now, senders, wire),
            None => 0,
        };
        if sent == 0 {
            break;
        }
    }
    let waits = senders.iter().any(Sender::is_waiting);
    if let Some(uplink) = &mut wire.uplink {
        let probes = uplink.probing.as_ref().is_some_and(|probing| !probing.is_over(now));
        uplink.pace_at = (waits || probes).then_some(now + PACE_INTERVAL);
    }
}

/// Fills up a probe from the largest stream that flows.
fn pad(now: Instant, senders: &mut [Sender], wire: &mut Wire) -> usize {
    let flowing = senders.iter_mut().rev().filter(|sender| sender.flows());
    let mut sent = 0;
    for sender in flowing {
        sent = sender.pad(now, wire);
        if sent > 0 {
            break;
        }
    }
    if sent == 0
        && let Some(uplink) = &mut wire.uplink
    {
        // Nothing to pad with: the probe cannot be made.
        uplink.probing = None;
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loops::Content;
    use crate::sender::SendParameters;

    fn senders(contents: &[Content]) -> Vec<Sender> {
        let make = |(at, content): (usize, &Content)| {
            let rid = ["q", "h", "f"].get(at.saturating_sub(1)).copied().unwrap_or_default();
            let mut sender =
                Sender::new(*content, rid.to_owned(), "1".to_owned(), "c".to_owned(), [9, 8, 7, 6]);
            sender.configure(Some(SendParameters {
                payload_type: 96,
                rtx_payload_type: Some(97),
                red_payload_type: None,
                mid_id: None,
                rid_id: None,
                repaired_rid_id: None,
                abs_send_time_id: None,
                transport_cc_id: Some(3),
                audio_level_id: None,
            }));
            sender
        };
        contents.iter().enumerate().map(make).collect()
    }

    const CALL: [Content; 3] = [Content::Tone, Content::Layer(1), Content::Layer(2)];

    #[test]
    fn audio_comes_first_and_layers_from_below() {
        let (mut senders, start) = (senders(&CALL), Instant::now());
        let full: Vec<u64> = senders.iter().map(Sender::full_rate).collect();
        let least = senders[2].least_rate();
        let flows = |senders: &[Sender]| senders.iter().map(Sender::flows).collect::<Vec<_>>();
        assert_eq!(divide(start, 1_000_000, &mut senders), full.iter().sum::<u64>());
        assert_eq!(flows(&senders), [true; 3]);
        divide(start, full[0] + full[1] + least + 1000, &mut senders);
        assert_eq!(flows(&senders), [true; 3], "a lower quality");
        divide(start, full[0] + full[1] + least - 1000, &mut senders);
        assert_eq!(flows(&senders), [true, true, false]);
        assert_eq!(divide(start, full[0] + full[1] / 3, &mut senders), full[0] + full[1] / 3);
        assert_eq!(divide(start, 30_000, &mut senders), full[0] + LEAST_BPS, "the lowest stays");
        assert_eq!(flows(&senders), [true, true, false]);
        let mut at = |ms, bps| {
            divide(start + Duration::from_millis(ms), bps, &mut senders);
            senders[2].flows()
        };
        assert!(!at(0, 1_000_000) && !at(1900, 1_000_000), "not back at once");
        assert!(!at(1950, 30_000) && !at(2100, 1_000_000), "room that does not last");
        assert!(at(4200, 1_000_000));
    }

    #[test]
    fn what_nobody_wants_gets_nothing() {
        let mut senders = senders(&CALL);
        senders[2].wanted = false;
        senders[0].muted = true;
        assert_eq!(divide(Instant::now(), 1_000_000, &mut senders), senders[1].full_rate());
    }

    #[test]
    fn full_rates_are_those_of_the_loops_and_their_packets() {
        let mut senders = senders(&CALL);
        let full: Vec<u64> = senders.iter().map(Sender::full_rate).collect();
        assert!((60_000..70_000).contains(&full[0]), "{full:?}");
        assert!((100_000..115_000).contains(&full[1]), "{full:?}");
        assert!((280_000..310_000).contains(&full[2]), "{full:?}");
        senders[0].redundancy = 1;
        assert!(senders[0].full_rate() > full[0] * 3 / 2);
    }
}
