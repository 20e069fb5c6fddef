//! What the shapes of types say.
#![deny(missing_docs, clippy::all, unused_qualifications)]
#![allow(dead_code, clippy::unwrap_used, clippy::upper_case_acronyms)]

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    marker::PhantomData,
    sync::Arc,
};

use annals_eventstore::{Aggregate, Apply, Event, Shape, ShapeText};
use serde::{Deserialize, Serialize};

#[track_caller]
fn shape<T: Shape>(expected: &str) {
    assert_eq!(ShapeText::of::<T>(), expected);
}

/// The shapes of an event enum's variants.
fn shapes<E: Event>() -> Vec<String> {
    (0..E::TYPES.len()).map(|index| ShapeText::written(|text| E::describe(index, text))).collect()
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Unknown;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Shape)]
struct Money {
    cents: i64,
    currency: Cow<'static, str>,
}

#[test]
fn common_types_have_names() {
    shape::<Option<Vec<u8>>>("option<list<u8>>");
    shape::<HashMap<String, BTreeSet<Box<str>>>>("map<string, set<string>>");
    shape::<BTreeMap<uuid::Uuid, (i32, [f64; 3])>>("map<uuid, tuple<i32, array 3<f64>>>");
    shape::<Arc<chrono::DateTime<chrono::Utc>>>("datetime utc");
    shape::<(serde_json::Value, &'static str, (), PhantomData<Unknown>)>(
        "tuple<json, string, null, null>",
    );
}

#[test]
fn nested_types_are_looked_into() {
    #[derive(Serialize, Shape)]
    struct Terms {
        prices: Vec<Money>,
        unknown: Option<Unknown>,
        r#type: [Unknown; 2],
    }
    shape::<Terms>(
        "struct {
  prices: list<struct {
    cents: i64
    currency: string
  }>
  unknown: opaque Option<Unknown>
  type: opaque [Unknown; 2]
}",
    );
}

#[test]
fn serde_attributes_are_followed() {
    #[derive(Serialize, Deserialize, Shape)]
    #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
    struct Terms {
        monthly_rate: i64,
        #[serde(rename = "currency_code", alias = "currency")]
        currency: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        a_note: Option<String>,
        #[serde(with = "as_text")]
        limit: i64,
        #[serde(skip)]
        cached: u8,
    }
    impl Default for Terms {
        fn default() -> Self {
            unimplemented!()
        }
    }
    shape::<Terms>(
        "struct [default] {
  monthlyRate: i64
  currency_code: string
  aNote [default, skip_serializing_if = \"Option::is_none\"]: option<string>
  limit [with = \"as_text\"]: opaque i64
  cached: not stored
}",
    );
    #[derive(Serialize, Deserialize, Shape)]
    struct Flat {
        #[serde(flatten)]
        price: Money,
    }
    shape::<Flat>(
        "struct {\n  price [flatten]: struct {\n    cents: i64\n    currency: string\n  }\n}",
    );
    #[derive(Serialize, Deserialize, Shape)]
    #[serde(transparent)]
    struct Loan {
        id: u64,
    }
    shape::<Loan>("u64");
    #[derive(Serialize, Deserialize, Shape)]
    #[serde(tag = "kind", rename = "loan")]
    struct Tagged {
        id: u64,
    }
    shape::<Tagged>("struct [tag = \"kind\", named \"loan\"] {\n  id: u64\n}");
    #[derive(Clone, Serialize, Deserialize, Shape)]
    #[serde(into = "String", from = "String")]
    struct Text;
    impl From<String> for Text {
        fn from(_: String) -> Self {
            Self
        }
    }
    impl From<Text> for String {
        fn from(_: Text) -> Self {
            Self::new()
        }
    }
    shape::<Text>("opaque Text [from = \"String\", into = \"String\"]");
}

mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Holds that the names in the shape of an enum are those that serde writes.
#[test]
fn enums_are_described_as_serde_tags_them() {
    #[derive(Serialize, Shape)]
    #[serde(rename_all = "snake_case", rename_all_fields = "SCREAMING-KEBAB-CASE")]
    enum Purpose {
        NewHouse,
        Car(String),
        #[serde(rename = "rate")]
        Rated(u8, Money),
        #[serde(rename_all = "PascalCase")]
        Other {
            the_reason: String,
        },
        KYC {
            in_full: bool,
        },
        Empty {},
    }
    shape::<Purpose>(
        "enum {
  new_house: unit
  car: string
  rate: tuple {
    0: u8
    1: struct {
      cents: i64
      currency: string
    }
  }
  other: struct {
    TheReason: string
  }
  k_y_c: struct {
    IN-FULL: bool
  }
  empty: struct {}
}",
    );
    let json = |purpose: Purpose| serde_json::to_string(&purpose).unwrap();
    assert_eq!(json(Purpose::NewHouse), "\"new_house\"");
    assert_eq!(json(Purpose::KYC { in_full: true }), r#"{"k_y_c":{"IN-FULL":true}}"#);
    let other = Purpose::Other { the_reason: "x".into() };
    assert_eq!(json(other), r#"{"other":{"TheReason":"x"}}"#);
    #[derive(Serialize, Shape)]
    #[serde(untagged)]
    enum Id {
        Number(u64),
        #[serde(skip)]
        None,
    }
    shape::<Id>("enum [untagged] {\n  Number: u64\n  None: not stored\n}");
}

#[test]
fn types_that_contain_themselves_end() {
    #[derive(Serialize, Shape)]
    struct Tree(Vec<Tree>);
    shape::<Tree>("list<recursive(1)>");
    #[derive(Serialize, Shape)]
    struct Company {
        staff: Vec<Person>,
    }
    #[derive(Serialize, Shape)]
    struct Person {
        companies: Option<Box<Company>>,
        boss: Option<Box<Person>>,
    }
    shape::<Company>(
        "struct {
  staff: list<struct {
    companies: option<recursive(2)>
    boss: option<recursive(1)>
  }>
}",
    );
}

#[test]
fn parameters_are_looked_into() {
    #[derive(Serialize, Shape)]
    struct Pair<'a, T, U: Clone = u8, const N: usize = 1> {
        left: &'a T,
        right: Option<U>,
        #[serde(skip)]
        size: PhantomData<[u8; N]>,
    }
    shape::<Pair<'static, Money>>(
        "struct {
  left: struct {
    cents: i64
    currency: string
  }
  right: option<u8>
  size: not stored
}",
    );
}

