//! How much one receiver's link carries: a send-side estimator in the manner of libwebrtc
//! (draft-ietf-rmcat-gcc-02), fed by transport-wide feedback.
//!
//! The owner tells every packet it sends ([`Estimator::sent`]) and every feedback message that comes
//! back, sends the probes it is asked for, and obeys [`Estimator::target_bps`] and
//! [`Estimator::pacing_bps`]. Rates count the bytes given to `sent`, so without IP and UDP headers.
//!
//! A growing delay (`trendline`, over the groups of `arrival`) and a queue that stands
//! (`queue`) lower the rate (`aimd`) to a share of what arrives (`throughput`); losses do only
//! where they grow with the rate (`loss`). Probes (`probe`) find out what more there is.

mod aimd;
mod alr;
mod arrival;
mod history;
mod loss;
mod probe;
mod queue;
#[cfg(test)]
mod tests;
mod throughput;
mod trendline;

use std::time::{Duration, Instant};

use self::aimd::{Evidence, RateControl, Verdict};
use self::alr::Limited;
use self::arrival::{Arrivals, Gap};
use self::history::{History, Sent};
use self::loss::LossBound;
use self::probe::{Circumstances, Prober};
use self::queue::Queue;
use self::throughput::Throughput;
use self::trendline::{Trendline, Usage};
use super::twcc;

/// No estimate is lower: a voice needs this much.
pub const MIN_BPS: u64 = 30_000;
/// No estimate is higher.
pub const MAX_BPS: u64 = 20_000_000;
/// Feedback counts as lately for this long: an outage is no reason to send without an estimate.
const INFORMED_US: u64 = 10_000_000;
/// Without feedback for this long the link is out, and what was learned of its delay is void after.
const OUTAGE_US: u64 = 800_000;
/// Without feedback for this long a probe is sent to see.
const PATIENCE_US: u64 = 3_000_000;
/// Half the estimate is granted once feedback is missing for this long.
const SILENCE_US: u64 = 3_000_000;
/// Bins of the acknowledged rate (half a second), and of the rate just now.
const STEADY_BINS: usize = 19;
const RECENT_BINS: usize = 7;
/// What waits leaves so much faster than the estimate; less so where the link was seen full, so that
/// a big picture waits here, where voices pass it, and not on the link.
const PACING: f64 = 2.5;
const PACING_FULL: f64 = 1.1;
/// With a queue as long as this, no probe.
const CALM_US: i64 = 25_000;
/// With a queue as long as this, losses are its overflow.
const LOADED_US: i64 = 50_000;
/// Units of the receiver's reference time, and how often it wraps.
const REFERENCE_US: i64 = 64_000;
/// The receiver's clock may stray so far from ours between two messages.
const STRAY_US: i64 = 5_000_000;
/// Probes beyond what losses allow wait so long at first, and at most.
const LOSS_PAUSE_US: u64 = 5_000_000;
const MAX_LOSS_PAUSE_US: u64 = 20_000_000;
/// How often each packet's fate may be told: a late packet makes receivers tell those after it again.
const TOLD: u32 = 16;
/// Fates that may be told at once, at first and at the most. A few bytes can name tens of thousands, and
/// reading them costs.
const FIRST_FATES: u32 = 4_096;
const MAX_FATES: u32 = 16_384;

/// What a packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cargo {
    /// A stream's own packet.
    Media,
    /// A packet sent again.
    Repair,
    /// Nothing: sent for a probe.
    Padding,
}

/// Packets to send quickly, to learn whether the link carries more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    /// To be told with each of its packets to [`Estimator::sent`].
    pub id: u32,
    /// How fast to send them.
    pub bps: u64,
    /// Send at least so many bytes …
    pub bytes: usize,
    /// … in at least so many packets.
    pub packets: u32,
}

/// The estimate of one link, and what it is made of.
#[derive(Debug)]
pub struct Estimator {
    epoch: Instant,
    start_bps: f64,
    /// The latest time told.
    clock_us: u64,
    history: History,
    /// What left, the padding of it, and the most that left lately.
    leaving: Throughput,
    padding: Throughput,
    peak_bps: f64,
    arriving: Throughput,
    arrivals: Arrivals,
    trend: Trendline,
    queue: Queue,
    rate: RateControl,
    losses: LossBound,
    loss_pause_us: u64,
    prober: Prober,
    limited: Limited,
    wanted: Option<f64>,
    remb_bps: Option<f64>,
    reported_loss: f32,
    round_trip_us: Option<u64>,
    feedback_us: Option<u64>,
    /// How many fates may still be told.
    fates: u32,
    /// The receiver's latest reference time, and the same unwrapped, in microseconds.
    reference: Option<(u32, i64)>,
    /// What was sent before belongs to another path.
    path_us: u64,
}

