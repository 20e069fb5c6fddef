//! Choosing TCP ports on the loopback interface.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};

/// Where the search goes. It ends below 32768, from where on the kernel hands out ports to
/// outgoing connections: one of those could take a port while its service is down.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// The address of a port on the loopback interface.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// `remembered`, if it is free, else the first free port from a place in the range that depends on
/// `seed` on, so that checkouts do not compete for the same ports.
pub(crate) fn choose(remembered: Option<u16>, seed: u64, taken: &[u16]) -> Result<u16> {
    choose_by(remembered, seed, |port| {
        !taken.contains(&port) && TcpListener::bind(loopback(port)).is_ok()
    })
    .context("no TCP port between 20000 and 32000 is free on 127.0.0.1")
}

fn choose_by(remembered: Option<u16>, seed: u64, is_free: impl Fn(u16) -> bool) -> Option<u16> {
    let size = RANGE.end - RANGE.start;
    // The remainder is less than a u16, so the conversion cannot cut anything off.
    let start = (seed % u64::from(size)) as u16;
    let searched = (0..size).map(|step| RANGE.start + (start + step) % size);
    remembered.into_iter().chain(searched).find(|port| is_free(*port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remembered_port_is_kept_while_it_is_free() {
        assert_eq!(choose_by(Some(41_000), 7, |_| true), Some(41_000));
        assert_eq!(choose_by(Some(41_000), 7, |port| port != 41_000), Some(20_007));
    }

    #[test]
    fn the_search_starts_at_the_seed_and_wraps_around() {
        assert_eq!(choose_by(None, 11_999, |_| true), Some(31_999));
        assert_eq!(choose_by(None, 11_999, |port| port != 31_999), Some(20_000));
        assert_eq!(choose_by(None, u64::MAX, |_| false), None);
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_chosen() {
        let listener = TcpListener::bind(loopback(0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_ne!(choose(Some(port), 0, &[]).unwrap(), port);
    }
}
