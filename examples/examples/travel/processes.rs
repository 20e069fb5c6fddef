//! The processes of a run: started, killed, started again.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use rand::Rng;
use reqwest::{Client, Url};

use crate::{
    databases::{BOOKING, Databases},
    faults::Faults,
    kind::Kind,
};

/// How long a process may take until it answers. Machines are slow when they are busy.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// Where ports are looked for: below those that the kernel gives to outgoing connections, one of which could take a
/// port while its process is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A process of this program, with a role of its own.
pub(crate) struct Process {
    name: &'static str,
    arguments: Vec<String>,
    /// Not among the arguments, which everybody on the machine can read.
    secrets: Vec<(&'static str, String)>,
    address: SocketAddr,
    child: Option<Child>,
    client: Client,
}

impl Process {
    /// A process that is not started yet, of this service.
    fn new(service: &str, name: &'static str, address: SocketAddr, databases: &Databases) -> Self {
        let arguments = [service, "--attached", "--listen", &address.to_string()];
        Self {
            name,
            arguments: arguments.map(str::to_owned).into(),
            secrets: vec![("DATABASE_URL", databases.url(service))],
            address,
            child: None,
            client: Client::new(),
        }
    }

    fn with(mut self, option: &str, value: impl ToString) -> Self {
        self.arguments.extend([option.to_owned(), value.to_string()]);
        self
    }

    fn with_secret(mut self, name: &'static str, value: String) -> Self {
        self.secrets.push((name, value));
        self
    }

    /// What it does.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> anyhow::Result<Url> {
        Ok(format!("http://{}", self.address).parse()?)
    }

    /// Starts it, and waits until it answers.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let child = Command::new(program)
            .args(&self.arguments)
            .envs(self.secrets.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(child.with_context(|| format!("cannot start {}", self.name))?);
        let health = self.url()?.join("/health")?;
        let begun = Instant::now();
        loop {
            self.must_run()?;
            let answer = self.client.get(health.clone()).timeout(Duration::from_secs(5)).send();
            if answer.await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if begun.elapsed() > STARTS_WITHIN {
                bail!("{} did not answer within {STARTS_WITHIN:?}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Fails if it has ended by itself.
    pub(crate) fn must_run(&mut self) -> anyhow::Result<()> {
        match &mut self.child {
            Some(child) => match child.try_wait()? {
                Some(status) => bail!("{} ended by itself: {status}", self.name),
                None => Ok(()),
            },
            None => bail!("{} does not run", self.name),
        }
    }

    /// Kills it where it stands, by SIGKILL.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).context("cannot kill a process")?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that cannot be killed ends when its stdin does.
        let _ = self.kill();
    }
}

/// The processes of a run, the three services first, then two of the booking service.
pub(crate) struct Processes {
    all: [Process; 5],
}

/// The shops of a run: the keys of one that books, and of one that asks too much.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) polite: String,
    pub(crate) rude: String,
}

impl Keys {
    pub(crate) fn drawn() -> Self {
        let key = || format!("{:032x}", rand::rng().random::<u128>());
        Self { polite: key(), rude: key() }
    }
}

impl Processes {
    /// Starts them, the services with these faults. A shop may send so many requests a second to each gateway.
    pub(crate) async fn start(
        databases: &Databases,
        faults: Faults,
        keys: &Keys,
        rate_limit: u32,
    ) -> anyhow::Result<Self> {
        let [flight, hotel, car, booking_at, second_at] = addresses()?;
        let service = |kind: Kind, address| {
            Process::new(kind.name(), kind.name(), address, databases)
                .with("--errors", faults.errors)
                .with("--stalls", faults.stalls)
                .with("--repeats", faults.repeats)
        };
        let services =
            [service(Kind::Flight, flight), service(Kind::Hotel, hotel), service(Kind::Car, car)];
        let clients = format!("polite={},rude={}", keys.polite, keys.rude);
        let booking = |name, address| {
            let mut process = Process::new(BOOKING, name, address, databases)
                .with("--rate-limit", rate_limit)
                .with_secret("TRAVEL_CLIENTS", clients.clone());
            for service in &services {
                process = process.with(&format!("--{}", service.name()), service.url()?);
            }
            anyhow::Ok(process)
        };
        let (mut booking, mut second) =
            (booking(BOOKING, booking_at)?, booking("booking 2", second_at)?);
        let [mut flight, mut hotel, mut car] = services;
        tokio::try_join!(
            flight.start(),
            hotel.start(),
            car.start(),
            booking.start(),
            second.start(),
        )?;
        Ok(Self { all: [flight, hotel, car, booking, second] })
    }

    /// Where bookings are made.
    pub(crate) fn gateways(&self) -> anyhow::Result<Vec<Url>> {
        let [_, _, _, booking, second] = &self.all;
        Ok(vec![booking.url()?, second.url()?])
    }

    /// Kills each of them once within this time, one after the other, and starts it again a second later.
    pub(crate) async fn kill_each_within(
        &mut self,
        time: Duration,
        say: impl Fn(&str),
    ) -> anyhow::Result<()> {
        let begun = tokio::time::Instant::now();
        let share = time / (self.all.len() as u32 + 1);
        for (number, process) in (1..).zip(&mut self.all) {
            tokio::time::sleep_until(begun + share * number).await;
            process.must_run()?;
            process.kill()?;
            say(&format!("{} was killed", process.name()));
            tokio::time::sleep(Duration::from_secs(1)).await;
            process.start().await?;
            say(&format!("{} is back", process.name()));
        }
        Ok(())
    }

    /// Fails if one has ended by itself.
    pub(crate) fn must_run(&mut self) -> anyhow::Result<()> {
        self.all.iter_mut().try_for_each(Process::must_run)
    }
}

/// Addresses that are free.
fn addresses<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    // Held until there are all, so that no two are the same.
    let mut listeners = Vec::new();
    for _ in 0..1000 {
        let port = rand::rng().random_range(PORTS);
        listeners.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        if listeners.len() == N {
            let addresses = listeners.iter().map(TcpListener::local_addr);
            let addresses: Vec<_> = addresses.collect::<Result<_, _>>()?;
            return addresses.try_into().map_err(|_| anyhow!("there are not {N} addresses"));
        }
    }
    bail!("no TCP port between {} and {} is free on 127.0.0.1", PORTS.start, PORTS.end)
}
