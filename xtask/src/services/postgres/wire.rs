//! As much of PostgreSQL's protocol as it takes to see that a server serves, and to create a
//! database. The binaries from Maven come without psql, and a driver would bring an async runtime.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::services::ports;

/// CREATE DATABASE copies files, which may take its time on a slow disk.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a statement was not run.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Nobody is there, or nobody who speaks the protocol.
    Connection(io::Error),
    /// The server says no.
    Server { sqlstate: String, message: String },
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connection(error) => error.fmt(f),
            Self::Server { sqlstate, message } => write!(f, "{message} (SQLSTATE {sqlstate})"),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

impl Refusal {
    /// invalid_catalog_name
    pub(crate) fn is_missing_database(&self) -> bool {
        self.has_sqlstate("3D000")
    }

    fn has_sqlstate(&self, wanted: &str) -> bool {
        matches!(self, Self::Server { sqlstate, .. } if sqlstate == wanted)
    }
}

/// Whether a server on this port takes connections. One that refuses this one (too many are open,
/// say) does; one that is starting up or shutting down (cannot_connect_now) does not.
pub(crate) fn answers(port: u16) -> bool {
    match run(port, super::NAME, "postgres", None) {
        Ok(()) => true,
        Err(Refusal::Connection(_)) => false,
        Err(refusal) => !refusal.has_sqlstate("57P03"),
    }
}

/// Connects as `user` without a password and runs a statement, if there is one.
pub(crate) fn run(
    port: u16,
    user: &str,
    database: &str,
    statement: Option<&str>,
) -> Result<(), Refusal> {
    let address = ports::loopback(port);
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(&startup(user, database))?;
    until_ready(&mut stream)?;
    if let Some(statement) = statement {
        stream.write_all(&message(b'Q', statement))?;
        until_ready(&mut stream)?;
    }
    // Terminate. The server may be faster to hang up, which is all the same.
    let _ = stream.write_all(&[b'X', 0, 0, 0, 4]);
    Ok(())
}

fn startup(user: &str, database: &str) -> Vec<u8> {
    let parameters = format!("user\0{user}\0database\0{database}\0\0");
    let protocol: u32 = 3 << 16;
    let length = 8 + parameters.len() as u32;
    [&length.to_be_bytes(), &protocol.to_be_bytes(), parameters.as_bytes()].concat()
}

fn message(kind: u8, text: &str) -> Vec<u8> {
    let length = 4 + text.len() as u32 + 1;
    [&[kind], &length.to_be_bytes()[..], text.as_bytes(), &[0]].concat()
}

/// Reads messages until the server is ready for the next statement.
fn until_ready(stream: &mut impl Read) -> Result<(), Refusal> {
    let mut refusal = None;
    loop {
        let mut header = [0; 5];
        if let Err(error) = stream.read_exact(&mut header) {
            // After an error at the start the server hangs up.
            return Err(refusal.unwrap_or(Refusal::Connection(error)));
        }
        let [kind, length @ ..] = header;
        let length = u32::from_be_bytes(length);
        if !(4..1 << 20).contains(&length) {
            return Err(io::Error::other("it does not speak PostgreSQL's protocol").into());
        }
        let mut body = vec![0; length as usize - 4];
        stream.read_exact(&mut body)?;
        match (kind, &body[..]) {
            (b'R', [0, 0, 0, 0]) => {}
            (b'R', _) => return Err(io::Error::other("the server asks for a password").into()),
            (b'E', fields) => refusal = Some(parse_error(fields)),
            (b'Z', _) => return refusal.map_or(Ok(()), Err),
            _ => {}
        }
    }
}

/// The fields of an ErrorResponse: each a letter and a text that ends in a zero.
fn parse_error(fields: &[u8]) -> Refusal {
    let field = |wanted: u8| {
        let found = fields.split(|byte| *byte == 0).find_map(|field| match field {
            [kind, text @ ..] if *kind == wanted => Some(text),
            _ => None,
        });
        String::from_utf8_lossy(found.unwrap_or_default()).into_owned()
    };
    Refusal::Server { sqlstate: field(b'C'), message: field(b'M') }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
    const READY: &[u8] = b"Z\0\0\0\x05I";

    fn error(fields: &str) -> Vec<u8> {
        message(b'E', fields)
    }

    #[test]
    fn a_server_is_ready_when_it_says_so() {
        assert!(until_ready(&mut &[OK, READY].concat()[..]).is_ok());
        assert!(matches!(until_ready(&mut &OK[..]), Err(Refusal::Connection(_))));
        assert!(matches!(until_ready(&mut &b"HTTP/1.1 400"[..]), Err(Refusal::Connection(_))));
    }

    #[test]
    fn an_error_is_known_by_its_sqlstate_whether_or_not_the_server_hangs_up() {
        let refused = error("SFATAL\0C3D000\0Mdatabase \"annals\" does not exist\0");
        for answer in [refused.clone(), [&refused[..], READY].concat()] {
            let refusal = until_ready(&mut &answer[..]).unwrap_err();
            assert!(refusal.is_missing_database(), "{refusal}");
        }
        let busy = until_ready(&mut &error("C53300\0Msorry\0")[..]).unwrap_err();
        assert_eq!(busy.to_string(), "sorry (SQLSTATE 53300)");
        assert!(!busy.is_missing_database());
    }

    #[test]
    fn messages_carry_their_length() {
        assert_eq!(message(b'Q', "ab"), b"Q\0\0\0\x07ab\0");
        assert_eq!(startup("u", "d"), b"\0\0\0\x1b\0\x03\0\0user\0u\0database\0d\0\0");
    }
}
