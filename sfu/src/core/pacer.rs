//! When packets to one receiver may leave.
//!
//! A virtual clock says when all that was sent would be through at the pacing rate. While it is no more
//! than a burst ahead, video leaves at once; else it waits here, unsealed and unnumbered, in order. Audio
//! and repair never wait, but move the clock. A queue that has grown old is given up as a whole: a
//! picture that stands for a moment is better than one that is late for good.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::bwe::Probe;

/// Bytes that wait at the most.
const BYTES: usize = 256 << 10;
/// Packets that wait at the most.
const SLOTS: usize = 512;
/// No packet waits longer.
const OLDEST: Duration = Duration::from_millis(400);
/// What leaves at once, as time at the pacing rate …
const BURST: Duration = Duration::from_millis(5);
/// … but never less than this: a packet or two.
const BURST_BYTES: usize = 2_400;
/// A turn that comes so much late, at the most, is made up for in a probe.
const LATE: Duration = Duration::from_millis(5);
/// The least distance of two turns.
const TURN: Duration = Duration::from_millis(2);
/// Repair that may come at once, as time at the rate of repair.
const REPAIR_BURST: Duration = Duration::from_millis(400);
/// The rate of repair is never lower: the voice and a small picture can be repaired.
const LEAST_REPAIR_BPS: u64 = 100_000;

/// The pacer of one link. Takes no memory before something waits.
#[derive(Debug)]
pub(super) struct Pacer {
    /// Bits in a second; 0 = nothing is known, so nothing waits.
    rate_bps: u64,
    clock: Instant,
    repair_bps: u64,
    repair_clock: Instant,
    next_turn: Instant,
    queue: Queue,
    probe: Option<Running>,
}

/// A probe being sent.
#[derive(Clone, Copy, Debug)]
struct Running {
    id: u32,
    bps: u64,
    bytes: usize,
    packets: u32,
    clock: Instant,
}

/// What waits, first in, first out: packets in a ring of bytes.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    slots: VecDeque<Slot>,
    end: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    since: Instant,
    start: usize,
    len: usize,
    header: usize,
}

/// A packet whose turn has come, in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting<'q> {
    /// The whole packet.
    pub(super) packet: &'q [u8],
    /// Length of its header.
    pub(super) header: usize,
}

impl Pacer {
    /// A pacer without a limit.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            rate_bps: 0,
            clock: now,
            repair_bps: 0,
            repair_clock: now,
            next_turn: now,
            queue: Queue::default(),
            probe: None,
        }
    }

    /// From now on so many bits in a second may leave, and so many of repair; 0 = no limit.
    pub(super) fn set_rates(&mut self, now: Instant, rate_bps: u64, repair_bps: u64) {
        let before = std::mem::replace(&mut self.rate_bps, rate_bps);
        self.repair_bps = if repair_bps == 0 { 0 } else { repair_bps.max(LEAST_REPAIR_BPS) };
        let ahead = self.clock.saturating_duration_since(now);
        self.clock = if rate_bps == 0 || before == 0 {
            now
        } else {
            now + ahead.mul_f64((before as f64 / rate_bps as f64).min(10.0))
        };
    }

    /// Whether video may leave at once.
    pub(super) fn passes(&self, now: Instant) -> bool {
        self.queue.slots.is_empty() && self.is_free(now)
    }

    /// Whether repair may leave.
    pub(super) fn repair_passes(&self, now: Instant) -> bool {
        self.repair_bps == 0 || self.repair_clock <= now + REPAIR_BURST
    }

    /// A packet of `len` bytes leaves. Returns the probe it belongs to.
    pub(super) fn left(&mut self, now: Instant, len: usize) -> Option<u32> {
        if self.rate_bps > 0 {
            self.clock = self.clock.max(now) + airtime(len, self.rate_bps);
        }
        let probe = self.probe.as_mut()?;
        let id = probe.id;
        // A turn that came late is made up for: else the probe would not be as fast as it says.
        let late = now.checked_sub(LATE).unwrap_or(now);
        probe.clock = probe.clock.max(late) + airtime(len, probe.bps);
        probe.bytes = probe.bytes.saturating_sub(len);
        probe.packets = probe.packets.saturating_sub(1);
        if (probe.bytes, probe.packets) == (0, 0) {
            self.probe = None;
        }
        Some(id)
    }

    /// It was repair.
    pub(super) fn repaired(&mut self, now: Instant, len: usize) {
        if self.repair_bps > 0 {
            self.repair_clock = self.repair_clock.max(now) + airtime(len, self.repair_bps);
        }
    }

    /// Makes a packet wait. `false`: there is no room.
    pub(super) fn push(&mut self, now: Instant, packet: &[u8], header: usize) -> bool {
        if self.queue.slots.is_empty() {
            self.next_turn = now + TURN;
        }
        self.queue.push(now, packet, header)
    }

    /// Whether what waits is too old to be sent.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        let oldest = self.queue.slots.front();
        oldest.is_some_and(|slot| now.saturating_duration_since(slot.since) > OLDEST)
    }

    /// Whether the packet that waits longest may leave.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        !self.queue.slots.is_empty() && self.is_free(now)
    }

    /// Ends a turn: the next one is a little later.
    pub(super) fn turned(&mut self, now: Instant) {
        self.next_turn = now + TURN;
    }

    /// Takes the packet that waits longest.
    pub(super) fn pop(&mut self) -> Option<Waiting<'_>> {
        let slot = self.queue.slots.pop_front()?;
        let packet = self.queue.bytes.get(slot.start..slot.start + slot.len)?;
        Some(Waiting { packet, header: slot.header })
    }

    /// Begins a probe.
    pub(super) fn begin(&mut self, now: Instant, probe: Probe) {
        let Probe { id, bps, bytes, packets } = probe;
        self.probe = Some(Running { id, bps: bps.max(1), bytes, packets, clock: now });
    }

    /// Whether a probe is being sent.
    pub(super) const fn is_probing(&self) -> bool {
        self.probe.is_some()
    }

    /// Ends the probe, whatever it lacks.
    pub(super) fn give_up_probe(&mut self) {
        self.probe = None;
    }

    /// Whether the probe wants padding now, and how much at the most.
    pub(super) fn padding(&self, now: Instant) -> Option<usize> {
        let probe = self.probe.as_ref()?;
        let due = self.queue.slots.is_empty() && probe.clock <= now;
        due.then_some(probe.bytes)
    }

    /// When the next packet may leave, or the next padding.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.queue.slots.is_empty() {
            return self.probe.map(|probe| probe.clock);
        }
        let clock = self.probe.map_or(self.clock, |probe| probe.clock.min(self.clock));
        let free = clock.checked_sub(self.burst()).unwrap_or(clock);
        let oldest = self.queue.slots.front().map(|slot| slot.since + OLDEST + TURN);
        oldest.map(|oldest| oldest.min(free.max(self.next_turn)))
    }

    /// Whether the clock is no more than a burst ahead. While a probe runs, what waits is its load.
    fn is_free(&self, now: Instant) -> bool {
        let clock = self.probe.map_or(self.clock, |probe| probe.clock.min(self.clock));
        self.rate_bps == 0 || clock <= now + self.burst()
    }

    fn burst(&self) -> Duration {
        BURST.max(airtime(BURST_BYTES, self.rate_bps.max(1)).min(OLDEST / 4))
    }
}

