//! Probes: a few packets sent faster than the estimate, to learn at once what growing step by step
//! would learn late. Three and six times the first value at the start; then, while more is needed
//! than the estimate grants, twice the estimate every few seconds, and on at once after a success.

use super::history::Sent;
use super::{MAX_BPS, Probe};

/// Of the first value, at the start; of the estimate, later; and after a success.
const FIRST: f64 = 3.0;
const FURTHER: f64 = 2.0;
const ONWARD: f64 = 3.0;
/// A result above this share of the probe's rate is worth going on.
const SUCCESS: f64 = 0.7;
/// More than is needed, so that what is needed fits with room to spare.
const HEADROOM: f64 = 1.25;
/// How long a probe lasts: at least, at most, and at the rate of the estimate; of what it consists at
/// least.
const PROBE_US: f64 = 25_000.0;
const MAX_PROBE_US: f64 = 80_000.0;
const SLOW_US: f64 = 80_000.0;
const MIN_BYTES: f64 = 1_000.0;
const MIN_PACKETS: u32 = 5;
/// Where packets get lost anyway a probe has more of them: this many times the share lost.
const LOSSY_PACKETS: f64 = 20.0;
/// Share of a cluster that has to arrive, besides what the link loses anyway.
const ENOUGH: f64 = 0.8;
/// Packets sent so much later arrived: what is missing of the cluster is lost. Of so few packets the
/// rate can be told; what was lost of them makes it the lower.
const SETTLED_US: u64 = 60_000;
const FEWEST: u32 = 3;
/// Receiving faster than this, compared with sending, is an accident of batching.
const MAX_RATIO: f64 = 2.0;
/// Receiving slower than this means that the link was full; what the estimate takes of the rate then.
const FULL: f64 = 0.9;
const FULL_SHARE: f64 = 0.95;
/// Waits between probes: at first, and after failures.
const FIRST_PAUSE_US: u64 = 1_000_000;
const MAX_PAUSE_US: u64 = 3_000_000;
/// Feedback later than this after the last packet is not waited for.
const PATIENCE_US: u64 = 600_000;
/// Without any word of the needs, so many clusters at the start, and no more.
const BLIND_CLUSTERS: u32 = 2;

/// What a cluster told.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Outcome {
    pub(super) bps: f64,
    /// The link carried no more than this.
    pub(super) full: bool,
}

/// What the prober looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    pub(super) at_us: u64,
    pub(super) estimate: f64,
    /// What more could be used; `None` when nobody said.
    pub(super) wanted: Option<f64>,
    /// No queue grows, stands or is being drained, and feedback comes.
    pub(super) calm: bool,
    /// Share lost anyway.
    pub(super) inherent: f64,
    pub(super) round_trip_us: u64,
    pub(super) jitter_us: f64,
    /// When the newest packet that arrived was sent.
    pub(super) newest_us: u64,
}

/// A probe on its way.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    probe: Probe,
    polled_us: u64,
    sent_packets: u32,
    sent_bytes: u64,
    last_sent_us: u64,
    /// Of what arrived.
    packets: u32,
    bytes: u64,
    first: Option<(u64, u64)>,
    last: (u64, u64),
    arrived: (i64, u64),
    arrived_last: (i64, u64),
}

impl Cluster {
    const fn new(probe: Probe, polled_us: u64) -> Self {
        Self {
            probe,
            polled_us,
            sent_packets: 0,
            sent_bytes: 0,
            last_sent_us: 0,
            packets: 0,
            bytes: 0,
            first: None,
            last: (0, 0),
            arrived: (i64::MAX, 0),
            arrived_last: (i64::MIN, 0),
        }
    }

    const fn is_sent(&self) -> bool {
        self.sent_packets >= self.probe.packets && self.sent_bytes >= self.probe.bytes as u64
    }

    fn take(&mut self, sent: &Sent, arrived: i64) {
        let bytes = u64::from(sent.bytes);
        self.packets += 1;
        self.bytes += bytes;
        if self.first.is_none_or(|first| sent.at_us < first.0) {
            self.first = Some((sent.at_us, bytes));
        }
        if sent.at_us >= self.last.0 {
            self.last = (sent.at_us, bytes);
        }
        if arrived < self.arrived.0 {
            self.arrived = (arrived, bytes);
        }
        if arrived >= self.arrived_last.0 {
            self.arrived_last = (arrived, bytes);
        }
    }

    /// Whether so much arrived that the cluster tells something.
    fn is_enough(&self, around: &Circumstances) -> bool {
        let share = ENOUGH * (1.0 - around.inherent.min(0.4));
        self.packets >= 4 && f64::from(self.packets) >= share * f64::from(self.sent_packets)
    }

    /// Whether no more of it will arrive.
    fn is_settled(&self, around: &Circumstances) -> bool {
        around.newest_us > self.last_sent_us.saturating_add(SETTLED_US)
    }

