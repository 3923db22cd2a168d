//! One direction of a link: what happens to each packet, and when it arrives.
//!
//! Pure: time and sizes come in, fates go out.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;

use crate::loss::{Loss, stream, unit};
use crate::profile::{Conditions, Timeline, millis};

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives at that moment.
    Passes(Duration),
    /// It arrives twice, at that moment.
    Doubled(Duration),
    /// It arrives at that moment, later than some that were sent after it.
    Overtaken(Duration),
    /// The loss model took it.
    Lost,
    /// The queue in front of the rate was full.
    QueueFull,
    /// Nothing passes at this time.
    Dark,
}

impl Fate {
    /// When it arrives, if it does.
    pub(crate) const fn due(self) -> Option<Duration> {
        match self {
            Self::Passes(due) | Self::Doubled(due) | Self::Overtaken(due) => Some(due),
            Self::Lost | Self::QueueFull | Self::Dark => None,
        }
    }

    /// Its name in the packet log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Passes(_) => "passes",
            Self::Doubled(_) => "doubled",
            Self::Overtaken(_) => "overtaken",
            Self::Lost => "lost",
            Self::QueueFull => "queue full",
            Self::Dark => "dark",
        }
    }
}

/// The state of one direction. Times are counted from the start of the run.
pub(crate) struct Channel {
    timeline: Timeline,
    /// Moment that counts as 0 s in the profile.
    zero: Duration,
    loss: Loss,
    jitter: ChaCha8Rng,
    order: ChaCha8Rng,
    /// When the last packet has left the queue in front of the rate.
    busy_until: Duration,
    rate_kbit: f64,
    last_due: Duration,
}

impl Channel {
    /// `number` tells the directions of one run apart: each has losses of its own.
    pub(crate) fn new(timeline: Timeline, seed: u64, number: u64) -> Self {
        let streams = number * 4;
        Self {
            timeline,
            zero: Duration::ZERO,
            loss: Loss::new(stream(seed, streams)),
            jitter: stream(seed, streams + 1),
            order: stream(seed, streams + 2),
            busy_until: Duration::ZERO,
            rate_kbit: 0.0,
            last_due: Duration::ZERO,
        }
    }

    /// Counts the profile's times from this moment on.
    pub(crate) fn restart(&mut self, now: Duration) {
        self.zero = now;
    }

    /// A packet comes in.
    pub(crate) fn offer(&mut self, now: Duration, bytes: usize) -> Fate {
        let moment = now.saturating_sub(self.zero);
        let conditions = self.timeline.at(moment).cloned().unwrap_or_default();
        // All numbers are drawn for each packet, so that a decision moves no other one.
        let lost = self.loss.next(&conditions);
        let jitter = unit(&mut self.jitter) * 2.0 - 1.0;
        let (overtaken, doubled) = (unit(&mut self.order), unit(&mut self.order));
        if self.timeline.is_dark(moment) {
            return Fate::Dark;
        }
        let Some(sent) = self.queue(now, bytes, &conditions) else {
            return Fate::QueueFull;
        };
        // What is lost on the air has used the rate before.
        if lost {
            return Fate::Lost;
        }
        let due = sent + millis(conditions.delay_ms + conditions.jitter_ms * jitter);
        let due = due.max(self.last_due);
        if overtaken < conditions.reorder_percent / 100.0 {
            let held = if conditions.reorder_ms > 0.0 { conditions.reorder_ms } else { 20.0 };
            return Fate::Overtaken(due + millis(held));
        }
        self.last_due = due;
        if doubled < conditions.duplicate_percent / 100.0 {
            return Fate::Doubled(due);
        }
        Fate::Passes(due)
    }

