use annals_eventstore::Event;

#[derive(Event)]
union Submitted {
    amount: i64,
}

fn main() {}