impl Queue {
    fn push(&mut self, now: Instant, packet: &[u8], header: usize) -> bool {
        if self.bytes.is_empty() {
            self.bytes = vec![0; BYTES];
            self.slots.reserve_exact(SLOTS);
        }
        let len = packet.len();
        let Some(start) = self.place(len).filter(|_| self.slots.len() < SLOTS) else {
            return false;
        };
        let Some(place) = self.bytes.get_mut(start..start + len) else { return false };
        place.copy_from_slice(packet);
        self.end = start + len;
        self.slots.push_back(Slot { since: now, start, len, header });
        true
    }

    /// Where a packet fits in one piece.
    fn place(&self, len: usize) -> Option<usize> {
        let Some(oldest) = self.slots.front() else {
            // From the start again, so that a short queue stays in few pages of memory.
            return (len <= BYTES).then_some(0);
        };
        let wrapped = self.end <= oldest.start;
        if wrapped {
            return (self.end + len <= oldest.start).then_some(self.end);
        }
        if self.end + len <= BYTES {
            return Some(self.end);
        }
        (len <= oldest.start).then_some(0)
    }
}

/// How long so many bytes take.
fn airtime(bytes: usize, bps: u64) -> Duration {
    Duration::from_nanos((bytes as u64 * 8).saturating_mul(1_000_000_000) / bps.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: [u8; 1_200] = [7; 1_200];

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Sends or keeps a packet as a link does.
    fn offer(pacer: &mut Pacer, now: Instant, packet: &[u8]) -> bool {
        if pacer.passes(now) {
            pacer.left(now, packet.len());
            return true;
        }
        assert!(pacer.push(now, packet, 12));
        false
    }

    /// Takes what may leave until `end`; when each left.
    fn drain(pacer: &mut Pacer, mut now: Instant, end: Instant) -> Vec<(Instant, usize)> {
        let mut out = Vec::new();
        while let Some(due) = pacer.due().filter(|due| *due <= end) {
            now = now.max(due);
            while pacer.is_ready(now) {
                let len = pacer.pop().unwrap().packet.len();
                pacer.left(now, len);
                out.push((now, len));
            }
            pacer.turned(now);
        }
        out
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        assert!((0..1_000).all(|_| offer(&mut pacer, now, &PACKET)));
        assert_eq!(pacer.due(), None);
        assert!(pacer.repair_passes(now));
    }

    #[test]
    fn a_burst_passes_and_the_rest_leaves_at_the_rate() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start);
        pacer.set_rates(start, 960_000, 0);
        let at_once = (0..50).filter(|_| offer(&mut pacer, start, &PACKET)).count();
        assert_eq!(at_once, 3, "20 ms of packets of 10 ms, and the one that overshoots");
        let left = drain(&mut pacer, start, start + ms(350));
        for (at, _) in &left {
            let before = left.iter().filter(|(other, _)| other <= at).count() + at_once;
            let allowed = 3 + at.duration_since(start).as_millis() as usize / 10;
            assert!(before <= allowed, "{before} packets by {:?}", at.duration_since(start));
        }
        assert_eq!(left.len(), 35, "one each 10 ms");
        assert_eq!(pacer.queue.slots.len(), 12);
    }

    #[test]
    fn audio_moves_the_clock_and_never_waits() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        pacer.set_rates(now, 960_000, 0);
        for _ in 0..10 {
            pacer.left(now, 1_200);
        }
        assert!(!pacer.passes(now));
        assert!(!pacer.passes(now + ms(79)));
        assert!(pacer.passes(now + ms(80)));
    }

    #[test]
    fn a_new_rate_counts_for_what_was_sent() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        pacer.set_rates(now, 96_000, 0);
        pacer.left(now, 12_000);
        pacer.set_rates(now, 9_600_000, 0);
        assert!(pacer.passes(now + ms(5)), "1 s has become 10 ms");
        pacer.set_rates(now, 0, 0);
        assert!(pacer.passes(now));
    }

    #[test]
    fn what_waits_keeps_its_order_and_its_bytes() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start);
        pacer.set_rates(start, 1_000, 0);
        let (mut pushed, mut popped) = (0u32, 0u32);
        let mut refused = 0;
        for step in 0..5_000u32 {
            let packet = vec![pushed as u8; 100 + (step as usize * 577) % 1_300];
            if step % 1_000 < 600 {
                if pacer.push(start, &packet, 20) { pushed += 1 } else { refused += 1 }
            } else if let Some(waiting) = pacer.pop() {
                assert!(waiting.packet.iter().all(|byte| *byte == popped as u8));
                assert_eq!(waiting.header, 20);
                popped += 1;
            }
        }
        assert!(refused > 0 && popped > 1_000);
        while pacer.pop().is_some() {
            popped += 1;
        }
        assert_eq!(pushed, popped);
    }

    #[test]
    fn a_queue_grows_old() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start);
        pacer.set_rates(start, 10_000, 0);
        pacer.push(start, &PACKET, 12);
        assert!(!pacer.is_stale(start + OLDEST));
        assert!(pacer.is_stale(start + OLDEST + ms(1)));
        assert!(
            pacer.due().unwrap() <= start + OLDEST + TURN,
            "even when the rate is next to nothing"
        );
    }

    #[test]
    fn repair_has_its_own_rate() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        pacer.set_rates(now, 2_000_000, 800_000);
        let mut sent = 0;
        for step in 0..1_000 {
            let at = now + ms(step);
            for _ in 0..5 {
                if pacer.repair_passes(at) {
                    pacer.repaired(at, 1_000);
                    sent += 1;
                }
            }
        }
        assert!((138..=142).contains(&sent), "{sent}: 100 in a second and 40 at once");
    }

    #[test]
    fn a_probe_is_sent_at_its_rate_and_counts_media() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start);
        pacer.set_rates(start, 500_000, 0);
        pacer.begin(start, Probe { id: 9, bps: 2_000_000, bytes: 5_000, packets: 5 });
        let (mut now, mut sent) = (start, 0);
        while let Some(due) = pacer.due() {
            now = now.max(due);
            assert!(pacer.padding(now).is_some());
            assert_eq!(pacer.left(now, 250), Some(9));
            sent += 250;
        }
        assert_eq!(sent, 5_000);
        assert_eq!(now - start, ms(19), "20 packets of 1 ms each");
        assert_eq!(pacer.left(now, 250), None);
        pacer.begin(now, Probe { id: 10, bps: 2_000_000, bytes: 1_000, packets: 1 });
        assert_eq!(pacer.left(now, 1_200), Some(10), "media are a probe's load too");
        assert!(!pacer.is_probing());
    }

    #[test]
    fn a_probe_is_as_fast_as_it_says_though_turns_come_late() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start);
        pacer.begin(start, Probe { id: 1, bps: 3_000_000, bytes: 15_000, packets: 5 });
        let mut now = start;
        while pacer.is_probing() {
            now += Duration::from_millis(3);
            while let Some(left) = pacer.padding(now) {
                pacer.left(now, left.min(240));
            }
        }
        assert!(now - start <= Duration::from_millis(45), "{:?} for 40 ms", now - start);
    }
}
