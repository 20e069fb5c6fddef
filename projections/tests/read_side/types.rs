//! Every type of column, every name that could be in the way, and values at their edges.

use annals_eventstore::{Aggregate, Apply, AsOf, Event, Recorded};
use annals_projections::{
    Change, KeyError, Keys, Project, ProjectionError, QueryReadModels, ReadModel,
};
use chrono::{DateTime, NaiveDate, SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    Running, catch_up,
    database::{TestDatabase, value},
    ledger::append,
    oracle::{assert_exact, sorted},
    stopping, text, worker,
};

/// Asks for one of the samples.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum SampleEvent {
    Wanted { sample: usize },
}

#[derive(Aggregate, Default)]
#[aggregate(category = "sample", event = SampleEvent)]
pub(crate) struct Sample;

impl Apply<SampleEvent> for Sample {
    fn apply(&mut self, _: &SampleEvent) {}
}

pub(crate) fn wanted(event: &Recorded<SampleEvent>) -> usize {
    let SampleEvent::Wanted { sample } = event.event;
    sample
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum Form {
    Round { radius: f64 },
    Flat,
}

#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "order", from(Sample), history)]
struct Everything {
    #[read_model(key, column = "select")]
    id: i32,
    user: bool,
    r#type: i16,
    #[read_model(column = "table")]
    large: i32,
    end: i64,
    given: f32,
    excluded: f64,
    t: String,
    h: Uuid,
    c: NaiveDate,
    annals_reached: DateTime<Utc>,
    position: Value,
    #[read_model(json)]
    forms: Vec<Option<Form>>,
    maybe_bool: Option<bool>,
    maybe_i16: Option<i16>,
    maybe_i32: Option<i32>,
    maybe_i64: Option<i64>,
    maybe_f32: Option<f32>,
    maybe_f64: Option<f64>,
    maybe_text: Option<String>,
    maybe_uuid: Option<Uuid>,
    maybe_date: Option<NaiveDate>,
    maybe_time: Option<DateTime<Utc>>,
    maybe_json: Option<Value>,
    #[read_model(json)]
    maybe_form: Option<Form>,
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn samples() -> Vec<Everything> {
    let plain = Everything {
        id: 0,
        user: false,
        r#type: 0,
        large: 0,
        end: 0,
        given: 0.0,
        excluded: 0.0,
        t: String::new(),
        h: Uuid::nil(),
        c: NaiveDate::default(),
        annals_reached: DateTime::UNIX_EPOCH,
        position: Value::Null,
        forms: Vec::new(),
        maybe_bool: None,
        maybe_i16: None,
        maybe_i32: None,
        maybe_i64: None,
        maybe_f32: None,
        maybe_f64: None,
        maybe_text: None,
        maybe_uuid: None,
        maybe_date: None,
        maybe_time: None,
        maybe_json: None,
        maybe_form: None,
    };
    let highest = DateTime::<Utc>::MAX_UTC.trunc_subsecs(6);
    let lowest = time("-4712-01-01T00:00:00Z");
    let full = Everything {
        id: i32::MAX,
        user: true,
        r#type: i16::MAX,
        large: i32::MAX,
        end: i64::MAX,
        given: f32::MAX,
        excluded: f64::MAX,
        t: "'\"\\ {a,b} NULL \u{1F980}\n\t".repeat(5000),
        h: Uuid::max(),
        c: NaiveDate::MAX,
        annals_reached: highest,
        position: json!({"a\"'": [1, -2.5, u64::MAX, i64::MIN, null, {"": "\u{1F980}\n\\"}]}),
        forms: vec![Some(Form::Round { radius: 1.5 }), None, Some(Form::Flat)],
        maybe_bool: Some(true),
        maybe_i16: Some(i16::MIN),
        maybe_i32: Some(i32::MIN),
        maybe_i64: Some(i64::MIN),
        maybe_f32: Some(f32::NEG_INFINITY),
        maybe_f64: Some(f64::NAN),
        maybe_text: Some("null".into()),
        maybe_uuid: Some(Uuid::from_u128(1)),
        maybe_date: NaiveDate::from_ymd_opt(-4712, 1, 1),
        maybe_time: Some(lowest),
        maybe_json: Some(Value::Null),
        maybe_form: Some(Form::Flat),
    };
    let odd = Everything {
        id: i32::MIN,
        r#type: i16::MIN,
        large: i32::MIN,
        end: i64::MIN,
        given: f32::MIN_POSITIVE / 8.0,
        excluded: -0.0,
        t: "\u{feff}\u{200f}e\u{301}".into(),
        annals_reached: time("1999-12-31T23:59:59.999999Z"),
        position: json!(1.5),
        maybe_f32: Some(f32::NAN),
        maybe_f64: Some(f64::MIN_POSITIVE / 4.0),
        maybe_text: Some(String::new()),
        maybe_json: Some(json!([])),
        ..plain.clone()
    };
    vec![plain, full, odd]
}

impl Project<SampleEvent> for Everything {
    fn keys(event: &Recorded<SampleEvent>) -> Result<Keys<i32>, KeyError> {
        Ok(Keys::one(samples()[wanted(event)].id))
    }

    fn project(row: Option<Self>, event: &Recorded<SampleEvent>) -> Change<Self> {
        let sample = samples().swap_remove(wanted(event));
        // What was stored comes back as it was.
        if let Some(row) = row {
            assert_eq!(format!("{row:?}"), format!("{sample:?}"));
        }
        Change::Set(sample)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_at_its_edges_comes_back_as_it_was() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let mut end = None;
    for sample in [0, 1, 2, 1, 0, 2] {
        let appended = append::<Sample>(&store, "x", [SampleEvent::Wanted { sample }]).await;
        end = Some(appended.last_position);
    }
    let mut running = Running::start(worker::<Everything>(&store).batch_size(1));
    running.caught_up::<Everything>(&store).await;
    running.stop().await;
    let end = end.unwrap();

    let expected = sorted(samples());
    assert_eq!(sorted(store.query::<Everything>().all().await.unwrap()), expected);
    let then = store.query::<Everything>().as_of(AsOf::Position(end)).all().await.unwrap();
    assert_eq!(sorted(then), expected);
    for sample in samples() {
        let row = store.query::<Everything>().get(&sample.id).await.unwrap();
        assert_eq!(format!("{row:?}"), format!("{:?}", Some(&sample)));
        let as_of = store.query::<Everything>().as_of(AsOf::Position(end));
        let row = as_of.get(&sample.id).await.unwrap();
        assert_eq!(format!("{row:?}"), format!("{:?}", Some(&sample)));
    }
    let differing: i64 = value(
        &client,
        &format!(
            r#"select count(*) from "order" o full join order_as_of({end}) a using ("select")
               where to_jsonb(o) is distinct from to_jsonb(a)"#
        ),
    )
    .await;
    assert_eq!(differing, 0);
    assert_exact::<Everything>(&store, &client).await;
    // And the tables are found to be the same by the next worker.
    catch_up::<Everything>(&store).await;
}

macro_rules! keyed {
    ($name:ident, $table:literal, $($column:ident: $type:ty),+) => {
        #[derive(ReadModel, Clone, Debug, PartialEq)]
        #[read_model(table = $table, from(Sample), history)]
        struct $name {
            $(#[read_model(key)] $column: $type,)+
            times: i64,
        }

        impl Project<SampleEvent> for $name {
            fn keys(
                event: &Recorded<SampleEvent>,
            ) -> Result<Keys<<Self as ReadModel>::Key>, KeyError> {
                Ok(Keys::one(Self::samples().swap_remove(wanted(event))))
            }

            fn project(row: Option<Self>, event: &Recorded<SampleEvent>) -> Change<Self> {
                let ($($column),+) = Self::samples().swap_remove(wanted(event));
                Change::Set(Self { $($column,)+ times: row.map_or(0, |row| row.times) + 1 })
            }
        }
    };
}

keyed!(ByNumbers, "by_numbers", given: bool, t: i16, closed_at: i32, h: i64);
keyed!(ByOthers, "by_others", unnest: String, valid: Uuid, closed_at: NaiveDate, at: DateTime<Utc>);

impl ByNumbers {
    fn samples() -> Vec<(bool, i16, i32, i64)> {
        vec![(true, 0, 0, 0), (false, i16::MIN, i32::MAX, i64::MIN), (false, 0, 0, 0)]
    }
}

impl ByOthers {
    fn samples() -> Vec<(String, Uuid, NaiveDate, DateTime<Utc>)> {
        let (date, at) = (NaiveDate::default(), time("2026-02-28T23:59:59.999999Z"));
        vec![
            (String::new(), Uuid::nil(), date, at),
            ("\u{1F980}'\"\\,{}".into(), Uuid::max(), NaiveDate::MAX, DateTime::UNIX_EPOCH),
            ("null".into(), Uuid::nil(), date, at),
        ]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_can_be_a_key() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let both = worker::<ByNumbers>(&store).projection::<ByOthers>().batch_size(2);
    let mut running = Running::start(both);
    for sample in [0, 1, 2, 0, 1, 2, 2, 1] {
        append::<Sample>(&store, "x", [SampleEvent::Wanted { sample }]).await;
    }
    running.caught_up::<ByNumbers>(&store).await;
    running.caught_up::<ByOthers>(&store).await;
    running.stop().await;
    assert_exact::<ByNumbers>(&store, &client).await;
    assert_exact::<ByOthers>(&store, &client).await;
    for (key, times) in ByNumbers::samples().into_iter().zip([2, 3, 3]) {
        assert_eq!(store.query::<ByNumbers>().get(&key).await.unwrap().unwrap().times, times);
    }
    for (key, times) in ByOthers::samples().into_iter().zip([2, 3, 3]) {
        assert_eq!(store.query::<ByOthers>().get(&key).await.unwrap().unwrap().times, times);
    }
}

/// PostgreSQL keeps microseconds: this key comes back as another one.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "by_nanosecond", from(Sample))]
struct ByNanosecond {
    #[read_model(key)]
    at: DateTime<Utc>,
    times: i64,
}

impl ByNanosecond {
    fn key() -> DateTime<Utc> {
        DateTime::from_timestamp_nanos(1_000_000_001)
    }
}

impl Project<SampleEvent> for ByNanosecond {
    fn keys(_: &Recorded<SampleEvent>) -> Result<Keys<DateTime<Utc>>, KeyError> {
        Ok(Keys::one(Self::key()))
    }

    fn project(row: Option<Self>, _: &Recorded<SampleEvent>) -> Change<Self> {
        Change::Set(Self { at: Self::key(), times: row.map_or(0, |row| row.times) + 1 })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_database_changes_loses_no_event_in_silence() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    append::<Sample>(&store, "x", [0, 0].map(|sample| SampleEvent::Wanted { sample })).await;
    // As long as the row is in memory it is found; the next worker has only the database's key.
    catch_up::<ByNanosecond>(&store).await;
    append::<Sample>(&store, "x", [SampleEvent::Wanted { sample: 0 }]).await;
    let error = Running::start(stopping::<ByNanosecond>(&store).batch_size(1)).failure().await;
    assert!(matches!(error, ProjectionError::Event(_)), "{error:?}");
    assert!(!error.is_retryable() && text(&error).contains("microseconds"));
}

/// A row that PostgreSQL cannot keep, and later one whose JSON is of another form.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "texts", from(Sample))]
struct Text {
    #[read_model(key)]
    id: i32,
    text: String,
    #[read_model(json)]
    form: Form,
}

impl Project<SampleEvent> for Text {
    fn keys(_: &Recorded<SampleEvent>) -> Result<Keys<i32>, KeyError> {
        Ok(Keys::one(1))
    }

    fn project(_: Option<Self>, event: &Recorded<SampleEvent>) -> Change<Self> {
        let text = if wanted(event) == 0 { "fine" } else { "a\0b" }.to_owned();
        Change::Set(Self { id: 1, text, form: Form::Flat })
    }
}

#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "texts", from(Sample))]
struct OtherForm {
    #[read_model(key)]
    id: i32,
    text: String,
    #[read_model(json)]
    form: i64,
}

impl Project<SampleEvent> for OtherForm {
    fn keys(_: &Recorded<SampleEvent>) -> Result<Keys<i32>, KeyError> {
        Ok(Keys::one(1))
    }

    fn project(_: Option<Self>, _: &Recorded<SampleEvent>) -> Change<Self> {
        Change::Keep
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_do_not_fit_stop_the_worker_instead_of_being_tried_for_ever() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    append::<Sample>(&store, "x", [SampleEvent::Wanted { sample: 0 }]).await;
    catch_up::<Text>(&store).await;
    append::<Sample>(&store, "x", [SampleEvent::Wanted { sample: 1 }]).await;
    let before: i64 = value(&client, "select position from annals.checkpoints").await;

    let error = Running::start(stopping::<Text>(&store)).failure().await;
    assert!(!error.is_retryable(), "{}", text(&error));
    assert!(text(&error).contains("texts"), "{}", text(&error));
    let error = Running::start(stopping::<OtherForm>(&store)).failure().await;
    assert!(!error.is_retryable(), "{}", text(&error));
    assert!(text(&error).contains("texts"), "{}", text(&error));
    let error = store.query::<OtherForm>().all().await.unwrap_err();
    assert!(!error.is_retryable(), "{}", text(&error));

    let after: i64 = value(&client, "select position from annals.checkpoints").await;
    assert_eq!(before, after);
}
