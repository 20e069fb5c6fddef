use annals_eventstore::{Shape, ShapeText};

struct Money;

#[derive(Shape)]
struct Priced<T> {
    price: T,
}

fn main() {
    ShapeText::of::<Priced<Money>>();
}
