//! The domain that everybody is measured with: bank accounts.
//!
//! A command opens an account, pays in or pays out, and leads to one event. It needs the account's
//! state: an account is opened once, and nothing is paid out that is not there.

use serde::{Deserialize, Serialize};

/// What a client asks for. The account is named beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Action {
    Open { owner: String, deposit: i64 },
    Deposit { amount: i64, reference: String },
    Withdraw { amount: i64, reference: String },
}

/// What happens to an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, annals::Event)]
pub(crate) enum AccountEvent {
    Opened { owner: String, deposit: i64 },
    Deposited { amount: i64, reference: String },
    Withdrawn { amount: i64, reference: String },
}

/// An account as far as decisions need it; `None` before it is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Balance(pub(crate) Option<i64>);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the account is open already")]
    Open,
    #[error("the account is not open")]
    NotOpen,
    #[error("the balance is only {0}")]
    Overdrawn(i64),
}

impl Balance {
    /// Decides: the same rules for everybody.
    pub(crate) fn decide(self, action: Action) -> Result<AccountEvent, Refused> {
        match (self.0, action) {
            (Some(_), Action::Open { .. }) => Err(Refused::Open),
            (None, Action::Open { owner, deposit }) => Ok(AccountEvent::Opened { owner, deposit }),
            (None, _) => Err(Refused::NotOpen),
            (Some(_), Action::Deposit { amount, reference }) => {
                Ok(AccountEvent::Deposited { amount, reference })
            }
            (Some(balance), Action::Withdraw { amount, reference }) => {
                if amount > balance {
                    return Err(Refused::Overdrawn(balance));
                }
                Ok(AccountEvent::Withdrawn { amount, reference })
            }
        }
    }

    pub(crate) fn apply(&mut self, event: &AccountEvent) {
        let balance = self.0.unwrap_or_default();
        self.0 = Some(match event {
            AccountEvent::Opened { deposit, .. } => *deposit,
            AccountEvent::Deposited { amount, .. } => balance + amount,
            AccountEvent::Withdrawn { amount, .. } => balance - amount,
        });
    }
}
