//! What the engine counts: plain numbers that only their owner changes.
//!
//! A shard publishes them to atomics once per turn, so they also come as an array, and each one
//! has a name for the metrics page.

/// Writes the struct, and what must never be out of step with its fields.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Everything the engine and its shard count. Gauges say so; the rest only grows.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Counters {
            /// Name and meaning of each value of [`Self::values`], in the same order.
            pub const NAMES: &[(&str, &str)] = &[$((stringify!($name), concat!($($doc),+))),+];

            /// How many there are.
            pub const COUNT: usize = Self::NAMES.len();

            /// All values in a fixed order.
            pub const fn values(&self) -> [u64; Self::COUNT] {
                [$(self.$name),+]
            }

            /// The opposite of [`Self::values`].
            pub const fn from_values(values: [u64; Self::COUNT]) -> Self {
                let [$($name),+] = values;
                Self { $($name),+ }
            }
        }
    };
}

counters! {
    /// Gauge: open rooms.
    rooms,
    /// Gauge: participants.
    participants,
    /// Gauge: published tracks.
    tracks,
    /// Gauge: tracks being forwarded to a subscriber.
    subscriptions,
    /// RTP packets received and opened, repair included.
    rtp_packets_in,
    /// RTP packets sealed and handed to the socket, repair included.
    rtp_packets_out,
    /// Datagram bytes received from clients.
    bytes_in,
    /// Datagram bytes sent to clients.
    bytes_out,
    /// RTCP compound packets received and opened.
    rtcp_in,
    /// RTCP compound packets sent.
    rtcp_out,
    /// Packets that subscribers asked for again.
    nack_in,
    /// Packets that we asked publishers for again.
    nack_out,
    /// Keyframe requests of subscribers.
    pli_in,
    /// Keyframe requests to publishers.
    pli_out,
    /// Repair packets received.
    rtx_in,
    /// Repair packets sent.
    rtx_out,
    /// Sound packets restored from the redundancy of later ones.
    red_restored,
    /// Sound packets sent twice to receivers that lose many and read no redundancy.
    sounds_echoed,
    /// Repair packets held back: their share of the link was used up.
    repair_refused,
    /// Packets sent for nothing but a probe.
    padding_out,
    /// Video packets given up because they had waited too long.
    paced_out,
    /// Probes of what a link carries.
    probes,
    /// Gauge: videos held back because the link carries no more.
    paused,
    /// Packets from publishers that never came, repair included.
    lost_in,
    /// Packets that subscribers reported lost.
    lost_out,
    /// Binding requests answered.
    stun_requests,
    /// Datagrams that belong to no peer.
    dropped_unknown,
    /// Datagrams whose tag, MAC or password did not verify.
    dropped_unauthentic,
    /// Packets received twice.
    dropped_replayed,
    /// Datagrams over UDP that claim the address of a relay.
    dropped_claimed,
    /// Datagrams that could not be parsed.
    dropped_malformed,
    /// Media of tracks that nobody announced.
    dropped_unbound,
    /// Datagrams refused for another reason.
    dropped_other,
    /// Offers that could not be answered.
    bad_offers,
    /// DTLS handshakes that failed.
    dtls_failures,
    /// Peers whose keys are there.
    peers_connected,
    /// Data messages received.
    data_in,
    /// Data messages sent.
    data_out,
    /// Data messages that could not be sent, or were refused.
    data_dropped,
    /// Rooms closed because their code panicked.
    room_panics,
    /// Datagrams from source port 0 or a non-unicast source, dropped before anything looks at them.
    dropped_source,
    /// Gauge: open ICE-TCP connections that have sent something.
    tcp_connections,
    /// ICE-TCP connections cut off: too many of one address, or no ICE.
    tcp_refused,
    /// Datagrams that an ICE-TCP client was too slow to take.
    tcp_dropped,
    /// Datagrams to and from relays that were thrown away because their reader was too slow.
    relay_dropped,
    /// Datagrams that the kernel would not take (full buffer, no route, too long).
    send_failures,
    /// Commands refused because the queue was full.
    commands_refused,
    /// Events thrown away because nobody took them.
    events_lost,
    /// Resyncs sent after that.
    resyncs,
    /// Turns of shard loops.
    turns,
}

impl Counters {
    /// Adds all values of another.
    pub fn add(&mut self, other: &Self) {
        let mut sum = self.values();
        for (to, from) in sum.iter_mut().zip(other.values()) {
            *to = to.wrapping_add(from);
        }
        *self = Self::from_values(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_names_keep_one_order() {
        let counters = Counters { rooms: 1, turns: 7, ..Counters::default() };
        assert_eq!(Counters::from_values(counters.values()), counters);
        assert_eq!(Counters::NAMES[0].0, "rooms");
        assert_eq!(Counters::NAMES[Counters::COUNT - 1].0, "turns");
        assert_eq!(counters.values()[Counters::COUNT - 1], 7);
    }

    #[test]
    fn add_sums_every_value() {
        let mut sum = Counters { rooms: 1, rtx_out: 5, ..Counters::default() };
        sum.add(&Counters { rooms: 2, stun_requests: 3, ..Counters::default() });
        assert_eq!(sum, Counters { rooms: 3, rtx_out: 5, stun_requests: 3, ..Counters::default() });
    }
}