#[derive(Event, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
enum LoanEvent {
    Approved,
    Closed {},
    Paid(Money),
    Rated(i64, Unknown),
    #[event(version = 2)]
    Submitted {
        max_amount: i64,
        price: Money,
        by: Unknown,
    },
}

#[derive(Aggregate, Default, Serialize)]
#[aggregate(category = "loan", event = LoanEvent)]
#[serde(rename_all = "UPPERCASE")]
struct Loan {
    paid: Vec<Money>,
    by: Unknown,
}

impl Apply<LoanEvent> for Loan {
    fn apply(&mut self, _: &LoanEvent) {}
}

#[test]
fn events_and_aggregates_have_shapes() {
    assert_eq!(
        shapes::<LoanEvent>(),
        [
            "struct {}",
            "struct {}",
            "struct {\n  cents: i64\n  currency: string\n}",
            "tuple {\n  0: i64\n  1: opaque Unknown\n}",
            "struct {
  maxAmount: i64
  price: struct {
    cents: i64
    currency: string
  }
  by: opaque Unknown
}",
        ]
    );
    assert_eq!(
        Loan::shape(),
        "struct {
  PAID: list<struct {
    cents: i64
    currency: string
  }>
  BY: opaque Unknown
}",
    );
}

#[test]
fn the_state_of_a_generic_aggregate_names_its_parameters() {
    #[derive(Aggregate)]
    #[aggregate(category = "cell", event = LoanEvent)]
    struct Cell<T> {
        values: Vec<T>,
    }
    impl<T> Default for Cell<T> {
        fn default() -> Self {
            Self { values: Vec::new() }
        }
    }
    impl<T> Apply<LoanEvent> for Cell<T> {
        fn apply(&mut self, _: &LoanEvent) {}
    }
    assert_ne!(Cell::<u8>::shape(), Cell::<u16>::shape());
    assert!(Cell::<u8>::shape().contains("values: opaque "), "{}", Cell::<u8>::shape());
}

#[test]
fn a_shape_written_by_hand_is_opaque_unless_it_says_more() {
    #[derive(Default)]
    struct Manual;
    impl Apply<LoanEvent> for Manual {
        fn apply(&mut self, _: &LoanEvent) {}
    }
    impl Aggregate for Manual {
        const CATEGORY: &'static str = "manual";
        type Event = LoanEvent;
        type Error = std::convert::Infallible;
    }
    assert!(Manual::shape().starts_with("opaque "), "{}", Manual::shape());
}
