//! Randomness for jitter, and to tell processes from each other; keys and ids have their own, in `stream::dialback`.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// Uniform in `0.0..1.0`; 0.5 where the system gives none.
#[must_use]
pub fn unit() -> f64 {
    let mut bytes = [0; 4];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}

/// Any number; none where the system gives none.
#[must_use]
pub fn number() -> Option<u64> {
    let mut bytes = [0; 8];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.ok().map(|()| u64::from_le_bytes(bytes))
}
