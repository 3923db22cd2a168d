//! AV1 payloads (AV1 RTP specification §4.4), for senders without the dependency descriptor.

/// Aggregation header: N = first packet of a coded video sequence, Z = continues an earlier unit.
pub(super) fn starts_sequence(payload: &[u8]) -> bool {
    payload.first().is_some_and(|byte| byte & 0x88 == 0x08)
}
