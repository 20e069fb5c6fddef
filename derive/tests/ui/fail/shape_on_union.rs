use annals_eventstore::Shape;

#[derive(Shape)]
union Number {
    small: u8,
    large: u64,
}

fn main() {}
