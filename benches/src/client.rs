//! A client of the bank: it commands accounts of its own, and knows what they must hold.

use std::sync::Arc;

use anyhow::{Result, ensure};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use uuid::Uuid;

use crate::{
    bank::Action,
    contestant::Contestant,
    measure::{Kind, Worker},
};

/// One command in this many opens an account, so streams have this many events on average, however
/// fast the store is.
const STREAM_LENGTH: u32 = 5;

/// A client. No two of them command the same account, so nobody's conflicts are measured.
pub(crate) struct Client {
    contestant: Arc<dyn Contestant>,
    random: SmallRng,
    /// Each account with its balance.
    accounts: Vec<(Uuid, i64)>,
    /// How many of ten steps only load an account.
    loads: u32,
    /// What the last step was.
    last: Kind,
}

impl Client {
    pub(crate) fn new(contestant: Arc<dyn Contestant>, seed: u64, loads: u32) -> Self {
        let random = SmallRng::seed_from_u64(seed);
        Self { contestant, random, accounts: Vec::new(), loads, last: Kind::Main }
    }

    /// So many of them.
    pub(crate) fn many(contestant: &Arc<dyn Contestant>, count: usize, loads: u32) -> Vec<Self> {
        (0..count).map(|seed| Self::new(contestant.clone(), seed as u64, loads)).collect()
    }

    /// Opens an account or moves money on one.
    pub(crate) async fn command(&mut self) -> Result<()> {
        if self.accounts.is_empty() || self.random.random_ratio(1, STREAM_LENGTH) {
            let (account, deposit) = (Uuid::now_v7(), self.random.random_range(100..10_000));
            let owner = format!("customer {}", self.random.random_range(0..1_000_000));
            self.contestant.execute(account, Action::Open { owner, deposit }).await?;
            self.accounts.push((account, deposit));
            return Ok(());
        }
        let index = self.random.random_range(0..self.accounts.len());
        let (account, balance) = self.accounts[index];
        let amount = self.random.random_range(1..=50);
        let reference = format!("invoice {}", self.random.random_range(0..1_000_000));
        // A refusal would be a command without an event.
        let (action, change) = if balance < amount || self.random.random() {
            (Action::Deposit { amount, reference }, amount)
        } else {
            (Action::Withdraw { amount, reference }, -amount)
        };
        self.contestant.execute(account, action).await?;
        self.accounts[index].1 += change;
        Ok(())
    }

    /// Loads an account, and checks that it holds what was acknowledged.
    pub(crate) async fn load(&mut self) -> Result<()> {
        let index = self.random.random_range(0..self.accounts.len());
        let (account, balance) = self.accounts[index];
        let loaded = self.contestant.balance(account).await?;
        ensure!(
            loaded == Some(balance),
            "{} lost a command: account {account} holds {loaded:?}, not {balance}",
            self.contestant.about().name
        );
        Ok(())
    }
}

impl Worker for Client {
    async fn step(&mut self) -> Result<u64> {
        if !self.accounts.is_empty() && self.random.random_ratio(self.loads, 10) {
            self.last = Kind::Load;
            self.load().await?;
        } else {
            self.last = Kind::Main;
            self.command().await?;
        }
        Ok(1)
    }

    fn kind(&self) -> Kind {
        self.last
    }
}
