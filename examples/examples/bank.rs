//! The smallest complete program: an account, two commands, one read model, one as-of query.

use std::time::Duration;

use annals::{
    Aggregate, Apply, AsOf, Change, Command, Consistency, Event, EventStore, ExecuteError, Handle,
    Project, QueryReadModels, ReadModel, Recorded, Worker,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What happens to an account. Only this is stored.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum AccountEvent {
    Deposited { amount: i64 },
    Withdrawn { amount: i64 },
}

/// An account, as far as decisions need it: folded from its events.
#[derive(Aggregate, Default)]
#[aggregate(category = "account", event = AccountEvent, error = Overdrawn)]
struct Account {
    balance: i64,
}

impl Apply<AccountEvent> for Account {
    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited { amount } => self.balance += amount,
            AccountEvent::Withdrawn { amount } => self.balance -= amount,
        }
    }
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("the balance is only {balance}")]
struct Overdrawn {
    balance: i64,
}

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Account)]
struct Deposit {
    #[command(id)]
    account: Uuid,
    amount: i64,
}

impl Handle<Deposit> for Account {
    fn handle(&self, command: Deposit) -> Result<Vec<AccountEvent>, Overdrawn> {
        Ok(vec![AccountEvent::Deposited { amount: command.amount }])
    }
}

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Account)]
struct Withdraw {
    #[command(id)]
    account: Uuid,
    amount: i64,
}

impl Handle<Withdraw> for Account {
    fn handle(&self, command: Withdraw) -> Result<Vec<AccountEvent>, Overdrawn> {
        if command.amount > self.balance {
            return Err(Overdrawn { balance: self.balance });
        }
        Ok(vec![AccountEvent::Withdrawn { amount: command.amount }])
    }
}

/// A row of the table `account_overview`, whose every version is kept.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "account_overview", from(Account), history)]
struct AccountOverview {
    #[read_model(key)]
    account: Uuid,
    balance: i64,
    movements: i64,
}

impl Project<AccountEvent> for AccountOverview {
    fn project(row: Option<Self>, event: &Recorded<AccountEvent>) -> Change<Self> {
        let Ok(account) = event.stream.key().parse() else { return Change::Keep };
        let mut row = row.unwrap_or(Self { account, balance: 0, movements: 0 });
        row.movements += 1;
        match event.event {
            AccountEvent::Deposited { amount } => row.balance += amount,
            AccountEvent::Withdrawn { amount } => row.balance -= amount,
        }
        Change::Set(row)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("DATABASE_URL")?;
    let store = EventStore::options().schema("bank").connect(&url).await?;
    tokio::spawn(Worker::new(&store).projection::<AccountOverview>().run());

    // Commands: load the account, decide, append what happens.
    let account = Uuid::now_v7();
    let deposited = store.execute(Deposit { account, amount: 100 }).await?;
    println!("deposited 100: the account is at version {}", deposited.version);
    let withdrawn = store.execute(Withdraw { account, amount: 30 }).await?;
    println!("withdrew 30: the account is at version {}", withdrawn.version);
    if let Err(ExecuteError::Rejected(reason)) =
        store.execute(Withdraw { account, amount: 80 }).await
    {
        println!("80 more is refused: {reason}");
    }

    // A query that sees what the command did, and one of the past.
    let fresh = Consistency::AtLeast(withdrawn.position, Duration::from_secs(10));
    let now = store.query::<AccountOverview>().consistency(fresh).get(&account).await?;
    println!("the overview now: {:?}", now.map(|row| (row.balance, row.movements)));
    let before = AsOf::Position(deposited.position);
    let then = store.query::<AccountOverview>().as_of(before).get(&account).await?;
    println!("as of the deposit: {:?}", then.map(|row| (row.balance, row.movements)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use annals::{
        EventShapes,
        testkit::{Given, Projected},
    };

    use super::*;

    #[test]
    fn money_that_is_not_there_is_not_paid_out() {
        let account = Uuid::nil();
        Given::<Account>(vec![AccountEvent::Deposited { amount: 100 }])
            .when(Withdraw { account, amount: 101 })
            .then_rejected(Overdrawn { balance: 100 });
    }

    #[test]
    fn the_overview_counts_movements() {
        let account = Uuid::nil();
        Projected::<AccountOverview>::new()
            .event::<Account>(account, AccountEvent::Deposited { amount: 100 })
            .event::<Account>(account, AccountEvent::Withdrawn { amount: 30 })
            .then(account, Some(AccountOverview { account, balance: 70, movements: 2 }));
    }

    #[test]
    fn stored_events_keep_their_shapes() {
        EventShapes::new().aggregate::<Account>().assert_locked("examples/bank.lock");
    }
}
