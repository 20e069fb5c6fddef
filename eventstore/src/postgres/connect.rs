//! Where the database is, how connections to it are made, and what each kind of them may take.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::{
    Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType, Timeouts,
};
use tokio_postgres::{Connection, Socket, config::Host, error::SqlState, tls::MakeTlsConnect};

use super::{
    client::Client,
    dialect::Dialect,
    tls::{self, Connector},
    url,
};
use crate::{error::Error, store::Options};

type Stream = <Connector as MakeTlsConnect<Socket>>::Stream;

/// What all connections of a store have in common.
#[derive(Clone)]
pub(super) struct Target(Arc<Inner>);

struct Inner {
    config: tokio_postgres::Config,
    connector: Connector,
    connect_timeout: Duration,
    pooled: bool,
}

/// The connections of one pool.
#[derive(Clone)]
pub(super) struct Connections {
    target: Target,
    dialect: Arc<Dialect>,
    pool: Pool,
}

impl Connections {
    pub(super) fn new(target: &Target, dialect: &Arc<Dialect>, pool: &Pool) -> Self {
        Self { target: target.clone(), dialect: dialect.clone(), pool: pool.clone() }
    }

    pub(super) async fn get(&self) -> Result<Client, Error> {
        self.target.client(&self.pool, &self.dialect).await
    }

    pub(super) async fn busy(&self) -> Result<Busy, Error> {
        self.target.busy(&self.pool, &self.dialect).await
    }
}

/// A connection at work. It goes back into its pool once that is [`done`](Self::done). Dropped before, it
/// is closed, and the server is asked to stop: nobody is to wait for what nobody wants any more.
pub(super) struct Busy {
    target: Target,
    client: Option<Client>,
}

impl Busy {
    pub(super) fn client(&self) -> Result<&Client, Error> {
        self.client.as_ref().ok_or(Error::Closed)
    }

    pub(super) fn done(mut self) {
        drop(self.client.take());
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            self.target.cancel(client);
        }
    }
}

/// A network that drops packets, and a server that is gone without a word, are noticed within a minute
/// or two and not only after hours. What the URL says counts.
fn notice_silence(config: &mut tokio_postgres::Config) {
    let unset = tokio_postgres::Config::new();
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(Duration::from_secs(30));
    }
    if config.get_keepalives_idle() == unset.get_keepalives_idle() {
        config.keepalives_idle(Duration::from_secs(60));
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(Duration::from_secs(10));
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(3);
    }
}

/// A limit that the server keeps: how long one statement may take.
pub(super) type StatementTimeout = Option<Duration>;

#[allow(clippy::clone_on_copy, reason = "the connector of TLS is no Copy")]
impl Target {
    /// Reads a URL and the certificates that it names.
    pub(super) fn new(url: &str, options: &Options) -> Result<Self, Error> {
        let url::Parsed { mut config, tls } = url::parse(url)?;
        let connector = tls::connector(&tls)?;
        if config.get_application_name().is_none() {
            config.application_name("annals");
        }
        let connect_timeout =
            config.get_connect_timeout().copied().unwrap_or(options.connect_timeout);
        config.connect_timeout(connect_timeout);
        notice_silence(&mut config);
        let pooled = options.pooled;
        Ok(Self(Arc::new(Inner { config, connector, connect_timeout, pooled })))
    }

    /// The same, past the pooler.
    pub(super) fn direct(url: &str, options: &Options) -> Result<Self, Error> {
        Self::new(url, &Options { pooled: false, ..options.clone() })
    }

    /// True if a pooler stands in between that gives each transaction another session.
    pub(super) fn is_pooled(&self) -> bool {
        self.0.pooled
    }

    /// Without user and password.
    pub(super) fn name(&self) -> String {
        let config = &self.0.config;
        let port = |index: usize| match config.get_ports() {
            [] => 5432,
            [port] => *port,
            ports => ports.get(index).copied().unwrap_or(5432),
        };
        let hosts: Vec<_> = config
            .get_hosts()
            .iter()
            .enumerate()
            .map(|(index, host)| match host {
                Host::Tcp(host) => format!("{host}:{}", port(index)),
                Host::Unix(path) => format!("{}:{}", path.display(), port(index)),
            })
            .collect();
        format!("{}/{}", hosts.join(","), config.get_dbname().unwrap_or_default())
    }

