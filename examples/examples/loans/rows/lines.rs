//! The input as bytes and physical lines, plain or compressed.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Cursor, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::read::MultiGzDecoder;

use super::MAX_RECORD_BYTES;

/// How far an input is read, in bytes as they stand in the file.
#[derive(Clone, Debug)]
pub(crate) struct Bytes {
    pub(super) read: Arc<AtomicU64>,
    pub(super) size: u64,
}

impl Bytes {
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// All there are; 0 if that is not known, as for a pipe.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

pub(super) struct Counted<R> {
    pub(super) reader: R,
    pub(super) read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Unpacks what begins like a gzip file and leaves everything else as it is.
pub(super) fn unpacked(
    mut reader: impl Read + Send + 'static,
) -> io::Result<Box<dyn BufRead + Send>> {
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    const BUFFER: usize = 128 * 1024;
    let mut start = Vec::new();
    reader.by_ref().take(GZIP.len() as u64).read_to_end(&mut start)?;
    let packed = start == GZIP;
    let reader = BufReader::with_capacity(BUFFER, Cursor::new(start).chain(reader));
    Ok(if packed {
        let unpacked = Gzip(MultiGzDecoder::new(reader));
        Box::new(BufReader::with_capacity(BUFFER, unpacked))
    } else {
        Box::new(reader)
    })
}

/// Says in its errors that it is the compression that is wrong.
struct Gzip<R>(MultiGzDecoder<R>);

impl<R: Read> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(
                error.kind(),
                "the compressed data ends too early; the file is not complete",
            ),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                io::Error::new(error.kind(), format!("the compressed data is damaged: {error}"))
            }
            _ => error,
        })
    }
}

/// A physical line.
pub(super) struct Line {
    pub(super) number: u64,
    /// With its end, if it has one.
    pub(super) bytes: Vec<u8>,
    /// Whether it was too long to be kept.
    pub(super) cut: bool,
}

impl Line {
    pub(super) fn is_blank(&self) -> bool {
        !self.cut && self.bytes.trim_ascii().is_empty()
    }
}

pub(super) struct Lines {
    pub(super) reader: Box<dyn BufRead + Send>,
    /// The last line that was read.
    pub(super) reached: u64,
    /// Lines to be given out once more.
    pub(super) again: VecDeque<Line>,
}

impl Lines {
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        if let Some(line) = self.again.pop_front() {
            return Ok(Some(line));
        }
        let mut bytes = Vec::with_capacity(128);
        let limit = MAX_RECORD_BYTES as u64 + 1;
        self.reader.by_ref().take(limit).read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let cut = bytes.len() > MAX_RECORD_BYTES;
        if cut && !bytes.ends_with(b"\n") {
            self.reader.skip_until(b'\n')?;
        }
        if self.reached == 0 && bytes.starts_with("\u{feff}".as_bytes()) {
            bytes.drain(.."\u{feff}".len());
        }
        self.reached += 1;
        Ok(Some(Line { number: self.reached, bytes, cut }))
    }
}