    fn outcome(&self, inherent: f64) -> Option<Outcome> {
        let sent_us = self.last.0.checked_sub(self.first?.0).filter(|span| *span > 0)?;
        let arrived_us = self.arrived_last.0.checked_sub(self.arrived.0)?.max(1);
        if arrived_us > 1_000_000 {
            return None;
        }
        let sending = (self.bytes - self.last.1) as f64 * 8e6 / sent_us as f64;
        let arriving = (self.bytes - self.arrived.1) as f64 * 8e6 / arrived_us as f64;
        if arriving > MAX_RATIO * sending {
            return None;
        }
        // Both rates lack what was lost. What is lost anyway takes no room at the narrowest place.
        let lost = 1.0 - f64::from(self.packets) / f64::from(self.sent_packets.max(1));
        let whole = 1.0 / (1.0 - lost.clamp(0.0, inherent.min(0.4)));
        let full = arriving < FULL * sending;
        let bps = if full { FULL_SHARE * arriving } else { arriving.min(sending) };
        Some(Outcome { bps: (bps * whole).min(self.probe.bps as f64 * 1.2), full })
    }
}

/// Decides when to probe, and reads the outcome.
#[derive(Debug)]
pub(super) struct Prober {
    cluster: Option<Cluster>,
    next_id: u32,
    /// Clusters since the start.
    sent: u32,
    due_us: u64,
    pause_us: u64,
    onward: bool,
}

impl Prober {
    pub(super) const fn new() -> Self {
        Self {
            cluster: None,
            next_id: 1,
            sent: 0,
            due_us: 0,
            pause_us: FIRST_PAUSE_US,
            onward: false,
        }
    }

    /// Starts anew, as on another link; clusters on their way are forgotten.
    pub(super) const fn restart(&mut self) {
        let next_id = self.next_id;
        *self = Self::new();
        self.next_id = next_id;
    }

    /// Whether the latest cluster was the first on this link.
    pub(super) const fn is_first(&self) -> bool {
        self.sent <= 1
    }

    /// Probe as soon as it is calm.
    pub(super) const fn hurry(&mut self, at_us: u64) {
        self.due_us = at_us;
        self.pause_us = FIRST_PAUSE_US;
    }

    /// Not before so long.
    pub(super) fn hold_off(&mut self, at_us: u64, pause_us: u64) {
        self.due_us = self.due_us.max(at_us.saturating_add(pause_us));
    }

    /// The rate to reach, if a probe makes sense at all.
    fn goal(&self, around: &Circumstances) -> Option<f64> {
        match around.wanted {
            Some(wanted) => (HEADROOM * wanted > around.estimate).then_some(HEADROOM * wanted),
            None => (self.sent < BLIND_CLUSTERS).then_some(MAX_BPS as f64),
        }
    }

    /// A probe to send now.
    pub(super) fn poll(&mut self, around: &Circumstances) -> Option<Probe> {
        self.give_up(around);
        if self.cluster.is_some() || around.at_us < self.due_us || !around.calm {
            return None;
        }
        let goal = self.goal(around)?;
        let factor = match (self.sent, self.onward) {
            (0, _) => FIRST,
            (1, true) => FURTHER,
            (_, true) => ONWARD,
            (_, false) => FURTHER,
        };
        let bps = (factor * around.estimate).min(1.1 * goal).min(MAX_BPS as f64);
        // Jitter hides the rate of what is short; what is long fills the queue of a slow link.
        let lasts = (PROBE_US + 2.0 * around.jitter_us).min(MAX_PROBE_US);
        let slow = around.estimate * SLOW_US / 8e6;
        let bytes = (bps * lasts / 8e6).min(slow.max(bps * PROBE_US / 8e6)).max(MIN_BYTES);
        let packets = MIN_PACKETS + (LOSSY_PACKETS * around.inherent.min(0.3)) as u32;
        let probe = Probe { id: self.next_id, bps: bps as u64, bytes: bytes as usize, packets };
        self.next_id = self.next_id.wrapping_add(1).max(1);
        self.sent = self.sent.saturating_add(1);
        self.onward = false;
        self.cluster = Some(Cluster::new(probe, around.at_us));
        Some(probe)
    }

    /// When [`Self::poll`] may have something.
    pub(super) fn due(&self, around: &Circumstances) -> Option<u64> {
        match &self.cluster {
            Some(cluster) => Some(Self::deadline(cluster, around)),
            None => self.goal(around).filter(|_| around.calm).map(|_| self.due_us),
        }
    }

    fn deadline(cluster: &Cluster, around: &Circumstances) -> u64 {
        cluster.polled_us.max(cluster.last_sent_us) + around.round_trip_us + PATIENCE_US
    }

    /// Waits no longer for a cluster that was not answered in time.
    pub(super) fn give_up(&mut self, around: &Circumstances) {
        if self.cluster.is_some_and(|cluster| around.at_us >= Self::deadline(&cluster, around)) {
            self.cluster = None;
            self.failed(around.at_us);
        }
    }

    fn failed(&mut self, at_us: u64) {
        self.due_us = at_us.saturating_add(self.pause_us);
        self.pause_us = (self.pause_us * 3 / 2).min(MAX_PAUSE_US);
        self.onward = false;
    }

