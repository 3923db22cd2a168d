//! Which partition a key belongs to: as Apache Kafka's own clients decide it (murmur2), so that
//! other producers' records of the same consultation lie beside ours.

const SEED: u32 = 0x9747_b28c;
const MIX: u32 = 0x5bd1_e995;

/// The index among `count` partitions.
pub(super) fn partition_of(key: &[u8], count: usize) -> usize {
    // Kafka drops the sign before it divides.
    let positive = usize::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or(0);
    positive.checked_rem(count).unwrap_or(0)
}

/// MurmurHash2, 32 bits.
fn murmur2(key: &[u8]) -> u32 {
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (chunks, tail) = key.as_chunks::<4>();
    for chunk in chunks {
        let mut word = u32::from_le_bytes(*chunk).wrapping_mul(MIX);
        word ^= word >> 24;
        hash = hash.wrapping_mul(MIX) ^ word.wrapping_mul(MIX);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(MIX);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MIX);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that Apache Kafka's own client computes.
    #[test]
    fn keys_lie_where_other_clients_put_them() {
        let known: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key.as_bytes()), hash.cast_unsigned(), "{key}");
        }
        assert_eq!(partition_of(b"abc", 6), 479_470_107 % 6);
        assert_eq!((partition_of(b"", 3) < 3, partition_of(b"x", 0)), (true, 0));
    }
}
