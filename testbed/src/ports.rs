//! Ports that stay ours while their owner is down.
//!
//! A server that is killed and started again must come back on the same port. A port that the kernel gave out (`-p -1`) is of the range
//! from which outgoing connections are served too: while the server is down, any program's connection can take it, and a client that
//! keeps reconnecting can even connect to itself. So ports are taken from below that range, and a file lock keeps test processes that
//! run side by side apart.

use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

/// Below are the ports of well-known services.
const FIRST: u16 = 12_000;
/// Start of the kernel's range for outgoing connections where it can't be read (Linux' default).
const EPHEMERAL: u16 = 32_768;

/// A free TCP port on 127.0.0.1, reserved against the other users of this module until dropped.
///
/// Programs outside the testbed may still take it; whoever binds it must cope with that once and take another.
#[derive(Debug)]
pub struct Port {
    number: u16,
    // Holds the lock; released by the kernel however the process ends.
    _lock: File,
}

impl Port {
    /// Reserves a port.
    ///
    /// # Errors
    /// When the lock files can't be written, or no port is free.
    pub fn reserve() -> std::io::Result<Self> {
        let folder = lock_folder();
        std::fs::create_dir_all(&folder)?;
        let last = ephemeral_start().max(FIRST + 1);
        let span = u64::from(last - FIRST);
        let begin = RandomState::new().hash_one(std::process::id()) % span;
        for offset in 0..span {
            let number = FIRST + u16::try_from((begin + offset) % span).unwrap_or(0);
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(folder.join(number.to_string()))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self {
                    number,
                    _lock: lock,
                });
            }
        }
        Err(std::io::Error::other(format!(
            "no free port in {FIRST}..{last}"
        )))
    }

    /// The port's number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// One folder per user, so that another user's lock files are never in the way.
fn lock_folder() -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    std::env::temp_dir().join(format!("tidemill-ports-{user}"))
}

fn ephemeral_start() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(EPHEMERAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_differ_and_can_be_bound() {
        let ports: Vec<Port> = (0..20).map(|_| Port::reserve().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 20);
        for number in numbers {
            TcpListener::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
        }
    }
}
