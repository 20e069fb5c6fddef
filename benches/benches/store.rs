//! What the store does around the database, on the store in memory: folding a stream, and deciding
//! on many commands in one go.

use annals::{
    Aggregate, Append, Apply, Command, Event, EventStore, ExpectedVersion, Handle, NewEvent,
    StreamId,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
enum AccountEvent {
    Deposited { amount: i64, reference: String },
}

#[derive(Aggregate, Default)]
#[aggregate(category = "account", event = AccountEvent)]
struct Account {
    balance: i64,
}

impl Apply<AccountEvent> for Account {
    fn apply(&mut self, event: &AccountEvent) {
        let AccountEvent::Deposited { amount, .. } = event;
        self.balance += amount;
    }
}

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Account)]
struct Deposit {
    #[command(id)]
    account: u64,
    amount: i64,
}

impl Handle<Deposit> for Account {
    fn handle(&self, command: Deposit) -> Result<Vec<AccountEvent>, Self::Error> {
        let reference = "invoice 123456".to_owned();
        Ok(vec![AccountEvent::Deposited { amount: command.amount, reference }])
    }
}

const EVENTS: u64 = 1000;
const COMMANDS: u64 = 512;

fn store(criterion: &mut Criterion) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    let deposited = AccountEvent::Deposited { amount: 10, reference: "invoice 123456".to_owned() };

    let filled = EventStore::in_memory();
    let events: Vec<_> = (0..EVENTS).flat_map(|_| NewEvent::of(&deposited)).collect();
    if let Ok(stream) = StreamId::new("account", 1) {
        let append = Append::to(stream, ExpectedVersion::NoStream, events);
        drop(runtime.block_on(filled.append(append)));
    }
    let mut fold = criterion.benchmark_group("fold");
    fold.throughput(Throughput::Elements(EVENTS));
    fold.bench_function("load a stream of 1,000 events", |b| {
        b.iter(|| runtime.block_on(filled.load::<Account>(1)));
    });
    fold.finish();

    let mut decide = criterion.benchmark_group("decide");
    decide.throughput(Throughput::Elements(COMMANDS));
    let lots = [("512 commands, 512 streams", COMMANDS), ("512 commands, one stream", 1)];
    for (name, streams) in lots {
        let commands: Vec<_> =
            (0..COMMANDS).map(|n| Deposit { account: n % streams, amount: 1 }).collect();
        decide.bench_function(name, |b| {
            b.iter_batched(
                || (EventStore::in_memory(), commands.clone()),
                |(store, commands)| runtime.block_on(store.execute_all(commands)),
                BatchSize::LargeInput,
            );
        });
    }
    decide.finish();
}

criterion_group!(benches, store);
criterion_main!(benches);
