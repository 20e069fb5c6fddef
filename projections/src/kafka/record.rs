//! A record as it is in a topic, and as the event that it was made of.

use std::sync::Arc;

use annals_eventstore::{
    Recorded,
    kafka::{RecordError, RecordReader},
};
use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Headers, Message};

/// Where a record is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Origin {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
}

/// A record with all that it holds, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers in their order.
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl RawRecord {
    pub(super) fn of(message: &BorrowedMessage<'_>) -> Self {
        let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        Self {
            topic: message.topic().into(),
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(bytes),
            value: message.payload().map(bytes),
            headers: headers
                .map(|header| (header.key.to_owned(), header.value.map(bytes)))
                .collect(),
        }
    }
}

/// How much memory an event takes besides what its record holds, about.
const OVERHEAD: usize = 400;

/// The event that a record was made of, and how much memory it takes.
pub(super) fn read(
    reader: &mut RecordReader,
    message: &BorrowedMessage<'_>,
) -> Result<(Recorded, usize), RecordError> {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    let headers = headers.map(|header| (header.key, header.value));
    let event = reader.read(message.key(), message.payload(), headers)?;
    Ok((event, message.payload_len() + message.key_len() + OVERHEAD))
}
