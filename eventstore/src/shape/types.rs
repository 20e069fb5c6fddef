//! The shapes of the types of the standard library, and of those that events are often made of.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    marker::PhantomData,
    num::{
        NonZeroI8, NonZeroI16, NonZeroI32, NonZeroI64, NonZeroI128, NonZeroU8, NonZeroU16,
        NonZeroU32, NonZeroU64, NonZeroU128,
    },
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, FixedOffset, Local, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use uuid::Uuid;

use super::{Shape, ShapeText};

macro_rules! named {
    ($($type:ty: $name:literal,)*) => {
        $(impl Shape for $type {
            fn describe(text: &mut ShapeText) {
                text.name($name);
            }
        })*
    };
}
named! {
    (): "null",
    bool: "bool",
    i8: "i8", i16: "i16", i32: "i32", i64: "i64", i128: "i128", isize: "isize",
    u8: "u8", u16: "u16", u32: "u32", u64: "u64", u128: "u128", usize: "usize",
    NonZeroI8: "nonzero i8", NonZeroI16: "nonzero i16", NonZeroI32: "nonzero i32",
    NonZeroI64: "nonzero i64", NonZeroI128: "nonzero i128",
    NonZeroU8: "nonzero u8", NonZeroU16: "nonzero u16", NonZeroU32: "nonzero u32",
    NonZeroU64: "nonzero u64", NonZeroU128: "nonzero u128",
    f32: "f32", f64: "f64",
    char: "char",
    str: "string", String: "string",
    Duration: "duration",
    DateTime<Utc>: "datetime utc",
    DateTime<Local>: "datetime with offset", DateTime<FixedOffset>: "datetime with offset",
    NaiveDateTime: "datetime without zone", NaiveDate: "date", NaiveTime: "time",
    Uuid: "uuid",
    serde_json::Value: "json",
    serde_json::Map<String, serde_json::Value>: "json object",
    serde_json::Number: "json number",
}

impl<T: ?Sized> Shape for PhantomData<T> {
    fn describe(text: &mut ShapeText) {
        text.name("null");
    }
}

macro_rules! transparent {
    ($($type:ty)*) => {
        $(impl<T: Shape + ?Sized> Shape for $type {
            fn describe(text: &mut ShapeText) {
                T::describe(text);
            }
        })*
    };
}
transparent!(&T Box<T> Rc<T> Arc<T>);

impl<T: Shape + ToOwned + ?Sized> Shape for Cow<'_, T> {
    fn describe(text: &mut ShapeText) {
        T::describe(text);
    }
}

macro_rules! wrapped {
    ($($name:literal: $type:ident<T $(, $more:ident)*>,)*) => {
        $(impl<T: Shape $(, $more)*> Shape for $type<T $(, $more)*> {
            fn describe(text: &mut ShapeText) {
                text.wrap($name, T::describe);
            }
        })*
    };
}
wrapped! {
    "option": Option<T>,
    "list": Vec<T>,
    "list": VecDeque<T>,
    "set": BTreeSet<T>,
    "set": HashSet<T, S>,
}

impl<T: Shape> Shape for [T] {
    fn describe(text: &mut ShapeText) {
        text.wrap("list", T::describe);
    }
}

impl<T: Shape, const N: usize> Shape for [T; N] {
    fn describe(text: &mut ShapeText) {
        text.wrap(&format!("array {N}"), T::describe);
    }
}

fn map<K: Shape, V: Shape>(text: &mut ShapeText) {
    text.wrap("map", |text| {
        K::describe(text);
        text.name(", ");
        V::describe(text);
    });
}

impl<K: Shape, V: Shape> Shape for BTreeMap<K, V> {
    fn describe(text: &mut ShapeText) {
        map::<K, V>(text);
    }
}

impl<K: Shape, V: Shape, S> Shape for HashMap<K, V, S> {
    fn describe(text: &mut ShapeText) {
        map::<K, V>(text);
    }
}

macro_rules! tuple {
    ($first:ident $($rest:ident)*) => {
        impl<$first: Shape, $($rest: Shape),*> Shape for ($first, $($rest,)*) {
            fn describe(text: &mut ShapeText) {
                text.wrap("tuple", |text| {
                    $first::describe(text);
                    $(
                        text.name(", ");
                        $rest::describe(text);
                    )*
                });
            }
        }
    };
}
tuple!(A);
tuple!(A B);
tuple!(A B C);
tuple!(A B C D);
tuple!(A B C D E);
tuple!(A B C D E F);
tuple!(A B C D E F G);
tuple!(A B C D E F G H);
