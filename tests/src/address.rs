//! Loopback addresses, allotted so that tests run side by side without port clashes.
//!
//! A [`Block`] is a /24 of 127.0.0.0/8 that one test owns: well-known ports (53, 5222, 5269…) are
//! free on each of its addresses. The claim is a listening socket, so it ends with the process,
//! however that ends.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

/// Port of the claiming socket on the block's address `.254`.
const CLAIM_PORT: u16 = 1;

/// A /24 of loopback that this value owns.
#[derive(Debug)]
pub struct Block {
    network: [u8; 3],
    _claim: Option<TcpListener>,
}

impl Block {
    /// Claims a free block; starts looking at a place that depends on the process, so that
    /// several test processes rarely meet.
    ///
    /// # Panics
    /// When no block in 127.16.0.0 to 127.239.255.0 is free.
    pub fn claim() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        const BLOCKS: u32 = 224 * 256;
        let start = std::process::id().wrapping_mul(977);
        for _ in 0..BLOCKS {
            let at = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % BLOCKS;
            let second = 16 + u8::try_from(at / 256).expect("below 224");
            let third = u8::try_from(at % 256).expect("below 256");
            if let Some(block) = Self::exactly(second, third) {
                return block;
            }
        }
        panic!(
            "no loopback block is free: binding port {CLAIM_PORT} needs root or ip_unprivileged_port_start"
        );
    }

    /// The block 127.`second`.`third`.0, where nobody has it.
    pub fn exactly(second: u8, third: u8) -> Option<Self> {
        let claim = TcpListener::bind((Ipv4Addr::new(127, second, third, 254), CLAIM_PORT)).ok()?;
        Some(Self {
            network: [127, second, third],
            _claim: Some(claim),
        })
    }

    /// Addresses for documentation, which are nobody's (RFC 5737), for hosts in networks of their own.
    pub fn apart() -> Self {
        Self {
            network: [203, 0, 113],
            _claim: None,
        }
    }

    /// The block's address `.host`; 1 to 253.
    pub fn host(&self, host: u8) -> Ipv4Addr {
        assert!((1..=253).contains(&host), "host part {host}");
        let [first, second, third] = self.network;
        Ipv4Addr::new(first, second, third, host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_blocks_never_share_an_address() {
        let (a, b) = (Block::claim(), Block::claim());
        assert_ne!(a.host(1), b.host(1));
    }
}
