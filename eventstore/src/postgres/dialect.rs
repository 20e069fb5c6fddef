//! How statements are sent, whether or not a pooler stands in between.
//!
//! A prepared statement belongs to one session of the server. A pooler in transaction mode gives every
//! transaction another session, so behind one a statement must travel whole, in one round trip, under no
//! name. Then the parameters' types have to be known before: they are asked for once for each text of a
//! statement, and remembered for the whole store.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use futures::{FutureExt, future::BoxFuture};
use tokio_postgres::{Error, error::SqlState, types::Type};

use super::connect::Target;

/// Enough for every statement of this store; one that makes up texts forgets them again.
const MAX_REMEMBERED: usize = 1000;

/// How often a statement is prepared whose name is taken.
const ATTEMPTS: usize = 5;

fn is_taken(error: &Error) -> bool {
    error.code() == Some(&SqlState::DUPLICATE_PSTATEMENT)
}

/// True if a prepared statement returns columns of other types than when it was prepared: its tables were replaced.
pub fn is_out_of_date(error: &Error) -> bool {
    let error = error.as_db_error();
    // The message is in the server's language.
    error.is_some_and(|error| {
        *error.code() == SqlState::FEATURE_NOT_SUPPORTED
            && error.routine() == Some("RevalidateCachedQuery")
    })
}

/// What statements of this store are known to take, and how they are sent.
pub(super) struct Dialect {
    pub(super) target: Target,
    types: RwLock<HashMap<Arc<str>, Types>>,
}

pub(super) type Types = Arc<[Type]>;

impl Dialect {
    pub(super) fn new(target: Target) -> Self {
        Self { target, types: RwLock::default() }
    }

    pub(super) fn known(&self, sql: &str) -> Option<(Arc<str>, Types)> {
        let types = self.types.read().unwrap_or_else(PoisonError::into_inner);
        types.get_key_value(sql).map(|(sql, types)| (sql.clone(), types.clone()))
    }

    pub(super) fn remember(&self, sql: &str, types: &[Type]) -> Prepared {
        let (sql, types): (Arc<str>, Types) = (sql.into(), types.into());
        let mut known = self.types.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        known.insert(sql.clone(), types.clone());
        Prepared(How::Whole(sql, types))
    }

    /// Asks the server for the types on a connection of its own, so that nothing is left behind on one
    /// that others use.
    pub(super) fn ask<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Prepared, Error>> {
        let asking = async move {
            let (mut client, connection) = self.target.connect_once().await?;
            tokio::spawn(connection);
            let mut attempt = 1;
            loop {
                // A name lasts as long as the transaction at least, and here no longer.
                let transaction = client.transaction().await?;
                match transaction.prepare(sql).await {
                    Ok(statement) => {
                        let prepared = self.remember(sql, statement.params());
                        drop(statement);
                        transaction.commit().await?;
                        return Ok(prepared);
                    }
                    // Another program has left a statement of this name. Each attempt has a new name.
                    Err(error) if attempt < ATTEMPTS && is_taken(&error) => attempt += 1,
                    Err(error) => return Err(error),
                }
            }
        };
        asking.boxed()
    }

    /// The same on the connection of a transaction, which sees what the transaction has created.
    pub(super) async fn learn_in(
        &self,
        transaction: &tokio_postgres::Transaction<'_>,
        sql: &str,
    ) -> Result<Prepared, Error> {
        if let Some((sql, types)) = self.known(sql) {
            return Ok(Prepared(How::Whole(sql, types)));
        }
        let statement = transaction.prepare(sql).await?;
        Ok(self.remember(sql, statement.params()))
    }
}

/// A statement that is ready to be executed again and again.
#[derive(Clone, Debug)]
pub struct Prepared(pub(super) How);

impl Prepared {
    /// The types of its parameters.
    pub fn params(&self) -> &[Type] {
        match &self.0 {
            How::Named(statement) => statement.params(),
            How::Whole(_, types) => types,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum How {
    /// By the name that the connection has given it.
    Named(tokio_postgres::Statement),
    /// With its text each time.
    Whole(Arc<str>, Types),
}
