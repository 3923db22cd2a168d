//! What was sent, by transport-wide number, until its fate is known.

/// Packets remembered. At 20 Mbit/s that is a second, at 2 Mbit/s eight.
const RING: u64 = 2048;
/// A run of losses that covers more time than this is an outage of the link, and says nothing of how
/// much it carries.
const OUTAGE_MICROS: u64 = 350_000;
/// What is told lost may still arrive out of order: its loss counts once a packet sent this much
/// later has arrived.
const REORDER_MICROS: u64 = 120_000;

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// No feedback told of it.
    Unknown,
    Missing,
    Received,
}

/// One packet on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// When it was sent, since the estimator's start.
    pub(super) at_us: u64,
    /// Bytes of the datagram.
    pub(super) bytes: u16,
    /// The probe cluster it belongs to; 0 = none.
    pub(super) probe: u32,
    fate: Fate,
}

const NOTHING: Sent = Sent { at_us: 0, bytes: 0, probe: 0, fate: Fate::Unknown };

#[cfg(test)]
impl Sent {
    /// A packet of a probe.
    pub(super) const fn probing(at_us: u64, bytes: u16, probe: u32) -> Self {
        Self { at_us, bytes, probe, fate: Fate::Unknown }
    }
}

/// What the packets whose fate was settled lately amount to.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Settled {
    pub(super) packets: u32,
    pub(super) lost: u32,
    pub(super) bytes: u64,
    pub(super) lost_bytes: u64,
    /// Send times of the first and the last of them.
    pub(super) first_us: u64,
    pub(super) last_us: u64,
}

/// The ring of sent packets.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Made with the first packet.
    ring: Box<[Sent]>,
    /// The next number, unwrapped.
    next: u64,
    /// First number whose fate is not settled.
    unsettled: u64,
    /// One past the highest number told received.
    acknowledged: u64,
    /// When the newest received packet was sent.
    newest_us: u64,
    /// Losses in a row at the settled end, and what they amount to: an outage or plain loss.
    run: Settled,
}

impl History {
    /// Notes a packet and gives its number.
    pub(super) fn push(&mut self, at_us: u64, bytes: usize, probe: u32) -> u16 {
        if self.ring.is_empty() {
            self.ring = vec![NOTHING; RING as usize].into_boxed_slice();
        }
        let number = self.next;
        self.next += 1;
        self.unsettled = self.unsettled.max(self.next.saturating_sub(RING));
        if let Some(slot) = self.ring.get_mut((number % RING) as usize) {
            *slot = Sent {
                at_us,
                bytes: bytes.min(usize::from(u16::MAX)) as u16,
                probe,
                fate: Fate::Unknown,
            };
        }
        number as u16
    }

    /// The unwrapped number that `number` means: the latest one sent. `None` for what was never sent
    /// or is forgotten.
    fn unwrap(&self, number: u16) -> Option<u64> {
        let newest = self.next.checked_sub(1)?;
        let back = u64::from((newest as u16).wrapping_sub(number));
        (back < RING).then(|| newest.checked_sub(back))?
    }

    /// A packet arrived. Gives it back the first time this is told.
    pub(super) fn received(&mut self, number: u16) -> Option<Sent> {
        let at = self.unwrap(number)?;
        let sent = self.ring.get_mut((at % RING) as usize)?;
        if sent.fate == Fate::Received {
            return None;
        }
        sent.fate = Fate::Received;
        let sent = *sent;
        self.acknowledged = self.acknowledged.max(at + 1);
        self.newest_us = self.newest_us.max(sent.at_us);
        Some(sent)
    }

    /// A packet did not arrive (yet).
    pub(super) fn missing(&mut self, number: u16) {
        let Some(at) = self.unwrap(number) else { return };
        if let Some(sent) = self.ring.get_mut((at % RING) as usize)
            && sent.fate == Fate::Unknown
        {
            sent.fate = Fate::Missing;
        }
    }

    /// Settles what is old enough, and tells what it amounts to. Packets that no feedback told of do
    /// not count, nor do outages.
    pub(super) fn settle(&mut self) -> Settled {
        let mut settled = Settled::default();
        let until = self.newest_us.saturating_sub(REORDER_MICROS);
        while self.unsettled < self.acknowledged {
            let Some(sent) = self.ring.get((self.unsettled % RING) as usize) else { break };
            if sent.at_us > until {
                break;
            }
            match sent.fate {
                Fate::Unknown => {}
                Fate::Missing => self.run.add(sent, true),
                Fate::Received => {
                    let run = std::mem::take(&mut self.run);
                    if run.last_us.saturating_sub(run.first_us) < OUTAGE_MICROS {
                        settled.join(&run);
                    }
                    settled.add(sent, false);
                }
            }
            self.unsettled += 1;
        }
        settled
    }

    /// When the newest packet that arrived was sent.
    pub(super) const fn newest_us(&self) -> u64 {
        self.newest_us
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(super) const fn footprint(&self) -> usize {
        self.ring.len() * size_of::<Sent>()
    }

    /// Whether nothing was sent yet.
    pub(super) const fn is_empty(&self) -> bool {
        self.next == 0
    }

    /// When the oldest packet was sent that nothing acknowledged, if there is one.
    pub(super) fn waiting_since(&self) -> Option<u64> {
        let oldest = self.acknowledged.max(self.next.saturating_sub(RING));
        (oldest < self.next)
            .then(|| self.ring.get((oldest % RING) as usize))?
            .map(|sent| sent.at_us)
    }
}

impl Settled {
    fn add(&mut self, sent: &Sent, lost: bool) {
        let one = Self {
            packets: 1,
            lost: u32::from(lost),
            bytes: u64::from(sent.bytes),
            lost_bytes: if lost { u64::from(sent.bytes) } else { 0 },
            first_us: sent.at_us,
            last_us: sent.at_us,
        };
        self.join(&one);
    }

    /// Takes in what came later.
    pub(super) const fn join(&mut self, later: &Self) {
        if later.packets == 0 {
            return;
        }
        if self.packets == 0 {
            self.first_us = later.first_us;
        }
        self.last_us = later.last_us;
        self.packets += later.packets;
        self.lost += later.lost;
        self.bytes += later.bytes;
        self.lost_bytes += later.lost_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(history: &mut History, count: u64) {
        for step in 0..count {
            history.push(step * 10_000, 1_000, 0);
        }
    }

    #[test]
    fn each_packet_arrives_once_and_what_was_not_sent_never_does() {
        let mut history = History::default();
        assert!(history.received(0).is_none() && history.waiting_since().is_none());
        sent(&mut history, 70_000);
        let newest = 69_999_u64 as u16;
        assert!(history.received(newest.wrapping_add(1)).is_none());
        assert!(history.received(newest.wrapping_sub(RING as u16)).is_none());
        assert_eq!(history.received(newest - 1).unwrap().at_us, 699_980_000);
        assert!(history.received(newest - 1).is_none());
        assert_eq!(history.waiting_since(), Some(699_990_000));
    }

    #[test]
    fn reordering_is_no_loss_and_neither_is_an_outage() {
        let mut history = History::default();
        sent(&mut history, 200);
        for number in 0..100 {
            if number % 10 == 3 || (40..80).contains(&number) {
                history.missing(number);
            } else {
                history.received(number);
            }
        }
        history.received(13);
        let settled = history.settle();
        assert_eq!((settled.packets, settled.lost), (48, 4));
        // Later than counted: no second count.
        history.received(23);
        assert_eq!(history.settle().packets, 0);
        // What no feedback told of does not count.
        history.received(150);
        assert_eq!(history.settle().lost, 1);
    }
}
