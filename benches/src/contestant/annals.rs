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
}

impl Annals {
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        Ok(Self { store: EventStore::connect(url).await? })
    }
}

#[async_trait]
impl Contestant for Annals {
    fn about(&self) -> About {
        About {
            name: "annals",
            version: env!("CARGO_PKG_VERSION"),
            setup: "EventStore::connect, default options; accounts are opened by a command that starts",
        }
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
