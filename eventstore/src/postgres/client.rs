//! Connections as programs use them, whether or not a pooler stands in between: see [`Dialect`].

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use futures::TryStreamExt;
use tokio_postgres::{
    Error, Row, RowStream,
    types::{BorrowToSql, ToSql, Type},
};

use super::dialect::{Dialect, How, Prepared, is_out_of_date};

/// What a connection can execute: SQL text, or a [`Prepared`] statement.
pub trait Statement: sealed::Sealed {}

impl<T: sealed::Sealed + ?Sized> Statement for T {}

mod sealed {
    use super::Prepared;

    #[derive(Debug)]
    pub enum Kind<'a> {
        Text(&'a str),
        Prepared(&'a Prepared),
    }

    pub trait Executes {}

    pub trait Sealed: Sync {
        fn kind(&self) -> Kind<'_>;
    }

    impl Sealed for str {
        fn kind(&self) -> Kind<'_> {
            Kind::Text(self)
        }
    }

    impl Sealed for String {
        fn kind(&self) -> Kind<'_> {
            Kind::Text(self)
        }
    }

    impl Sealed for Prepared {
        fn kind(&self) -> Kind<'_> {
            Kind::Prepared(self)
        }
    }
}

use sealed::Kind;

/// Queries, the same on a connection and in a transaction.
macro_rules! queries {
    () => {
        /// Executes a statement and returns its rows.
        ///
        /// # Errors
        /// If the statement fails, or the parameters are not of its types.
        pub async fn query<S: Statement + ?Sized>(
            &self,
            statement: &S,
            params: &[&(dyn ToSql + Sync)],
        ) -> Result<Vec<Row>, Error> {
            match self.prepared(statement).await?.0 {
                How::Named(statement) => {
                    self.up_to_date(self.inner.query(&statement, params).await)
                }
                How::Whole(sql, types) => {
                    self.inner.query_typed(&sql, &typed(params, &types)).await
                }
            }
        }

        /// The same for at most one row.
        ///
        /// # Errors
        /// As [`query`](Self::query), and if there are more.
        pub async fn query_opt<S: Statement + ?Sized>(
            &self,
            statement: &S,
            params: &[&(dyn ToSql + Sync)],
        ) -> Result<Option<Row>, Error> {
            match self.prepared(statement).await?.0 {
                How::Named(statement) => {
                    self.up_to_date(self.inner.query_opt(&statement, params).await)
                }
                How::Whole(sql, types) => {
                    self.inner.query_typed_opt(&sql, &typed(params, &types)).await
                }
            }
        }

        /// The same for exactly one row.
        ///
        /// # Errors
        /// As [`query`](Self::query), and if there is none or more than one.
        pub async fn query_one<S: Statement + ?Sized>(
            &self,
            statement: &S,
            params: &[&(dyn ToSql + Sync)],
        ) -> Result<Row, Error> {
            match self.prepared(statement).await?.0 {
                How::Named(statement) => {
                    self.up_to_date(self.inner.query_one(&statement, params).await)
                }
                How::Whole(sql, types) => {
                    self.inner.query_typed_one(&sql, &typed(params, &types)).await
                }
            }
        }

        /// The same, with the rows as they come. The connection is busy until they are read.
        ///
        /// # Errors
        /// As [`query`](Self::query).
        pub async fn query_raw<S, P, I>(&self, statement: &S, params: I) -> Result<RowStream, Error>
        where
            S: Statement + ?Sized,
            P: BorrowToSql,
            I: IntoIterator<Item = P>,
            I::IntoIter: ExactSizeIterator,
        {
            match self.prepared(statement).await?.0 {
                How::Named(statement) => {
                    self.up_to_date(self.inner.query_raw(&statement, params).await)
                }
                How::Whole(sql, types) => {
                    let params = params.into_iter().zip(types.iter().cloned());
                    self.inner.query_typed_raw(&sql, params).await
                }
            }
        }

        /// Executes a statement; returns how many rows it changed.
        ///
        /// # Errors
        /// As [`query`](Self::query).
        pub async fn execute<S: Statement + ?Sized>(
            &self,
            statement: &S,
            params: &[&(dyn ToSql + Sync)],
        ) -> Result<u64, Error> {
            match self.prepared(statement).await?.0 {
                How::Named(statement) => {
                    self.up_to_date(self.inner.execute(&statement, params).await)
                }
                How::Whole(sql, types) => {
                    self.inner.execute_typed(&sql, &typed(params, &types)).await
                }
            }
        }

        /// Forgets the statements of this connection where one is out of date: as soon as it is prepared anew it is
        /// up to date.
        fn up_to_date<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
            outcome.inspect_err(|error| {
                if is_out_of_date(error) {
                    self.inner.statement_cache.clear();
                }
            })
        }

        async fn prepared<S: Statement + ?Sized>(&self, statement: &S) -> Result<Prepared, Error> {
            match statement.kind() {
                Kind::Prepared(prepared) => Ok(prepared.clone()),
                Kind::Text(sql) => self.learn(sql).await,
            }
        }
    };
}

/// A parameter that is missing, or one too many, is for the server to refuse.
fn typed<'a>(
    params: &[&'a (dyn ToSql + Sync)],
    types: &[Type],
) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    std::iter::zip(params.iter().copied(), types.iter().cloned()).collect()
}

