//! Rows as COPY takes them, in binary. Pure.
//!
//! The driver's own writer sends each few rows by themselves; here they go in larger parts.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type};

use crate::guard::Cause;

/// The signature, no flags, no extension of the header: as PostgreSQL's documentation of COPY has it.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// How large a part is before it is handed out.
const PART: usize = 256 * 1024;

pub(super) struct Encoder {
    types: Arc<[Type]>,
    rows: usize,
    /// Those that are full.
    parts: Vec<Bytes>,
    part: BytesMut,
}

impl Encoder {
    pub(super) fn new(types: Arc<[Type]>) -> Self {
        let mut part = BytesMut::with_capacity(PART + PART / 8);
        part.put_slice(HEADER);
        Self { types, rows: 0, parts: Vec::new(), part }
    }

    /// Adds a row: a value for each of the types.
    pub(super) fn row<'v>(
        &mut self,
        values: impl Iterator<Item = &'v (dyn ToSql + Sync)>,
    ) -> Result<(), Cause> {
        self.part.put_i16(i16::try_from(self.types.len())?);
        for (value, of) in values.zip(self.types.iter()) {
            let start = self.part.len();
            self.part.put_i32(-1);
            if let IsNull::No = value.to_sql_checked(of, &mut self.part)? {
                let size = i32::try_from(self.part.len() - start - 4)?;
                self.part[start..start + 4].copy_from_slice(&size.to_be_bytes());
            }
        }
        self.rows += 1;
        if self.part.len() >= PART {
            let next = BytesMut::with_capacity(PART + PART / 8);
            self.parts.push(std::mem::replace(&mut self.part, next).freeze());
        }
        Ok(())
    }

    /// How many rows it was given.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Takes the parts that are full.
    pub(super) fn full(&mut self) -> impl Iterator<Item = Bytes> {
        self.parts.drain(..)
    }

    /// What was not taken, to the end.
    pub(super) fn finish(mut self) -> Vec<Bytes> {
        self.part.put_i16(-1);
        self.parts.push(self.part.freeze());
        self.parts
    }
}
