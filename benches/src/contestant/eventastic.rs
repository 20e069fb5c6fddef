//! eventastic on eventastic_postgres: its own migrations, which keep a snapshot with every save.

use std::{convert::Infallible, str::FromStr};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use eventastic::{
    aggregate::{Aggregate, Context, Root, SideEffect},
    event::DomainEvent,
    repository::Repository,
};
use eventastic_postgres::{
    NoEncryption, PostgresRepository, SideEffectDbError, SideEffectStorage, TableConfig,
};
use serde::{Deserialize, Serialize};
use sqlx::{
    Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use super::{About, Contestant};
use crate::bank::{AccountEvent, Action, Balance};

/// An event names its account and itself, as this crate wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Event {
    event_id: Uuid,
    account: Uuid,
    event: AccountEvent,
}

impl DomainEvent for Event {
    type EventId = Uuid;

    fn id(&self) -> &Uuid {
        &self.event_id
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Account {
    id: Uuid,
    balance: Balance,
}

impl Aggregate for Account {
    const SNAPSHOT_VERSION: u64 = 1;
    type AggregateId = Uuid;
    type DomainEvent = Event;
    type ApplyError = Infallible;
    type SideEffect = NoEffect;

    fn aggregate_id(&self) -> &Uuid {
        &self.id
    }

    fn apply_new(event: &Event) -> Result<Self, Infallible> {
        let mut account = Self { id: event.account, balance: Balance::default() };
        account.apply(event)?;
        Ok(account)
    }

    fn apply(&mut self, event: &Event) -> Result<(), Infallible> {
        self.balance.apply(&event.event);
        Ok(())
    }

    fn side_effects(&self, _: &Event) -> Option<Vec<NoEffect>> {
        None
    }
}

/// A side effect that does not exist.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct NoEffect(Uuid);

impl SideEffect for NoEffect {
    type SideEffectId = Uuid;

    fn id(&self) -> &Uuid {
        &self.0
    }
}

/// Stores no side effects.
#[derive(Clone)]
struct NoOutbox;

#[async_trait]
impl<E: Send> SideEffectStorage<E, NoEffect> for NoOutbox {
    async fn store_side_effects(
        &self,
        _: &mut Transaction<'_, Postgres>,
        _: Vec<NoEffect>,
    ) -> Result<(), SideEffectDbError<E, serde_json::Error>> {
        Ok(())
    }
}

pub(super) struct Eventastic {
    repository: PostgresRepository<Account, NoOutbox, NoEncryption>,
}

impl Eventastic {
    pub(super) async fn connect(url: &str) -> Result<Self> {
        let repository = PostgresRepository::new(
            PgConnectOptions::from_str(url)?,
            PgPoolOptions::default(),
            TableConfig::new("events", "snapshots"),
            NoOutbox,
            NoEncryption,
        )
        .await?;
        repository.run_migrations().await?;
        Ok(Self { repository })
    }
}

#[async_trait]
impl Contestant for Eventastic {
    fn about(&self) -> About {
        About {
            name: "eventastic",
            version: "0.5.0",
            setup: "PostgresRepository on PgPoolOptions::default (10 connections), no side effects",
        }
    }

    async fn execute(&self, account: Uuid, action: Action) -> Result<()> {
        let event = |event| Event { event_id: Uuid::now_v7(), account, event };
        let mut transaction = self.repository.begin_transaction().await?;
        let mut context: Context<Account> = if matches!(action, Action::Open { .. }) {
            // The primary key refuses a second opening.
            Account::record_new(event(Balance::default().decide(action)?))?
        } else {
            let mut context = transaction.get(&account).await?;
            let decided = context.state().balance.decide(action)?;
            context.record_that(event(decided))?;
            context
        };
        transaction.store(&mut context).await?;
        transaction.commit().await.context("cannot commit")
    }

    async fn balance(&self, account: Uuid) -> Result<Option<i64>> {
        Ok(self.repository.load(&account).await?.state().balance.0)
    }
}
