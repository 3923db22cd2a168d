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
    fate: Fate,
}

const NOTHING: Sent = Sent { at_us: 0, bytes: 0, fate: Fate::Unknown };

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
    pub(super) fn push(&mut self, at_us: u64, bytes: usize) -> u16 {
        if self.ring.is_empty() {
            self.ring = vec![NOTHING; RING as usize].into_boxed_slice();
        }
        let number = self.next;
        self.next += 1;
        self.unsettled = self.unsettled.max(self.next.saturating_sub(RING));
        if let Some(slot) = self.ring.get_mut((number % RING) as usize) {
            *slot =
                Sent { at_us, bytes: bytes.min(usize::from(u16::MAX)) as u16, fate: Fate::Unknown };
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
                    if run.last_us - run.first_us < OUTAGE_MICROS {
                        settled.join(&run);
                    }
                    settled.add(sent, false);
                }
            }
            self.unsettled += 1;
        }
        settled
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
