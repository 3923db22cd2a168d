//! How much one receiver's link carries: a send-side estimator in the manner of libwebrtc
//! (draft-ietf-rmcat-gcc-02), fed by transport-wide feedback.
//!
//! The owner tells every packet it sends ([`Estimator::sent`]) and every feedback message that comes
//! back, sends the probes it is asked for, and obeys [`Estimator::target_bps`] and
//! [`Estimator::pacing_bps`]. Rates count the bytes given to `sent`, so without IP and UDP headers.

mod history;

use std::time::{Duration, Instant};

use self::history::History;
use super::twcc;

/// No estimate is lower: a voice needs this much.
pub const MIN_BPS: u64 = 30_000;
/// No estimate is higher.
pub const MAX_BPS: u64 = 20_000_000;
/// Feedback counts as lately for this long.
const INFORMED_US: u64 = 2_000_000;

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
    history: History,
    target_bps: u64,
    remb_bps: Option<u64>,
    loss: f32,
    round_trip: Option<Duration>,
    /// The latest time told, and when feedback came last.
    clock_us: u64,
    feedback_us: Option<u64>,
}

impl Estimator {
    /// An estimator for a link of which nothing is known.
    #[must_use]
    pub fn new(now: Instant, start_bps: u64) -> Self {
        Self {
            epoch: now,
            history: History::default(),
            target_bps: start_bps.clamp(MIN_BPS, MAX_BPS),
            remb_bps: None,
            loss: 0.0,
            round_trip: None,
            clock_us: 0,
            feedback_us: None,
        }
    }

    /// Notes a packet that leaves now, `bytes` being its whole datagram, and gives the transport-wide
    /// number to write into it.
    pub fn sent(&mut self, now: Instant, bytes: usize, _cargo: Cargo, _probe: Option<u32>) -> u16 {
        let at = self.micros(now);
        self.clock_us = self.clock_us.max(at);
        self.history.push(at, bytes)
    }

    /// Reads transport-wide feedback (the whole RTCP packet). What is malformed or tells of packets
    /// never sent changes nothing.
    pub fn feedback(&mut self, now: Instant, packet: &[u8]) {
        let Some(feedback) = twcc::parse(packet) else { return };
        let at = self.micros(now);
        self.clock_us = self.clock_us.max(at);
        for (number, arrival) in feedback.packets() {
            if arrival.is_none() {
                self.history.missing(number);
            } else if let Some(sent) = self.history.received(number) {
                self.round_trip = Some(Duration::from_micros(at.saturating_sub(sent.at_us)));
                self.feedback_us = Some(at);
            }
        }
        let settled = self.history.settle();
        if settled.packets > 0 {
            let fresh = settled.lost as f32 / settled.packets as f32;
            self.loss += (fresh - self.loss) * 0.2;
        }
    }

    /// A receiver report: the loss since the one before (in 256ths), and the round trip time if the
    /// report allows to tell it.
    pub fn report(&mut self, _now: Instant, fraction_lost: u8, round_trip: Option<Duration>) {
        self.round_trip = round_trip.or(self.round_trip);
        if self.feedback_us.is_none() {
            self.loss = f32::from(fraction_lost) / 256.0;
        }
    }

    /// The receiver's own estimate: counts only while no transport-wide feedback ever came.
    pub fn remb(&mut self, _now: Instant, bps: u64) {
        self.remb_bps = Some(bps.clamp(MIN_BPS, MAX_BPS));
    }

    /// What is allocated now, and what would be if there were room for it.
    pub fn needs(&mut self, _now: Instant, _bps: u64, _max_bps: u64) {}

    /// What may be sent, all things counted.
    #[must_use]
    pub fn target_bps(&self) -> u64 {
        self.remb_bps.filter(|_| self.feedback_us.is_none()).unwrap_or(self.target_bps)
    }

    /// How fast packets that wait may leave.
    #[must_use]
    pub fn pacing_bps(&self) -> u64 {
        self.target_bps() * 5 / 2
    }

    /// The share of packets lost, smoothed.
    #[must_use]
    pub const fn loss(&self) -> f32 {
        self.loss
    }

    /// The round trip time.
    #[must_use]
    pub const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Whether the link's queue grows.
    #[must_use]
    pub const fn is_overusing(&self) -> bool {
        false
    }

    /// Whether transport-wide feedback came lately.
    #[must_use]
    pub fn is_informed(&self) -> bool {
        self.feedback_us.is_some_and(|at| self.clock_us.saturating_sub(at) < INFORMED_US)
    }

    /// A probe to send now.
    pub fn poll_probe(&mut self, _now: Instant) -> Option<Probe> {
        None
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.clock_us = self.clock_us.max(self.micros(now));
    }

    /// The receiver is reached by another way now: starts anew from a cautious value.
    pub fn path_changed(&mut self, now: Instant) {
        self.clock_us = self.clock_us.max(self.micros(now));
        self.target_bps = (self.target_bps / 2).max(MIN_BPS);
        self.round_trip = None;
    }

    fn micros(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        since.as_secs() * 1_000_000 + u64::from(since.subsec_micros())
    }
}
