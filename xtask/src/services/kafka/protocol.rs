//! As much of Kafka's protocol as it takes to see that a broker serves.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::services::ports;

const TIMEOUT: Duration = Duration::from_secs(2);

/// A request for metadata (key 3, version 1) of no topic: the brokers come along.
const METADATA_REQUEST: [u8; 18] = [
    0, 0, 0, 14, // size of what follows
    0, 3, 0, 1, // key, version
    0, 0, 0, 7, // correlation
    0xff, 0xff, // no client id
    0, 0, 0, 0, // no topics
];

/// Whether the broker on this port answers and counts itself among those in service. A port that
/// accepts connections says less: it does so before the broker takes part in anything.
pub(crate) fn has_a_broker(port: u16) -> bool {
    count_brokers(port).is_ok_and(|count| count > 0)
}

fn count_brokers(port: u16) -> io::Result<i32> {
    let mut stream = TcpStream::connect_timeout(&ports::loopback(port), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(&METADATA_REQUEST)?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    let [_size @ .., c0, c1, c2, c3, b0, b1, b2, b3] = answer;
    if i32::from_be_bytes([c0, c1, c2, c3]) != 7 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(i32::from_be_bytes([b0, b1, b2, b3]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answering(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind(ports::loopback(0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; METADATA_REQUEST.len()];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(answer).unwrap();
        });
        port
    }

    #[test]
    fn a_broker_that_counts_itself_in_serves() {
        assert!(has_a_broker(answering(&[0, 0, 0, 99, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0])));
    }

    #[test]
    fn anything_else_does_not() {
        assert!(!has_a_broker(answering(&[0, 0, 0, 99, 0, 0, 0, 7, 0, 0, 0, 0])));
        assert!(!has_a_broker(answering(&[0, 0, 0, 99, 0, 0, 0, 8, 0, 0, 0, 1])));
        assert!(!has_a_broker(answering(b"HTTP/1.1")));
    }
}
