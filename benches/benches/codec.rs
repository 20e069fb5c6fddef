//! Encoding and decoding events: what every append and every replay does for each event. The same
//! JSON through serde alone runs beside it, as what cannot be undercut.

use annals::{Event, Payload};
use criterion::{Criterion, criterion_group, criterion_main};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
enum LoanEvent {
    Submitted { application: String, amount: i64, resource: Option<String> },
    Approved,
}

/// The fields of [`LoanEvent::Submitted`], as a struct that serde handles alone.
#[derive(Serialize, Deserialize)]
struct Submitted {
    application: String,
    amount: i64,
    resource: Option<String>,
}

fn codec(criterion: &mut Criterion) {
    let event = LoanEvent::Submitted {
        application: "173688".to_owned(),
        amount: 20_000,
        resource: Some("112".to_owned()),
    };
    let plain = Submitted {
        application: "173688".to_owned(),
        amount: 20_000,
        resource: Some("112".to_owned()),
    };
    let json = serde_json::to_vec(&plain).unwrap_or_default();
    let mut encode = criterion.benchmark_group("encode");
    encode.bench_function("annals", |b| b.iter(|| event.encode()));
    encode.bench_function("serde_json", |b| b.iter(|| serde_json::to_vec(&plain)));
    encode.bench_function("annals, no fields", |b| b.iter(|| LoanEvent::Approved.encode()));
    encode.finish();

    let mut decode = criterion.benchmark_group("decode");
    if let Ok(payload) = Payload::from_json(json.clone()) {
        decode.bench_function("annals", |b| {
            b.iter(|| LoanEvent::decode("submitted", 1, &payload));
        });
    }
    decode.bench_function("serde_json", |b| {
        b.iter(|| serde_json::from_slice::<Submitted>(&json));
    });
    decode.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
