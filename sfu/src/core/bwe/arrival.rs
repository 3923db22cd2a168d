//! Packets sent in one breath belong together: what the link does to them is seen from the time
//! between such groups, at the sender and at the receiver (draft-ietf-rmcat-gcc-02 §5.2–5.3).

/// Packets sent within this time are one group.
const GROUP_US: u64 = 5_000;
/// Packets that arrive closer than this, earlier than their sending asks for, were held back
/// together on the way: they are one group, too …
const BURST_US: i64 = 5_000;
/// … unless the group gets longer than this.
const BURST_MAX_US: i64 = 100_000;
/// A change of the delay as big as this between neighbours is an outage or another path: no trend.
const JUMP_US: i64 = 500_000;

/// How two neighbouring groups lie apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gap {
    /// Sent and arrived so far apart, in microseconds; when the later group arrived.
    Known { sent: i64, arrived: i64, at: i64 },
    /// The times do not go on from those before: what was learned of the trend is void.
    Broken,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent: u64,
    last_sent: u64,
    first_arrived: i64,
    last_arrived: i64,
}

impl Group {
    const fn of(sent: u64, arrived: i64) -> Self {
        Self { first_sent: sent, last_sent: sent, first_arrived: arrived, last_arrived: arrived }
    }

    const fn takes(&self, sent: u64, arrived: i64) -> bool {
        if sent.saturating_sub(self.first_sent) <= GROUP_US {
            return true;
        }
        let since_sent = sent.saturating_sub(self.last_sent) as i64;
        let since_arrived = arrived.saturating_sub(self.last_arrived);
        since_arrived < since_sent
            && since_arrived <= BURST_US
            && arrived.saturating_sub(self.first_arrived) < BURST_MAX_US
    }
}

/// The group being filled and the one before.
#[derive(Default, Debug)]
pub(super) struct Arrivals {
    current: Option<Group>,
    previous: Option<Group>,
}

impl Arrivals {
    /// Takes in one packet, in the order of sending; tells the gap once a group is complete.
    pub(super) fn packet(&mut self, sent: u64, arrived: i64) -> Option<Gap> {
        let Some(current) = &mut self.current else {
            self.current = Some(Group::of(sent, arrived));
            return None;
        };
        if sent < current.first_sent {
            return None;
        }
        if current.takes(sent, arrived) {
            current.last_sent = current.last_sent.max(sent);
            current.last_arrived = current.last_arrived.max(arrived);
            return None;
        }
        let complete = *current;
        self.current = Some(Group::of(sent, arrived));
        let before = self.previous.replace(complete)?;
        let gap = complete.last_sent.saturating_sub(before.last_sent) as i64;
        let arrived = complete.last_arrived.saturating_sub(before.last_arrived);
        if arrived.saturating_sub(gap).saturating_abs() > JUMP_US {
            return Some(Gap::Broken);
        }
        // Groups that overtook each other tell nothing of a queue.
        (arrived >= 0).then_some(Gap::Known { sent: gap, arrived, at: complete.last_arrived })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_made_by_sending_time() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.packet(0, 100_000), None);
        assert_eq!(arrivals.packet(2_000, 103_000), None, "same group");
        assert_eq!(arrivals.packet(20_000, 120_000), None, "first group complete, none before");
        assert_eq!(arrivals.packet(21_000, 121_000), None);
        let gap = arrivals.packet(40_000, 160_000);
        assert_eq!(gap, Some(Gap::Known { sent: 19_000, arrived: 18_000, at: 121_000 }));
    }

    #[test]
    fn what_arrives_in_one_burst_is_one_group() {
        let mut arrivals = Arrivals::default();
        for at in [0, 20_000] {
            assert_eq!(arrivals.packet(at, 100_000 + at as i64), None);
        }
        // Held back, then let go at once.
        assert!(arrivals.packet(40_000, 200_000).is_some());
        assert_eq!(arrivals.packet(60_000, 201_000), None);
        assert_eq!(arrivals.packet(80_000, 202_000), None);
        let gap = arrivals.packet(100_000, 220_000);
        assert_eq!(gap, Some(Gap::Known { sent: 60_000, arrived: 82_000, at: 202_000 }));
    }

    #[test]
    fn jumps_break_and_going_back_is_ignored() {
        let mut arrivals = Arrivals::default();
        for at in [0_u64, 20_000] {
            assert_eq!(arrivals.packet(at, at as i64), None);
        }
        assert!(matches!(arrivals.packet(40_000, 2_000_000), Some(Gap::Known { .. })));
        assert_eq!(arrivals.packet(60_000, 2_020_000), Some(Gap::Broken));
        assert_eq!(arrivals.packet(10_000, 0), None, "sent before the group");
        assert!(matches!(arrivals.packet(80_000, i64::MAX), Some(Gap::Known { .. })));
        assert_eq!(
            arrivals.packet(100_000, i64::MIN),
            None,
            "held back together with the one before"
        );
        assert_eq!(arrivals.packet(900_000, i64::MIN), None, "the same");
    }
}