impl Estimator {
    /// An estimator for a link of which nothing is known.
    #[must_use]
    pub fn new(now: Instant, start_bps: u64) -> Self {
        let start_bps = start_bps.clamp(MIN_BPS, MAX_BPS) as f64;
        Self {
            epoch: now,
            start_bps,
            clock_us: 0,
            history: History::default(),
            leaving: Throughput::default(),
            padding: Throughput::default(),
            peak_bps: 0.0,
            arriving: Throughput::default(),
            arrivals: Arrivals::default(),
            trend: Trendline::new(),
            queue: Queue::default(),
            rate: RateControl::new(start_bps),
            losses: LossBound::default(),
            loss_pause_us: LOSS_PAUSE_US,
            prober: Prober::new(),
            limited: Limited::default(),
            wanted: None,
            remb_bps: None,
            reported_loss: 0.0,
            round_trip_us: None,
            feedback_us: None,
            fates: FIRST_FATES,
            reference: None,
            path_us: 0,
        }
    }

    /// Notes a packet that leaves now, `bytes` being its whole datagram, and gives the transport-wide
    /// number to write into it.
    pub fn sent(&mut self, now: Instant, bytes: usize, cargo: Cargo, probe: Option<u32>) -> u16 {
        let at = self.tick(now);
        self.fates = (self.fates + TOLD).min(MAX_FATES);
        let counted = bytes.min(usize::from(u16::MAX)) as u16;
        self.leaving.add(at as i64, counted);
        if cargo == Cargo::Padding {
            self.padding.add(at as i64, counted);
        }
        if let Some(id) = probe {
            self.prober.sent(id, at, bytes);
        }
        self.history.push(at, bytes, probe.unwrap_or(0))
    }

    /// Reads transport-wide feedback (the whole RTCP packet). What is malformed or tells of packets
    /// never sent changes nothing, and what tells of far more than was sent is not read at all.
    pub fn feedback(&mut self, now: Instant, packet: &[u8]) {
        let fates = twcc::count(packet).and_then(|count| self.fates.checked_sub(count.into()));
        let Some(fates) = fates else { return };
        self.fates = fates;
        let Some(feedback) = twcc::parse(packet) else { return };
        let at = self.tick(now);
        let mut newest = None;
        for (number, arrival) in feedback.packets() {
            let Some(arrival) = arrival else {
                self.history.missing(number);
                continue;
            };
            let Some(sent) = self.history.received(number) else { continue };
            if sent.at_us < self.path_us {
                continue;
            }
            if newest.is_none() {
                self.resume(at, feedback.reference);
            }
            newest = newest.max(Some(sent.at_us));
            self.arrived(&sent, self.unwrap(feedback.reference, arrival));
        }
        if let Some(newest) = newest {
            self.note_round_trip(at.saturating_sub(newest));
            self.feedback_us = Some(at);
            self.learn(at);
        }
    }

    /// Before the first arrival of a message is read: outages and jumps of the receiver's clock void
    /// what was learned of the delay.
    fn resume(&mut self, at: u64, reference: u32) {
        let passed = self.feedback_us.map_or(0, |last| at.saturating_sub(last));
        let (last, unwrapped) = self.reference.unwrap_or_else(|| (reference, i64::from(reference)));
        // 24 bits, sign-extended: the shorter way round.
        let ahead = i64::from((reference.wrapping_sub(last) << 8) as i32 >> 8);
        let strayed = (ahead * REFERENCE_US).saturating_sub(passed as i64).saturating_abs();
        self.reference = Some((reference, unwrapped.saturating_add(ahead)));
        if strayed > STRAY_US {
            self.forget_delay();
            self.queue = Queue::default();
        } else if passed > OUTAGE_US {
            self.forget_delay();
            self.prober.hurry(at);
        }
    }

    fn forget_delay(&mut self) {
        self.arrivals = Arrivals::default();
        self.trend.clear();
        self.arriving = Throughput::default();
    }

