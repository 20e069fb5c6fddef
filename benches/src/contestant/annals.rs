//! Annals, with its default options.

use annals::{Aggregate, Apply, Command, EventStore, Handle};
use anyhow::Result;
use async_trait::async_trait;
use serde::Serialize;
use uuid::Uuid;

use super::{About, Contestant};
use crate::bank::{AccountEvent, Action, Balance, Refused};

#[derive(Aggregate, Default)]
#[aggregate(category = "account", event = AccountEvent, error = Refused)]
pub(crate) struct Account(pub(crate) Balance);

impl Apply<AccountEvent> for Account {
    fn apply(&mut self, event: &AccountEvent) {
        self.0.apply(event);
    }
}

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Account)]
pub(crate) struct Act {
    #[command(id)]
    pub(crate) account: Uuid,
    pub(crate) action: Action,
}

/// One that starts its stream, so that nothing is looked for first.
#[derive(Command, Serialize, Clone)]
#[command(aggregate = Account, starts)]
pub(crate) struct Open {
    #[command(id)]
    pub(crate) account: Uuid,
    pub(crate) action: Action,
}

impl Handle<Open> for Account {
    fn handle(&self, command: Open) -> Result<Vec<AccountEvent>, Refused> {
        Ok(vec![self.0.decide(command.action)?])
    }
}

impl Handle<Act> for Account {
    fn handle(&self, command: Act) -> Result<Vec<AccountEvent>, Refused> {
        Ok(vec![self.0.decide(command.action)?])
    }
}

pub(crate) struct Annals {
    store: EventStore,
    name: &'static str,
    setup: &'static str,
}

impl Annals {
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        Ok(Self {
            store: EventStore::connect(url).await?,
            name: "annals",
            setup: "EventStore::connect, default options; accounts are opened by a command that starts",
        })
    }

    /// One that loads an account for each command on it.
    pub(crate) async fn without_cache(url: &str) -> Result<Self> {
        Ok(Self {
            store: EventStore::options().cache_bytes(0).connect(url).await?,
            name: "annals, no cache",
            setup: "the same with cache_bytes(0): each command but the first of an account loads it",
        })
    }
}

#[async_trait]
impl Contestant for Annals {
    fn about(&self) -> About {
        About { name: self.name, version: env!("CARGO_PKG_VERSION"), setup: self.setup }
    }

    async fn execute(&self, account: Uuid, action: Action) -> Result<()> {
        match action {
            Action::Open { .. } => self.store.execute(Open { account, action }).await?,
            _ => self.store.execute(Act { account, action }).await?,
        };
        Ok(())
    }

    async fn balance(&self, account: Uuid) -> Result<Option<i64>> {
        Ok(self.store.load::<Account>(account).await?.and_then(|account| account.state.0.0))
    }
}
