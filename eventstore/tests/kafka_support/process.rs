//! A publisher in a process of its own, that is killed, paused, or fails at a step.

use std::{
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use annals_eventstore::{EventStore, kafka::Delivery};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{LEASE, Setup, publisher};

/// What happens at a fail point.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// The process ends at once, as with SIGKILL.
    Die,
    /// The process stops, as with SIGSTOP.
    Pause,
    /// The step reports a failure, although it was done.
    LoseAnswer,
    /// The step goes on when the process has been told to stop, and the grace for that is over.
    Linger,
}

/// A publisher process that is about to start.
pub(crate) struct Start<'a> {
    setup: &'a Setup,
    delivery: Delivery,
    transaction_timeout: Duration,
    lease: Duration,
    fault: Option<(&'static str, usize, What)>,
}

/// A publisher in a process of its own, which ends with this.
pub(crate) struct Process(Child);

impl Process {
    /// What a test binary has as its test `publisher_process`.
    pub(crate) async fn run() {
        let Ok(url) = std::env::var("PUBLISH_STORE") else { return };
        let variable = |name: &str| std::env::var(name).unwrap();
        let delivery = match &*variable("PUBLISH_DELIVERY") {
            "ExactlyOnce" => Delivery::ExactlyOnce,
            "AtLeastOnce" => Delivery::AtLeastOnce,
            other => panic!("{other}"),
        };
        if let Ok(point) = std::env::var("PUBLISH_POINT") {
            arm(point, variable("PUBLISH_COUNT").parse().unwrap(), &variable("PUBLISH_WHAT"));
        }
        let milliseconds = |name| Duration::from_millis(variable(name).parse().unwrap());
        let stop = CancellationToken::new();
        let (mut told, stopping) = (signal(SignalKind::terminate()).unwrap(), stop.clone());
        tokio::spawn(async move {
            told.recv().await;
            STOPPING.store(true, Ordering::Relaxed);
            stopping.cancel();
        });
        let store = EventStore::connect(&url).await.unwrap();
        publisher(&variable("KAFKA_BROKERS"), &variable("PUBLISH_CONTEXT"))
            .delivery(delivery)
            .lease_time_to_live(milliseconds("PUBLISH_LEASE"))
            .transaction_timeout(milliseconds("PUBLISH_TIMEOUT"))
            .build(&store)
            .unwrap()
            .run_until(stop)
            .await
            .unwrap();
    }

    /// Whether this process is one that [`run`](Self::run) is for.
    pub(crate) fn is_one() -> bool {
        std::env::var_os("PUBLISH_STORE").is_some()
    }

    /// One with the defaults, which is there until it is killed.
    pub(crate) fn start(setup: &Setup) -> Self {
        Self::of(setup).start()
    }

    pub(crate) fn of(setup: &Setup) -> Start<'_> {
        Start {
            setup,
            delivery: Delivery::ExactlyOnce,
            transaction_timeout: Duration::from_secs(30),
            lease: LEASE,
            fault: None,
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        signal_to(self.0.id(), signal);
    }

    /// Waits until it has died by itself.
    pub(crate) async fn died(&mut self) {
        let start = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "it does not come by the fail point"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until it has paused by itself.
    pub(crate) async fn paused(&self) {
        let start = Instant::now();
        let stat = format!("/proc/{}/stat", self.0.id());
        let is_paused = || std::fs::read_to_string(&stat).unwrap().contains(") T ");
        while !is_paused() {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "it does not come by the fail point"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Start<'_> {
    pub(crate) fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    pub(crate) fn transaction_timeout(mut self, timeout: Duration) -> Self {
        self.transaction_timeout = timeout;
        self
    }

    pub(crate) fn lease(mut self, time_to_live: Duration) -> Self {
        self.lease = time_to_live;
        self
    }

    /// When it comes by a fail point for this time, counted from 1.
    pub(crate) fn at(mut self, point: &'static str, count: usize, what: What) -> Self {
        self.fault = Some((point, count, what));
        self
    }

    pub(crate) fn start(self) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "publisher_process", "--nocapture"])
            .env("PUBLISH_STORE", &self.setup.url)
            .env("PUBLISH_CONTEXT", &self.setup.context)
            .env("PUBLISH_DELIVERY", format!("{:?}", self.delivery))
            .env("PUBLISH_TIMEOUT", self.transaction_timeout.as_millis().to_string())
            .env("PUBLISH_LEASE", self.lease.as_millis().to_string())
            .env("KAFKA_BROKERS", &self.setup.brokers)
            .stdout(Stdio::null());
        if let Some((point, count, what)) = self.fault {
            command
                .env("PUBLISH_POINT", point)
                .env("PUBLISH_COUNT", count.to_string())
                .env("PUBLISH_WHAT", format!("{what:?}"));
        }
        Process(command.spawn().unwrap())
    }
}

impl Drop for Process {
    /// SIGKILL.
    fn drop(&mut self) {
        // It may have died before.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

/// Whether this process was told to stop.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Has the process fail when it comes by a point for the given time.
fn arm(point: String, count: usize, what: &str) {
    let passed = AtomicUsize::new(1);
    let comes_by = move || passed.fetch_add(1, Ordering::Relaxed) == count;
    match what {
        "Die" => fail::cfg_callback(point, move || {
            if comes_by() {
                signal_to(std::process::id(), "-KILL");
            }
        }),
        "Pause" => fail::cfg_callback(point, move || {
            if comes_by() {
                signal_to(std::process::id(), "-STOP");
            }
        }),
        "Linger" => fail::cfg_callback(point, move || {
            if comes_by() {
                while !STOPPING.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(Duration::from_millis(520));
            }
        }),
        "LoseAnswer" => fail::cfg(point, &format!("{}*off->1*return->off", count - 1)),
        other => panic!("{other}"),
    }
    .unwrap();
}

fn signal_to(process: u32, signal: &str) {
    let status = Command::new("kill").args([signal, &process.to_string()]).status();
    assert!(status.unwrap().success());
}
