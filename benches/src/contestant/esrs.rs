//! esrs: its PgStore with the tables of its own migrations, and the manager around it.

use anyhow::Result;
use async_trait::async_trait;
use esrs::{
    Aggregate, AggregateState,
    manager::AggregateManager,
    store::postgres::{PgStore, PgStoreBuilder},
};
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use super::{About, Contestant};
use crate::bank::{AccountEvent, Action, Balance, Refused};

struct Account;

impl Aggregate for Account {
    const NAME: &'static str = "account";
    type State = Balance;
    type Command = Action;
    type Event = AccountEvent;
    type Error = Refused;

    fn handle_command(state: &Balance, command: Action) -> Result<Vec<AccountEvent>, Refused> {
        Ok(vec![state.decide(command)?])
    }

    fn apply_event(mut state: Balance, event: AccountEvent) -> Balance {
        state.apply(&event);
        state
    }
}

pub(super) struct Esrs {
    manager: AggregateManager<PgStore<Account>>,
}

impl Esrs {
    pub(super) async fn connect(url: &str) -> Result<Self> {
        let pool = PgPoolOptions::new().connect(url).await?;
        let store = PgStoreBuilder::new(pool).try_build().await?;
        Ok(Self { manager: AggregateManager::new(store) })
    }
}

#[async_trait]
impl Contestant for Esrs {
    fn about(&self) -> About {
        About {
            name: "esrs",
            version: "0.18.0",
            setup: "PgStoreBuilder on PgPoolOptions::new (10 connections), AggregateManager",
        }
    }

    async fn execute(&self, account: Uuid, action: Action) -> Result<()> {
        let loaded = self.manager.load(account).await?;
        let state = loaded.unwrap_or_else(|| AggregateState::with_id(account));
        self.manager.handle_command(state, action).await??;
        Ok(())
    }

    async fn balance(&self, account: Uuid) -> Result<Option<i64>> {
        Ok(self.manager.load(account).await?.and_then(|state| state.inner().0))
    }
}
