//! Chance that can be repeated.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// What all chance of a test comes from: the same seed, the same faults.
///
/// Each draw depends on the seed and on what it is for, such as the key of a stream and how often that came up, and not on
/// what was drawn before. So it does not matter in which order tasks come to their draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// The environment variable that [`any`](Self::any) looks at.
    pub const VARIABLE: &str = "ANNALS_FAULT_SEED";

    /// This seed.
    pub const fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// The one that the environment variable [`VARIABLE`](Self::VARIABLE) says, else a new one. It is printed, so that a
    /// test that fails can be repeated.
    pub fn any() -> Self {
        let told = std::env::var(Self::VARIABLE).ok().and_then(|seed| seed.parse().ok());
        let seed = told.unwrap_or_else(|| Uuid::now_v7().as_u64_pair().1);
        println!("the faults have the seed {seed}; {}={seed} repeats them", Self::VARIABLE);
        Self(seed)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// A number from 0 up to and without 1, the same whenever the seed, `what` and `number` are.
    pub fn draw(self, what: &str, number: u64) -> f64 {
        let mut hash = Sha256::new();
        hash.update(self.0.to_le_bytes());
        hash.update(number.to_le_bytes());
        hash.update(what);
        let hash: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = hash;
        // As many bits as a float of this range has.
        (u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl std::fmt::Display for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even_and_the_same_each_time() {
        let (seed, other) = (Seed::of(1), Seed::of(2));
        let draws: Vec<_> = (0..10_000).map(|number| seed.draw("a", number)).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let low = draws.iter().filter(|draw| **draw < 0.1).count();
        assert!((800..1200).contains(&low), "{low} of 10,000 are below 0.1");
        assert_eq!(draws[7], seed.draw("a", 7));
        assert_ne!(draws[7], seed.draw("b", 7));
        assert_ne!(draws[7], other.draw("a", 7));
    }
}
