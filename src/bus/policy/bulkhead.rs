//! Compartments: what floods one does not sink the others.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use annals_eventstore::{Command, Error, Handle};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use super::load_shed::Counted;
use crate::bus::{
    BusError, Dispatch, Origin, Policy, Refusal, Request, Response,
    metrics::{RUNNING, WAITING},
};

/// Above so many compartments, those that nobody is in are forgotten.
const KEPT: usize = 1024;

/// Gives each kind of command, or each tenant, a compartment of its own: so many commands run in it at once,
/// so many wait, and more are refused. What hangs in one leaves the places of the others free.
///
/// The gauges `annals_bulkhead_running` and `annals_bulkhead_waiting` show how full they are, by compartment where there
/// is one for each kind of command. Tenants are too many for labels: theirs are added up under `tenants`, and those of
/// a function under `others`.
pub struct Bulkhead {
    compartment_of: Box<CompartmentOf>,
    /// Under what all compartments are shown, unless each is by its own name.
    shown_as: Option<&'static str>,
    running: usize,
    waiting: usize,
    compartments: Mutex<HashMap<String, Arc<Compartment>>>,
}

type CompartmentOf = dyn Fn(&'static str, &Origin) -> String + Send + Sync;

struct Compartment {
    places: Semaphore,
    waiting: AtomicUsize,
    running_gauge: metrics::Gauge,
    waiting_gauge: metrics::Gauge,
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { running, waiting, .. } = self;
        f.debug_struct("Bulkhead")
            .field("running", running)
            .field("waiting", waiting)
            .finish_non_exhaustive()
    }
}

impl Bulkhead {
    /// A compartment for each kind of command, in which so many run at once.
    pub fn per_command(running: usize) -> Self {
        Self { shown_as: None, ..Self::by(running, |command, _| command.to_owned()) }
    }

    /// A compartment for each tenant, in which so many run at once. Commands without one share one.
    pub fn per_tenant(running: usize) -> Self {
        let by = Self::by(running, |_, origin| origin.tenant.clone().unwrap_or_default());
        Self { shown_as: Some("tenants"), ..by }
    }

    /// The compartments that a function of the command's name and its origin says, in each of which so many run
    /// at once.
    pub fn by(
        running: usize,
        compartment_of: impl Fn(&'static str, &Origin) -> String + Send + Sync + 'static,
    ) -> Self {
        let running = running.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            compartment_of: Box::new(compartment_of),
            shown_as: Some("others"),
            running,
            waiting: running,
            compartments: Mutex::default(),
        }
    }

    /// Sets how many may wait for a place: as many as run, unless set.
    #[must_use]
    pub fn waiting(mut self, waiting: usize) -> Self {
        self.waiting = waiting;
        self
    }

    fn compartment(&self, name: &str) -> Arc<Compartment> {
        // It is whole after each call, wherever a panic happens.
        let mut all = self.compartments.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compartment) = all.get(name) {
            return compartment.clone();
        }
        if all.len() >= KEPT {
            all.retain(|_, compartment| Arc::strong_count(compartment) > 1);
        }
        let label = self.shown_as.unwrap_or(name);
        let compartment = Arc::new(Compartment {
            places: Semaphore::new(self.running),
            waiting: AtomicUsize::new(0),
            running_gauge: metrics::gauge!(RUNNING.name, "compartment" => label.to_owned()),
            waiting_gauge: metrics::gauge!(WAITING.name, "compartment" => label.to_owned()),
        });
        all.insert(name.to_owned(), compartment.clone());
        compartment
    }
}

impl Policy for Bulkhead {
    async fn around<C, S>(&self, request: Request<C>, inner: S) -> Response<C>
    where
        C: Command,
        C::Aggregate: Handle<C>,
        S: Dispatch<C>,
    {
        let name = (self.compartment_of)(C::NAME, &request.origin);
        let compartment = self.compartment(&name);
        let _place = match compartment.places.try_acquire() {
            Ok(place) => place,
            Err(_) => {
                let Some(_waiting) = Waiting::join(&compartment.waiting, self.waiting) else {
                    let Self { running, waiting, .. } = *self;
                    return Err(Refusal::Full { compartment: name, running, waiting }.into());
                };
                let _counted = Counted::in_gauge(&compartment.waiting_gauge);
                // It is never closed.
                compartment.places.acquire().await.map_err(|_| BusError::Failed(Error::Closed))?
            }
        };
        let _counted = Counted::in_gauge(&compartment.running_gauge);
        inner.oneshot(request).await
    }
}

/// One of those who wait, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(waiting: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let joined = waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
            (waiting < limit).then_some(waiting + 1)
        });
        joined.ok().map(|_| Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::policy::testing::{
        Account, AccountEvent, Deposit, Inner, Refused, bus, outcomes,
    };

    #[tokio::test]
    async fn so_many_run_so_many_wait_and_more_are_refused() {
        let inner = Inner::slow();
        let bus = bus(Bulkhead::per_command(2).waiting(3), &inner);
        let (done, refused) = outcomes(&bus, 12).await;
        assert_eq!((done, refused.len(), inner.most_at_once()), (5, 7, 2));
        // Those who gave up waiting have left.
        assert_eq!(outcomes(&bus, 12).await.0, 5);
    }

    #[derive(annals_eventstore::Command, serde::Serialize, Clone)]
    #[command(aggregate = Account)]
    struct Look {
        #[command(id)]
        account: String,
    }

    impl Handle<Look> for Account {
        fn handle(&self, _: Look) -> Result<Vec<AccountEvent>, Refused> {
            Ok(vec![])
        }
    }

    #[tokio::test]
    async fn a_kind_that_hangs_leaves_the_others_alone() {
        let inner = Inner::hanging_for("slow");
        let bus = bus(Bulkhead::per_command(2).waiting(0), &inner);
        let deposit = || Request::new(Deposit::any()).tenant("slow");
        let hanging: Vec<_> = (0..2)
            .map(|_| {
                let (bus, request) = (bus.clone(), deposit());
                tokio::spawn(async move { bus.send(request).await })
            })
            .collect();
        inner.wait_for_calls(2).await;
        for _ in 0..20 {
            bus.send(Look { account: "ada".to_owned() }).await.unwrap();
        }
        let refused = bus.send(deposit()).await;
        assert!(matches!(refused, Err(BusError::Refused(Refusal::Full { .. }))), "{refused:?}");
        hanging.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn a_tenant_that_hangs_leaves_the_others_alone() {
        let inner = Inner::hanging_for("slow");
        let bus = bus(Bulkhead::per_tenant(2).waiting(0), &inner);
        let request = |tenant: &str| Request::new(Deposit::any()).tenant(tenant);
        let hanging: Vec<_> = (0..2)
            .map(|_| {
                let (bus, request) = (bus.clone(), request("slow"));
                tokio::spawn(async move { bus.send(request).await })
            })
            .collect();
        inner.wait_for_calls(2).await;
        for _ in 0..20 {
            bus.send(request("quick")).await.unwrap();
        }
        let refused = bus.send(request("slow")).await;
        assert!(matches!(refused, Err(BusError::Refused(Refusal::Full { .. }))), "{refused:?}");
        hanging.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[test]
    fn tenants_that_are_gone_are_forgotten() {
        let bulkhead = Bulkhead::per_tenant(1);
        let kept = bulkhead.compartment("kept");
        for tenant in 0..10 * KEPT {
            let _ = bulkhead.compartment(&tenant.to_string());
        }
        assert!(bulkhead.compartments.lock().unwrap().len() <= KEPT);
        assert!(Arc::ptr_eq(&kept, &bulkhead.compartment("kept")));
    }
}
