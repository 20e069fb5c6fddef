//! disintegrate on disintegrate-postgres: decisions on state queries, no snapshots, no listener.

use anyhow::{Result, anyhow};
use async_trait::async_trait;
use disintegrate::{
    Decision, Event, EventSourcedStateStore, LoadState, NoSnapshot, StateMutate, StateQuery,
    serde::json::Json,
};
use disintegrate_postgres::{PgDecisionMaker, PgEventId, PgEventStore, decision_maker};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use super::{About, Contestant};
use crate::bank::{AccountEvent, Action, Balance, Refused};

/// The events of an account, each with its account, as this crate wants it.
#[derive(Clone, Debug, PartialEq, Eq, Event, Serialize, Deserialize)]
#[stream(AccountStream, [Opened, Deposited, Withdrawn])]
enum BankEvent {
    Opened {
        #[id]
        account: Uuid,
        owner: String,
        deposit: i64,
    },
    Deposited {
        #[id]
        account: Uuid,
        amount: i64,
        reference: String,
    },
    Withdrawn {
        #[id]
        account: Uuid,
        amount: i64,
        reference: String,
    },
}

#[derive(Clone, Default, StateQuery, Serialize, Deserialize)]
#[state_query(AccountStream)]
struct Account {
    #[id]
    account: Uuid,
    balance: Balance,
}

impl StateMutate for Account {
    fn mutate(&mut self, event: AccountStream) {
        self.balance.apply(&match event {
            AccountStream::Opened { owner, deposit, .. } => AccountEvent::Opened { owner, deposit },
            AccountStream::Deposited { amount, reference, .. } => {
                AccountEvent::Deposited { amount, reference }
            }
            AccountStream::Withdrawn { amount, reference, .. } => {
                AccountEvent::Withdrawn { amount, reference }
            }
        });
    }
}

struct Act {
    account: Uuid,
    action: Action,
}

impl Decision for Act {
    type Event = BankEvent;
    type StateQuery = Account;
    type Error = Refused;

    fn state_query(&self) -> Account {
        Account { account: self.account, balance: Balance::default() }
    }

    fn process(&self, state: &Account) -> Result<Vec<BankEvent>, Refused> {
        let account = self.account;
        Ok(vec![match state.balance.decide(self.action.clone())? {
            AccountEvent::Opened { owner, deposit } => {
                BankEvent::Opened { account, owner, deposit }
            }
            AccountEvent::Deposited { amount, reference } => {
                BankEvent::Deposited { account, amount, reference }
            }
            AccountEvent::Withdrawn { amount, reference } => {
                BankEvent::Withdrawn { account, amount, reference }
            }
        }])
    }
}

type Store = PgEventStore<BankEvent, Json<BankEvent>>;

pub(super) struct Disintegrate {
    decisions: PgDecisionMaker<BankEvent, Json<BankEvent>, NoSnapshot>,
    states: EventSourcedStateStore<PgEventId, BankEvent, Store, NoSnapshot>,
}

impl Disintegrate {
    pub(super) async fn connect(url: &str) -> Result<Self> {
        let pool = PgPool::connect(url).await?;
        let store = PgEventStore::try_new(pool, Json::default()).await?;
        let states = EventSourcedStateStore::new(store.clone(), NoSnapshot);
        Ok(Self { decisions: decision_maker(store, NoSnapshot), states })
    }
}

/// True if another decision came in between, by its own check or the server's.
fn is_concurrency(error: &disintegrate::DecisionError<Refused>) -> bool {
    let disintegrate::DecisionError::StateStore(error) = error else { return false };
    match error.downcast_ref() {
        Some(disintegrate_postgres::Error::Concurrency) => true,
        Some(disintegrate_postgres::Error::Database(sqlx::Error::Database(error))) => {
            error.code().as_deref() == Some("40001")
        }
        _ => false,
    }
}

#[async_trait]
impl Contestant for Disintegrate {
    fn about(&self) -> About {
        About {
            name: "disintegrate",
            version: "4.0.1",
            setup: "decision_maker on PgPool::connect (10 connections), JSON, no snapshots",
        }
    }

    async fn execute(&self, account: Uuid, action: Action) -> Result<()> {
        // Its transactions are serializable, and one that fails for that is to be made again.
        loop {
            let act = Act { account, action: action.clone() };
            match self.decisions.make(act).await {
                Ok(_) => return Ok(()),
                Err(error) if is_concurrency(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn balance(&self, account: Uuid) -> Result<Option<i64>> {
        let query = Account { account, balance: Balance::default() };
        let loaded = self.states.load(query).await.map_err(|error| anyhow!(error))?;
        Ok(loaded.state().balance.0)
    }
}