    /// A packet of a cluster leaves.
    pub(super) fn sent(&mut self, id: u32, at_us: u64, bytes: usize) {
        if let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.probe.id == id) {
            cluster.sent_packets = cluster.sent_packets.saturating_add(1);
            cluster.sent_bytes = cluster.sent_bytes.saturating_add(bytes as u64);
            cluster.last_sent_us = at_us;
        }
    }

    /// A packet of a cluster arrived.
    pub(super) fn arrived(&mut self, sent: &Sent, at: i64) {
        if let Some(cluster) =
            self.cluster.as_mut().filter(|cluster| cluster.probe.id == sent.probe)
        {
            cluster.take(sent, at);
        }
    }

    /// What the cluster on its way told, once enough of it arrived.
    pub(super) fn outcome(&mut self, around: &Circumstances) -> Option<Outcome> {
        let cluster = self.cluster.filter(|cluster| {
            cluster.is_sent() && (cluster.is_enough(around) || cluster.is_settled(around))
        })?;
        self.cluster = None;
        let outcome = cluster.outcome(around.inherent).filter(|_| cluster.packets >= FEWEST);
        if outcome.is_some_and(|outcome| outcome.bps >= SUCCESS * cluster.probe.bps as f64) {
            self.due_us = around.at_us;
            self.pause_us = FIRST_PAUSE_US;
            self.onward = true;
        } else {
            self.failed(around.at_us);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(at_ms: u64, estimate: f64, wanted: f64) -> Circumstances {
        Circumstances {
            at_us: at_ms * 1_000,
            estimate,
            wanted: Some(wanted),
            calm: true,
            inherent: 0.0,
            round_trip_us: 50_000,
            jitter_us: 0.0,
            newest_us: 0,
        }
    }

    /// Sends a cluster of five packets through a link of `carried` bit/s; every `lose`th is lost.
    fn pass(prober: &mut Prober, probe: Probe, from_ms: u64, carried: f64, lose: u64) {
        let bytes = 500_u64.max(probe.bytes as u64 / 10);
        let count = (probe.bytes as u64).div_ceil(bytes).max(u64::from(probe.packets));
        let gap = |bps: f64| (bytes as f64 * 8e6 / bps) as u64;
        for step in 0..count {
            let at_us = from_ms * 1_000 + step * gap(probe.bps as f64);
            prober.sent(probe.id, at_us, bytes as usize);
            let arrived = from_ms * 1_000 + step * gap((probe.bps as f64).min(carried));
            if lose == 0 || step % lose != 1 {
                let sent = Sent::probing(at_us, bytes as u16, probe.id);
                prober.arrived(&sent, arrived as i64 + 77_000_000);
            }
        }
    }

    #[test]
    fn a_free_link_is_known_in_three_clusters() {
        let mut prober = Prober::new();
        let mut estimate = 300_000.0;
        for (round, expected) in [(0, 900_000.0), (1, 1_800_000.0), (2, 2_750_000.0)] {
            let now = around(round * 150, estimate, 2_000_000.0);
            let probe = prober.poll(&now).unwrap();
            assert!((probe.bps as f64 - expected).abs() < 2_000.0, "{probe:?}");
            assert_eq!(prober.poll(&now), None, "one at a time");
            pass(&mut prober, probe, round * 150, 1e8, 0);
            let outcome = prober.outcome(&now).unwrap();
            assert!(!outcome.full && (outcome.bps / expected - 1.0).abs() < 0.02, "{outcome:?}");
            estimate = outcome.bps;
        }
        assert_eq!(prober.poll(&around(1_000, estimate, 2_000_000.0)), None, "enough");
    }

    #[test]
    fn a_full_link_tells_its_rate_and_is_left_alone_for_a_while() {
        let mut prober = Prober::new();
        let probe = prober.poll(&around(0, 300_000.0, 2_000_000.0)).unwrap();
        pass(&mut prober, probe, 0, 200_000.0, 0);
        let outcome = prober.outcome(&around(200, 300_000.0, 2_000_000.0)).unwrap();
        assert!(outcome.full && (185_000.0..=191_000.0).contains(&outcome.bps), "{outcome:?}");
        assert_eq!(prober.poll(&around(900, 190_000.0, 2_000_000.0)), None);
        assert!(prober.poll(&around(1_300, 190_000.0, 2_000_000.0)).is_some());
        // Never answered: given up.
        assert_eq!(prober.poll(&around(2_500, 190_000.0, 2_000_000.0)), None);
        assert!(prober.poll(&around(4_500, 190_000.0, 2_000_000.0)).is_some());
    }

    #[test]
    fn losses_that_are_known_do_not_spoil_a_cluster() {
        let mut prober = Prober::new();
        let mut now = around(0, 300_000.0, 2_000_000.0);
        let probe = prober.poll(&now).unwrap();
        pass(&mut prober, probe, 0, 1e8, 4);
        assert_eq!(prober.outcome(&now), None, "more may come");
        now.inherent = 0.25;
        let outcome = prober.outcome(&now).unwrap();
        assert!((700_000.0..=1_080_000.0).contains(&outcome.bps), "{outcome:?}");
    }
}