    /// An arrival, in microseconds of the receiver's clock.
    fn unwrap(&self, reference: u32, arrival: Duration) -> i64 {
        let unwrapped = self.reference.map_or(0, |(_, unwrapped)| unwrapped);
        let since = arrival.as_micros() as i64 - i64::from(reference) * REFERENCE_US;
        unwrapped.saturating_mul(REFERENCE_US).saturating_add(since)
    }

    fn arrived(&mut self, sent: &Sent, at: i64) {
        self.arriving.add(at, sent.bytes);
        self.queue.add(sent.at_us, at);
        if sent.probe != 0 {
            self.prober.arrived(sent, at);
        }
        match self.arrivals.packet(sent.at_us, at) {
            Some(Gap::Known { sent, arrived, at }) => self.trend.update(sent, arrived, at),
            Some(Gap::Broken) => self.trend.clear(),
            None => {}
        }
    }

    fn note_round_trip(&mut self, sample: u64) {
        let last = self.round_trip_us.unwrap_or(sample);
        self.round_trip_us = Some((7 * last + sample) / 8);
    }

    /// Draws the conclusions from a feedback message.
    fn learn(&mut self, at: u64) {
        let standing_us = self.queue.standing_us();
        let leaving = self.leaving.bps(STEADY_BINS).unwrap_or(0.0);
        self.peak_bps = (0.99 * self.peak_bps).max(leaving);
        let since = self.clock_us.saturating_sub(1_000_000) as i64;
        let sending = leaving - self.padding.bps_since(STEADY_BINS, since);
        let settled = self.history.settle();
        let before = self.losses.bound();
        let loaded = standing_us > LOADED_US || self.rate.is_draining();
        self.losses.update(&settled, loaded);
        if self.losses.bound().is_some_and(|now| before.is_none_or(|before| now < 0.98 * before)) {
            self.prober.hold_off(at, self.loss_pause_us);
            self.loss_pause_us = (2 * self.loss_pause_us).min(MAX_LOSS_PAUSE_US);
        }
        // What is lost anyway is not the narrowest place's doing. Nothing arrives that was not sent.
        let whole = 1.0 / (1.0 - self.losses.inherent());
        let peak = if self.peak_bps > 0.0 { 1.25 * self.peak_bps } else { f64::INFINITY };
        let evidence = Evidence {
            at_us: at,
            usage: self.trend.usage(),
            acknowledged: self.arriving.bps(STEADY_BINS).map(|bps| (bps * whole).min(peak)),
            recent: self.arriving.bps(RECENT_BINS).map(|bps| (bps * whole).min(peak)),
            sending,
            standing_us,
            round_trip_us: self.round_trip_us.unwrap_or(100_000),
            ceiling: self.wanted.map_or(f64::INFINITY, |wanted| 1.5 * wanted.max(sending)),
        };
        if self.rate.update(&evidence) == Verdict::Accept {
            self.queue.accept();
        }
        self.limited.update(at, sending, self.estimate());
        self.probed(at);
    }

    fn probed(&mut self, at: u64) {
        let around = self.circumstances();
        let Some(outcome) = self.prober.outcome(&around) else { return };
        if outcome.full {
            self.rate.filled(at, outcome.bps);
        }
        let first = self.prober.is_first();
        if outcome.bps > self.estimate() {
            self.losses.lift(outcome.bps);
            self.rate.set(outcome.bps.max(self.rate.bps()));
        } else if outcome.full && first {
            // Nothing better is known of this link.
            self.rate.set(outcome.bps.max(0.5 * self.rate.bps()));
        }
    }

    fn circumstances(&self) -> Circumstances {
        // Where nothing else is sent, only a probe can find out that the link is back; the last packets
        // before may all have been lost.
        let waited = self.history.waiting_since().map(|since| self.clock_us.saturating_sub(since));
        let sees = |waited| waited >= PATIENCE_US && self.feedback_us.is_some();
        let waiting = waited.is_some_and(|waited| waited > 2 * OUTAGE_US && !sees(waited));
        let calm = self.trend.usage() != Usage::Over
            && self.queue.standing_us() < CALM_US
            && !self.rate.is_draining()
            && !self.losses.is_trying()
            && !waiting
            && !self.history.is_empty();
        Circumstances {
            at_us: self.clock_us,
            estimate: self.estimate(),
            wanted: self.wanted,
            calm,
            inherent: self.losses.inherent(),
            round_trip_us: self.round_trip_us.unwrap_or(100_000),
            jitter_us: self.queue.jitter_us(),
            newest_us: self.history.newest_us(),
        }
    }

