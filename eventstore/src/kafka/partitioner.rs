//! Where a key is put: murmur2, as Java clients do it.

/// The partition of a key in a topic with this many.
pub(super) fn partition_of(key: &[u8], partitions: i32) -> i32 {
    // The hash without its sign fits.
    (murmur2(key) & 0x7fff_ffff) as i32 % partitions.max(1)
}

/// The hash of Kafka's own clients.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(M);
        mixed ^= mixed >> 24;
        hash = hash.wrapping_mul(M) ^ mixed.wrapping_mul(M);
    }
    for (index, byte) in rest.iter().enumerate().rev() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of Kafka's own unit test, `UtilsTest.testMurmur2`.
    #[test]
    fn the_hash_is_that_of_java() {
        for (data, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(data.as_bytes()) as i32, hash, "{data}");
        }
    }

    #[test]
    fn a_key_has_one_of_the_partitions() {
        for key in ["", "a", "LN-7 é"] {
            assert!((0..7).contains(&partition_of(key.as_bytes(), 7)));
            assert_eq!(partition_of(key.as_bytes(), 1), 0);
        }
    }
}
