//! What tells one answer from another.

use std::{any::TypeId, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type};

/// A question, and what its answer rests on.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The type of the rows: two structs may have one table.
    row: TypeId,
    sql: Arc<str>,
    /// The parameters as they are sent.
    params: Bytes,
    standing: Arc<str>,
}

impl Key {
    /// `None` if the parameters do not fit the statement: let the database say so.
    pub(super) fn of<R: 'static>(
        sql: Arc<str>,
        types: &[Type],
        params: &[&(dyn ToSql + Sync)],
        standing: Arc<str>,
    ) -> Option<Self> {
        if types.len() != params.len() {
            return None;
        }
        let mut sent = BytesMut::new();
        for (param, of_type) in params.iter().zip(types) {
            // Each with its length before it, so that two do not run together.
            let start = sent.len();
            sent.put_i64(-1);
            if let IsNull::No = param.to_sql_checked(of_type, &mut sent).ok()? {
                let length = (sent.len() - start - size_of::<i64>()) as i64;
                sent[start..start + size_of::<i64>()].copy_from_slice(&length.to_be_bytes());
            } else {
                sent.truncate(start + size_of::<i64>());
            }
        }
        Some(Self { row: TypeId::of::<R>(), sql, params: sent.freeze(), standing })
    }

    /// How much room it takes, in bytes, about.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + self.sql.len() + self.params.len() + self.standing.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row;

    fn key(types: &[Type], params: &[&(dyn ToSql + Sync)]) -> Option<Key> {
        Key::of::<Row>("select".into(), types, params, "1".into())
    }

    #[test]
    fn what_is_asked_tells_keys_apart() {
        let text = [Type::TEXT, Type::TEXT];
        assert_eq!(key(&text, &[&"ab", &"c"]), key(&text, &[&"ab", &"c"]));
        assert_eq!(key(&text, &[&"ab", &"c"]), key(&text, &[&"ab".to_owned(), &Some("c")]));
        assert_ne!(key(&text, &[&"ab", &"c"]), key(&text, &[&"a", &"bc"]));
        assert_ne!(key(&text, &[&"", &"c"]), key(&text, &[&None::<&str>, &"c"]));
        let other = Key::of::<Row>("select".into(), &text, &[&"ab", &"c"], "2".into());
        assert_ne!(key(&text, &[&"ab", &"c"]), other, "it rests on something else");
        let other = Key::of::<u8>("select".into(), &text, &[&"ab", &"c"], "1".into());
        assert_ne!(key(&text, &[&"ab", &"c"]), other, "rows of another type");
        assert!(key(&[Type::INT8], &[&"ab"]).is_none() && key(&text, &[&"ab"]).is_none());
    }
}
