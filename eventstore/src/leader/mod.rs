//! Leader election: of several processes, one at a time does what must be done by one.
//!
//! Workers and publishers are singletons by themselves. This is for yours: a report at night, a job that calls a
//! service with one session, an importer. Processes [campaign](Election::campaign) under a name; one gets the
//! [`Leadership`], the others wait. It is a [lease](crate::postgres::Lease), renewed in the background. A leader that
//! dies is replaced when its lease ends, one that [resigns](Leadership::resign) at once.
//!
//! # What keeps two leaders apart
//! Not time. A process can be stopped for an hour between "am I the leader?" and what it does next, and it does not
//! know. So each leadership has an *epoch*, higher than any before it, and what a leader writes is fenced by it:
//!
//! - **In the store's database**, [`Leadership::guard`] in the transaction that writes. If it succeeds, this is the last
//!   leader there was, and no other comes to lead before that transaction has ended. A former leader's fails.
//! - **Elsewhere**, hand [`Leadership::epoch`] on, and have it refused by whoever has seen a higher one.
//!
//! [`Leadership::lost`] tells that it is over, so that work ends soon. It is by this process's own clock, which begins to
//! count before the database does: a process that is not paused hears of it before there is another leader. That is a
//! courtesy, and not what safety rests on.
//!
//! ```no_run
//! use annals_eventstore::{EventStore, leader::Election};
//!
//! # async fn run(store: EventStore) -> Result<(), Box<dyn std::error::Error>> {
//! let election = Election::new(&store, "nightly-report")?;
//! loop {
//!     let leadership = election.campaign().await?;
//!     let work = async {
//!         let mut unit = store.begin().await?;
//!         leadership.guard(unit.sql()?).await?;
//!         unit.sql()?.batch_execute("insert into reports select now(), count(*) from loans").await?;
//!         unit.commit().await?;
//!         Ok::<_, Box<dyn std::error::Error>>(())
//!     };
//!     match leadership.run(work).await {
//!         Some(Ok(())) => return Ok(leadership.resign().await?),
//!         Some(Err(error)) => eprintln!("to be done again: {error}"),
//!         None => eprintln!("another leads by now"),
//!     }
//! }
//! # }
//! ```
//!
//! The technique is Gray and Cheriton's lease (1989), with the token by which M. Kleppmann fences it off (How to do
//! distributed locking, 2016), checked in the transaction that it guards.

mod election;
mod leadership;

pub use self::{
    election::{Election, Leader, leaders},
    leadership::Leadership,
};