    /// The settings of a session. A pooler refuses them; behind one they are the role's to have.
    fn config(&self, limit: StatementTimeout) -> tokio_postgres::Config {
        let mut config = self.0.config.clone();
        if !self.0.pooled {
            let given = config.get_options().unwrap_or_default();
            // The store's functions look again after they have waited, whatever the database's default.
            let mut options = format!("{given} -c default_transaction_isolation=read\\ committed");
            if let Some(limit) = limit {
                // Zero would be no limit at all.
                let limit = limit.as_millis().clamp(1, i32::MAX as u128);
                options.push_str(&format!(" -c statement_timeout={limit}"));
            }
            config.options(options.trim());
        }
        config
    }

    /// One connection outside of all pools.
    pub(super) async fn connect(
        &self,
    ) -> Result<(tokio_postgres::Client, Connection<Socket, Stream>), Error> {
        let connecting = tokio::time::timeout(self.0.connect_timeout, self.connect_once());
        match connecting.await {
            Ok(connected) => connected.map_err(|error| self.error(error)),
            Err(elapsed) => Err(self.error(elapsed)),
        }
    }

    /// The same, without a limit on all of it.
    pub(super) async fn connect_once(
        &self,
    ) -> Result<(tokio_postgres::Client, Connection<Socket, Stream>), tokio_postgres::Error> {
        self.config(None).connect(self.0.connector.clone()).await
    }

    pub(super) fn pool(&self, size: usize, limit: StatementTimeout) -> Result<Pool, Error> {
        let manager = Manager::from_config(
            self.config(limit),
            self.0.connector.clone(),
            // It asks the server nothing and sets nothing.
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        Pool::builder(manager)
            .max_size(size)
            .timeouts(Timeouts {
                wait: Some(Duration::from_secs(30)),
                create: Some(self.0.connect_timeout),
                recycle: Some(self.0.connect_timeout),
            })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| self.error(error))
    }

    /// A connection of a pool.
    pub(super) async fn client(
        &self,
        pool: &Pool,
        dialect: &Arc<Dialect>,
    ) -> Result<Client, Error> {
        match pool.get().await {
            Ok(client) => Ok(Client::new(client, dialect.clone())),
            Err(PoolError::Closed) => Err(Error::Closed),
            Err(PoolError::Backend(error)) => Err(self.error(error)),
            Err(error @ PoolError::Timeout(TimeoutType::Wait)) => Err(Error::Database {
                action: "get a connection: all of the pool's stay taken",
                source: Box::new(error),
                retryable: true,
            }),
            Err(error) => Err(self.error(error)),
        }
    }

    /// A connection of a pool that is about to do something that may take long.
    pub(super) async fn busy(&self, pool: &Pool, dialect: &Arc<Dialect>) -> Result<Busy, Error> {
        Ok(Busy { target: self.clone(), client: Some(self.client(pool, dialect).await?) })
    }

    /// Asks the server to give up what the connection is doing. It may be too late.
    fn cancel(&self, client: Client) {
        // Without a runtime, the server notices when it has something to say.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return client.discard() };
        let (token, connector) = (client.cancel_token(), self.0.connector.clone());
        let limit = self.0.connect_timeout;
        runtime.spawn(async move {
            if let Ok(Err(error)) = tokio::time::timeout(limit, token.cancel_query(connector)).await
            {
                tracing::debug!(%error, "the statement that took too long was not cancelled");
            }
            // Only now: a pooler does not cancel for a client that is gone.
            client.discard();
        });
    }

    fn error(&self, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        let refused = (&error as &dyn std::any::Any)
            .downcast_ref::<tokio_postgres::Error>()
            .and_then(tokio_postgres::Error::code)
            .is_some_and(|code| *code == SqlState::PROTOCOL_VIOLATION);
        let (target, source) = (self.name(), Box::new(error));
        if refused && !self.0.pooled {
            return Error::SettingsRefused { target, source };
        }
        Error::Connect { target, source }
    }
}