    /// The estimate, whether or not feedback comes.
    fn estimate(&self) -> f64 {
        let rate = self.rate.bps();
        self.losses.bps().map_or(rate, |bound| bound.min(rate)).max(MIN_BPS as f64)
    }

    /// A receiver report: the loss since the one before (in 256ths), and the round trip time if the
    /// report allows to tell it.
    pub fn report(&mut self, now: Instant, fraction_lost: u8, round_trip: Option<Duration>) {
        self.tick(now);
        self.reported_loss = 0.7 * self.reported_loss + 0.3 * f32::from(fraction_lost) / 256.0;
        if let Some(round_trip) = round_trip.filter(|_| self.feedback_us.is_none()) {
            self.note_round_trip(round_trip.as_micros().min(60_000_000) as u64);
        }
    }

    /// The receiver's own estimate: counts only while no transport-wide feedback ever came.
    pub fn remb(&mut self, now: Instant, bps: u64) {
        self.tick(now);
        self.remb_bps = Some(bps.clamp(MIN_BPS, MAX_BPS) as f64);
    }

    /// What is allocated now, and what would be if there were room for it.
    pub fn needs(&mut self, now: Instant, bps: u64, max_bps: u64) {
        let at = self.tick(now);
        let wanted = bps.max(max_bps).min(MAX_BPS) as f64;
        if self.wanted.is_some_and(|before| wanted > 1.2 * before) {
            self.prober.hurry(at);
        }
        self.wanted = Some(wanted);
    }

    /// What may be sent, all things counted.
    #[must_use]
    pub fn target_bps(&self) -> u64 {
        let estimate = self.estimate();
        if self.feedback_us.is_none() {
            return self.remb_bps.unwrap_or(estimate) as u64;
        }
        let silent = self
            .history
            .waiting_since()
            .is_some_and(|since| self.clock_us.saturating_sub(since) > SILENCE_US);
        (if silent { estimate / 2.0 } else { estimate }.max(MIN_BPS as f64)) as u64
    }

    /// How fast packets that wait may leave.
    #[must_use]
    pub fn pacing_bps(&self) -> u64 {
        let full = self.rate.knows_capacity(self.clock_us) || self.losses.bps().is_some();
        (self.target_bps() as f64 * if full { PACING_FULL } else { PACING }) as u64
    }

    /// The share of packets lost, smoothed.
    #[must_use]
    pub fn loss(&self) -> f32 {
        if self.feedback_us.is_none() { self.reported_loss } else { self.losses.loss() as f32 }
    }

    /// The round trip time.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip_us.map(Duration::from_micros)
    }

    /// Whether the link's queue grows, or stands and is being let go away.
    #[must_use]
    pub fn is_overusing(&self) -> bool {
        self.trend.usage() == Usage::Over || self.rate.is_draining()
    }

    /// Whether the source sends clearly less than it may.
    #[must_use]
    pub const fn is_application_limited(&self) -> bool {
        self.limited.is_limited()
    }

    /// Whether transport-wide feedback came lately, so that the target means something. Outages of a
    /// few seconds do not count.
    #[must_use]
    pub fn is_informed(&self) -> bool {
        self.feedback_us.is_some_and(|at| self.clock_us.saturating_sub(at) < INFORMED_US)
    }

    /// A probe to send now. Ask after each feedback message and each timeout.
    pub fn poll_probe(&mut self, now: Instant) -> Option<Probe> {
        self.tick(now);
        let around = self.circumstances();
        self.prober.poll(&around)
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = self.prober.due(&self.circumstances())?;
        Some(self.epoch + Duration::from_micros(due.max(self.clock_us)))
    }

    /// Time has passed: [`Self::poll_probe`] may have something.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tick(now);
        let around = self.circumstances();
        self.prober.give_up(&around);
    }

    /// The receiver is reached by another way now: starts anew from a cautious value.
    pub fn path_changed(&mut self, now: Instant) {
        let at = self.tick(now);
        self.forget_delay();
        self.queue = Queue::default();
        self.rate = RateControl::new(self.estimate().min(self.start_bps));
        self.losses = LossBound::default();
        self.loss_pause_us = LOSS_PAUSE_US;
        self.prober.restart();
        self.limited = Limited::default();
        self.round_trip_us = None;
        self.path_us = at;
    }

    /// The time since the start; never goes back.
    fn tick(&mut self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        let at = since.as_secs() * 1_000_000 + u64::from(since.subsec_micros());
        self.clock_us = self.clock_us.max(at);
        self.clock_us
    }
}