    /// When the packet has left the queue; none if it does not fit in.
    fn queue(&mut self, now: Duration, bytes: usize, conditions: &Conditions) -> Option<Duration> {
        let waiting = self.busy_until.saturating_sub(now);
        let mut waiting = waiting;
        #[expect(clippy::float_cmp, reason = "a value that was copied, not computed")]
        let changed = conditions.rate_kbit != self.rate_kbit;
        if changed {
            // The bytes that wait stay; the time they take is another.
            waiting = if self.rate_kbit > 0.0 && conditions.rate_kbit > 0.0 {
                waiting.mul_f64(self.rate_kbit / conditions.rate_kbit)
            } else {
                Duration::ZERO
            };
            self.rate_kbit = conditions.rate_kbit;
        }
        if conditions.rate_kbit <= 0.0 {
            return Some(now);
        }
        if waiting > conditions.queue() {
            self.busy_until = now + waiting;
            return None;
        }
        self.busy_until = now + waiting + millis(bytes as f64 * 8.0 / conditions.rate_kbit);
        Some(self.busy_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    const MS: Duration = Duration::from_millis(1);

    fn channel(text: &str, seed: u64) -> Channel {
        let profile = Profile::parse(text).unwrap();
        Channel::new(profile.links[0].up.clone(), seed, 0)
    }

    #[test]
    fn delay_and_jitter_keep_the_order() {
        let mut channel = channel("[both]\ndelay_ms = 60\njitter_ms = 20", 1);
        let mut last = Duration::ZERO;
        let mut delays = Vec::new();
        for at in (0..20_000).map(|n| MS * n * 10) {
            let Fate::Passes(due) = channel.offer(at, 100) else { panic!("it did not pass") };
            assert!(due >= last);
            last = due;
            delays.push((due - at).as_secs_f64() * 1000.0);
        }
        let mean = delays.iter().sum::<f64>() / delays.len() as f64;
        // Keeping the order only ever delays.
        assert!((60.0..68.0).contains(&mean), "{mean}");
        assert!(delays.iter().all(|delay| (39.9..80.1).contains(delay)));
    }

    #[test]
    fn the_queue_delays_and_then_drops() {
        let mut channel = channel("[both]\nrate_kbit = 200\nqueue_ms = 300", 1);
        // 1000 bytes take 40 ms at 200 kbit/s; 50 of them come at once.
        let fates: Vec<Fate> = (0..50).map(|_| channel.offer(Duration::ZERO, 1000)).collect();
        assert_eq!(fates[0], Fate::Passes(40 * MS));
        assert_eq!(fates[7], Fate::Passes(320 * MS));
        assert!(fates[8..].iter().all(|fate| *fate == Fate::QueueFull), "{fates:?}");
        // When it has drained, packets pass again.
        assert_eq!(channel.offer(1000 * MS, 1000), Fate::Passes(1040 * MS));
    }

    #[test]
    fn the_rate_is_kept_over_time() {
        let mut channel = channel("[both]\nrate_kbit = 300", 1);
        let passed = (0..10_000)
            .filter(|n| channel.offer(MS * *n, 500).due().is_some_and(|due| due < 10_000 * MS))
            .count();
        assert!((748..=752).contains(&passed), "{passed} packets of 4 kbit in 10 s");
    }

    #[test]
    fn what_waits_at_a_step_takes_the_new_rate() {
        let mut channel =
            channel("[both]\nrate_kbit = 2000\nstep = [{ at_s = 1, rate_kbit = 200 }]", 1);
        let at = 999 * MS;
        // 25 ms of queue at 2 Mbit/s are 250 ms at 200 kbit/s.
        for _ in 0..5 {
            channel.offer(at, 1250);
        }
        let Fate::Passes(due) = channel.offer(1000 * MS, 1250) else { panic!("dropped") };
        assert_eq!((due - 1000 * MS).as_millis(), 240 + 50);
    }

    #[test]
    fn reordered_packets_are_overtaken() {
        let mut channel = channel("[both]\ndelay_ms = 10\nreorder_percent = 10", 1);
        let fates: Vec<Fate> = (0..10_000).map(|n| channel.offer(MS * n, 100)).collect();
        let overtaken = fates.iter().filter(|f| matches!(f, Fate::Overtaken(_))).count();
        assert!((900..1100).contains(&overtaken), "{overtaken}");
        let late = fates.windows(2).filter(|w| w[0].due() > w[1].due()).count();
        assert!(late > 700, "{late}");
    }

    #[test]
    fn some_packets_come_twice() {
        let mut channel = channel("[both]\nduplicate_percent = 25", 1);
        let doubled =
            (0..10_000).filter(|n| matches!(channel.offer(MS * *n, 100), Fate::Doubled(_))).count();
        assert!((2300..2700).contains(&doubled), "{doubled}");
    }

    #[test]
    fn nothing_passes_in_the_dark() {
        let mut channel = channel("[both]\nblackhole = [{ at_s = 2, for_s = 1 }]", 1);
        channel.restart(500 * MS);
        assert_eq!(channel.offer(2400 * MS, 100), Fate::Passes(2400 * MS));
        assert_eq!(channel.offer(2500 * MS, 100), Fate::Dark);
        assert_eq!(channel.offer(3499 * MS, 100), Fate::Dark);
        assert_eq!(channel.offer(3500 * MS, 100), Fate::Passes(3500 * MS));
    }

    #[test]
    fn time_does_not_move_the_losses() {
        let lost = |step: Duration, jitter: &str| -> Vec<bool> {
            let text = format!("[both]\nloss_percent = 20\nburst = 3\njitter_ms = {jitter}");
            let mut channel = channel(&text, 9);
            (0..5000).map(|n| channel.offer(step * n, 100) == Fate::Lost).collect()
        };
        assert_eq!(lost(MS, "0"), lost(7 * MS, "30"));
    }

    #[test]
    fn directions_lose_different_packets() {
        let profile = Profile::parse("[both]\nloss_percent = 20").unwrap();
        let lost = |number| -> Vec<bool> {
            let mut channel = Channel::new(profile.links[0].up.clone(), 5, number);
            (0..1000).map(|_| channel.offer(MS, 100) == Fate::Lost).collect()
        };
        assert_ne!(lost(0), lost(1));
    }
}