/// What [`Client`] and [`Transaction`] have in common, for functions that take either.
pub trait GenericClient: sealed::Executes + Sync {
    /// As [`Client::prepare_cached`].
    fn prepare_cached<'a>(
        &'a self,
        sql: &'a str,
    ) -> impl Future<Output = Result<Prepared, Error>> + Send + 'a;

    /// As [`Client::query`].
    fn query<'a, S: Statement + ?Sized>(
        &'a self,
        statement: &'a S,
        params: &'a [&'a (dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Vec<Row>, Error>> + Send + 'a;

    /// As [`Client::execute`].
    fn execute<'a, S: Statement + ?Sized>(
        &'a self,
        statement: &'a S,
        params: &'a [&'a (dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<u64, Error>> + Send + 'a;
}

macro_rules! generic_client {
    ($($client:ty)*) => { $(
        impl sealed::Executes for $client {}

        impl GenericClient for $client {
            fn prepare_cached<'a>(
                &'a self,
                sql: &'a str,
            ) -> impl Future<Output = Result<Prepared, Error>> + Send + 'a {
                Self::prepare_cached(self, sql)
            }

            fn query<'a, S: Statement + ?Sized>(
                &'a self,
                statement: &'a S,
                params: &'a [&'a (dyn ToSql + Sync)],
            ) -> impl Future<Output = Result<Vec<Row>, Error>> + Send + 'a {
                Self::query(self, statement, params)
            }

            fn execute<'a, S: Statement + ?Sized>(
                &'a self,
                statement: &'a S,
                params: &'a [&'a (dyn ToSql + Sync)],
            ) -> impl Future<Output = Result<u64, Error>> + Send + 'a {
                Self::execute(self, statement, params)
            }
        }
    )* };
}

generic_client!(Client Transaction<'_>);

/// A connection of the store's pools. It goes back when dropped.
///
/// Its own methods work behind a pooler in transaction mode too. It also derefs to a client of
/// `deadpool-postgres` and so of `tokio-postgres`; what those prepare by name does not work there.
pub struct Client {
    inner: deadpool_postgres::Client,
    dialect: Arc<Dialect>,
    is_pinned: bool,
}

impl Client {
    pub(super) fn new(inner: deadpool_postgres::Client, dialect: Arc<Dialect>) -> Self {
        Self { inner, dialect, is_pinned: false }
    }

    /// Says that a transaction is open on it from here to its end. Then it asks for types itself: behind
    /// a pooler it holds a session of the server, and another may be free only once this one is.
    pub(super) fn pinned(mut self) -> Self {
        self.is_pinned = true;
        self
    }

    /// Prepares a statement once for this connection, or, behind a pooler, asks for its types once.
    ///
    /// # Errors
    /// If the database refuses the statement.
    pub async fn prepare_cached(&self, sql: &str) -> Result<Prepared, Error> {
        if self.dialect.target.is_pooled() {
            self.learn(sql).await
        } else {
            Ok(Prepared(How::Named(self.inner.prepare_cached(sql).await?)))
        }
    }

    /// Prepares a query as [`prepare_cached`](Self::prepare_cached) does, and asks it: anew, if its tables have been
    /// replaced by others since. For where no transaction is open, which would not survive that.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn query_cached(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        self.query_raw_cached(sql, params).await?.try_collect().await
    }

    /// The same, with the rows as they come.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn query_raw_cached(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<RowStream, Error> {
        let rows = self.query_raw(&self.prepare_cached(sql).await?, params.to_vec()).await;
        match rows {
            Err(error) if is_out_of_date(&error) => {
                self.query_raw(&self.prepare_cached(sql).await?, params.to_vec()).await
            }
            rows => rows,
        }
    }

    /// Begins a transaction. It is rolled back when dropped.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn transaction(&mut self) -> Result<Transaction<'_>, Error> {
        let dialect = self.dialect.clone();
        Ok(Transaction { inner: self.inner.transaction().await?, dialect })
    }

    /// Takes the connection out of its pool: nobody is to use it again. It closes when dropped.
    pub(super) fn discard(self) {
        drop(deadpool_postgres::Client::take(self.inner));
    }

    async fn learn(&self, sql: &str) -> Result<Prepared, Error> {
        if let Some((sql, types)) = self.dialect.known(sql) {
            return Ok(Prepared(How::Whole(sql, types)));
        }
        if self.dialect.target.is_pooled() && !self.is_pinned {
            return self.dialect.ask(sql).await;
        }
        let statement = self.inner.prepare(sql).await?;
        Ok(self.dialect.remember(sql, statement.params()))
    }

    queries!();
}

impl Deref for Client {
    type Target = deadpool_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.inner
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// A transaction on a [`Client`]. It is rolled back when dropped.
pub struct Transaction<'a> {
    inner: deadpool_postgres::Transaction<'a>,
    dialect: Arc<Dialect>,
}

impl Transaction<'_> {
    /// As [`Client::prepare_cached`].
    ///
    /// # Errors
    /// If the database refuses the statement.
    pub async fn prepare_cached(&self, sql: &str) -> Result<Prepared, Error> {
        if self.dialect.target.is_pooled() {
            self.learn(sql).await
        } else {
            Ok(Prepared(How::Named(self.inner.prepare_cached(sql).await?)))
        }
    }

    /// Begins a transaction within this one, by a savepoint.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn transaction(&mut self) -> Result<Transaction<'_>, Error> {
        let dialect = self.dialect.clone();
        Ok(Transaction { inner: self.inner.transaction().await?, dialect })
    }

    /// Commits. If this fails for want of an answer, the transaction may be committed all the same.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn commit(self) -> Result<(), Error> {
        self.inner.commit().await
    }

    /// Rolls back.
    ///
    /// # Errors
    /// If the database fails; the transaction is then gone all the same.
    pub async fn rollback(self) -> Result<(), Error> {
        self.inner.rollback().await
    }

    async fn learn(&self, sql: &str) -> Result<Prepared, Error> {
        self.dialect.learn_in(&self.inner, sql).await
    }

    queries!();
}

impl<'a> Deref for Transaction<'a> {
    type Target = deadpool_postgres::Transaction<'a>;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.inner
    }
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}
