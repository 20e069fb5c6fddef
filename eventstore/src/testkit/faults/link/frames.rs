//! What passes a link, in the pieces that it is disturbed in.

use tokio::io::{AsyncRead, AsyncReadExt};

/// How what passes is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Messages of PostgreSQL.
    Postgres,
    /// As it comes.
    Any,
}

/// How much is read at once, where there are no messages.
const CHUNK: usize = 64 * 1024;

/// One way of a connection, piece by piece.
pub(super) struct Frames<R> {
    from: R,
    protocol: Protocol,
    /// PostgreSQL's clients begin with a message that has no type, only a length.
    has_type: bool,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn of_client(from: R, protocol: Protocol) -> Self {
        Self { from, protocol, has_type: false }
    }

    pub(super) fn of_server(from: R, protocol: Protocol) -> Self {
        Self { from, protocol, has_type: true }
    }

    /// The next piece; `None` at the end, and if it breaks off.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        match self.protocol {
            Protocol::Postgres => self.message().await,
            Protocol::Any => {
                let mut chunk = vec![0; CHUNK];
                let length = self.from.read(&mut chunk).await.ok().filter(|length| *length > 0)?;
                chunk.truncate(length);
                Some(chunk)
            }
        }
    }

    async fn message(&mut self) -> Option<Vec<u8>> {
        let header = if self.has_type { 5 } else { 4 };
        let mut message = vec![0; header];
        self.from.read_exact(&mut message).await.ok()?;
        let length: [u8; 4] = message[header - 4..].try_into().ok()?;
        // The length counts itself, and not the type.
        let body = (u32::from_be_bytes(length) as usize).checked_sub(4)?;
        message.resize(header + body, 0);
        self.from.read_exact(&mut message[header..]).await.ok()?;
        if !self.has_type {
            // After a question for encryption comes another first message.
            self.has_type = !asks_for_encryption(&message);
        }
        Some(message)
    }
}

/// True for the messages with which a client of PostgreSQL asks for TLS or GSSAPI before all else.
pub(super) fn asks_for_encryption(message: &[u8]) -> bool {
    const TLS: u32 = 80_877_103;
    const GSSAPI: u32 = 80_877_104;
    let code = message.get(4..8).and_then(|code| <[u8; 4]>::try_from(code).ok());
    message.len() == 8 && matches!(code.map(u32::from_be_bytes), Some(TLS | GSSAPI))
}

/// True for what PostgreSQL says without having been asked: notices, notifications and changed settings.
pub(super) fn is_unasked(message: &[u8]) -> bool {
    matches!(message.first(), Some(b'N' | b'A' | b'S'))
}
