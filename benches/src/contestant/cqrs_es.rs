//! cqrs-es on postgres-es: its own pool (10 connections) and table, no queries, no snapshots.

use anyhow::Result;
use async_trait::async_trait;
use cqrs_es::{
    AggregateContext, DomainEvent, EventStore, event_sink::EventSink, persist::PersistedEventStore,
};
use postgres_es::{PostgresCqrs, PostgresEventRepository, default_postgress_pool, postgres_cqrs};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{About, Contestant};
use crate::bank::{AccountEvent, Action, Balance, Refused};

#[derive(Default, Serialize, Deserialize)]
struct Account(Balance);

impl DomainEvent for AccountEvent {
    fn event_type(&self) -> String {
        match self {
            Self::Opened { .. } => "Opened",
            Self::Deposited { .. } => "Deposited",
            Self::Withdrawn { .. } => "Withdrawn",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}

impl cqrs_es::Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = Action;
    type Event = AccountEvent;
    type Error = Refused;
    type Services = ();

    async fn handle(
        &mut self,
        command: Action,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), Refused> {
        let event = self.0.decide(command)?;
        sink.write(event, self).await;
        Ok(())
    }

    fn apply(&mut self, event: AccountEvent) {
        self.0.apply(&event);
    }
}

pub(super) struct CqrsEs {
    cqrs: PostgresCqrs<Account>,
    /// The framework keeps its own to itself; loading an aggregate takes one.
    store: PersistedEventStore<PostgresEventRepository, Account>,
}

impl CqrsEs {
    pub(super) async fn connect(url: &str) -> Result<Self> {
        let pool = default_postgress_pool(url).await;
        sqlx::raw_sql(EVENTS).execute(&pool).await?;
        let store =
            PersistedEventStore::new_event_store(PostgresEventRepository::new(pool.clone()));
        Ok(Self { cqrs: postgres_cqrs(pool, Vec::new(), ()), store })
    }
}

/// The table as its db/init.sql has it.
const EVENTS: &str = "
    create table events (
        aggregate_type text                         not null,
        aggregate_id   text                         not null,
        sequence       bigint check (sequence >= 0) not null,
        event_type     text                         not null,
        event_version  text                         not null,
        payload        json                         not null,
        metadata       json                         not null,
        primary key (aggregate_type, aggregate_id, sequence)
    )";

#[async_trait]
impl Contestant for CqrsEs {
    fn about(&self) -> About {
        About {
            name: "cqrs-es",
            version: "0.5.0",
            setup: "postgres_cqrs on default_postgress_pool (10 connections), event store",
        }
    }

    async fn execute(&self, account: Uuid, action: Action) -> Result<()> {
        self.cqrs.execute(&account.to_string(), action).await?;
        Ok(())
    }

    async fn balance(&self, account: Uuid) -> Result<Option<i64>> {
        let mut loaded = self.store.load_aggregate(&account.to_string()).await?;
        Ok(loaded.aggregate().0.0)
    }
}
