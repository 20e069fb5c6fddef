//! Which slice of a projection a stream is in. Pure.

use annals_eventstore::StreamId;

/// The slice of a stream: by a hash of its key, so that streams of several categories that share a key, and
/// so a row, are in one.
///
/// It is the rule by which Kafka's clients place keys on partitions. So where the number of slices divides that
/// of the partitions, slice `s` of `n` holds the partitions `p` with `p % n == s`, and a projection can be fed by
/// either.
pub(crate) fn slice_of(stream: &StreamId, slices: u16) -> u16 {
    if slices <= 1 {
        return 0;
    }
    ((murmur2(stream.key().as_bytes()) & 0x7fff_ffff) % u32::from(slices)) as u16
}

/// The name of a slice's checkpoint and lease.
pub(crate) fn slice_name(name: &str, slice: u16, slices: u16) -> String {
    if slices <= 1 { name.to_owned() } else { format!("{name}/{slice}") }
}

/// MurmurHash2 with the seed of Kafka's Java clients.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let (words, rest) = key.as_chunks::<4>();
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    for word in words {
        let word = u32::from_le_bytes(*word).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (word ^ word >> 24).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let rest = rest.iter().rev().fold(0, |rest, byte| rest << 8 | u32::from(*byte));
        hash = (hash ^ rest).wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// The values of Kafka's own unit test.
    #[test]
    fn the_hash_is_that_of_java_clients() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    /// Checkpoints in databases stand on it: it must not change.
    #[test]
    fn a_stream_is_always_in_the_same_slice() {
        let slice = |key: &str, slices| slice_of(&StreamId::new("loan", key).unwrap(), slices);
        let slices =
            ["x", "a", "loan-17", "ä"].map(|key| [slice(key, 2), slice(key, 4), slice(key, 256)]);
        assert_eq!(slices, [[0, 2, 54], [0, 0, 124], [0, 2, 142], [1, 1, 245]]);
        assert_eq!(slice("anything", 1), 0);
        let other = slice_of(&StreamId::new("other", "loan-17").unwrap(), 256);
        assert_eq!(other, slice("loan-17", 256), "the category does not count");
    }

    #[test]
    fn slices_are_of_about_the_same_size() {
        for slices in [2, 3, 4, 7, 16] {
            let mut counts = vec![0_i32; usize::from(slices)];
            for n in 0..20_000 {
                // Keys as they are: numbered, or random.
                let key = if n % 2 == 0 { format!("loan-{n}") } else { Uuid::now_v7().to_string() };
                counts[usize::from(slice_of(&StreamId::new("loan", key).unwrap(), slices))] += 1;
            }
            let mean = 20_000 / i32::from(slices);
            for count in &counts {
                assert!((count - mean).abs() < mean / 8, "{slices}: {counts:?}");
            }
        }
    }
}
