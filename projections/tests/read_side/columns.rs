//! Columns that are arrays, enums, newtypes, numerics and bytes: written in batches, copied row by row,
//! and read back.

use std::pin::pin;

use annals_eventstore::{AsOf, Recorded};
use annals_projections::{
    Change, Column, KeyError, Keys, Project, QueryReadModels, ReadModel, SqlValue,
};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, SubsecRound, Utc};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio_postgres::{Client, binary_copy::BinaryCopyInWriter};
use uuid::Uuid;

use crate::{
    support::{
        catch_up,
        database::TestDatabase,
        ledger::append,
        oracle::{assert_exact, sorted},
        text,
    },
    types::{Form, Sample, SampleEvent, wanted},
};

#[derive(Column, Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Status {
    Open,
    #[column(name = "It's {\"over\"}, \\")]
    Closed,
}

#[derive(Column, Clone, Debug, PartialEq, Eq, Hash)]
struct LoanId(i64);

#[derive(Column, Clone, Debug, PartialEq)]
struct Tags {
    all: Vec<String>,
}

#[derive(Column, Clone, Debug, PartialEq)]
struct Note(Option<String>);

/// In a table of its own each: what is stored as it is sent, and arrays, which are not.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "scalars", from(Sample), history, index(status, amount), index(at))]
struct Scalars {
    #[read_model(key)]
    status: Status,
    #[read_model(key)]
    loan: LoanId,
    next: Option<Status>,
    amount: Decimal,
    rest: Option<Decimal>,
    bytes: Vec<u8>,
    maybe_bytes: Option<Vec<u8>>,
    at: NaiveDateTime,
    time: NaiveTime,
    note: Note,
    json: Option<Value>,
    #[read_model(json)]
    form: Option<Form>,
}

#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "arrays", from(Sample), history)]
struct Arrays {
    #[read_model(key)]
    id: i64,
    bools: Vec<bool>,
    shorts: Vec<i16>,
    ints: Option<Vec<i32>>,
    longs: Vec<Option<i64>>,
    reals: Vec<f32>,
    doubles: Vec<f64>,
    decimals: Vec<Decimal>,
    texts: Vec<Option<String>>,
    tags: Tags,
    bytes: Vec<Vec<u8>>,
    uuids: Vec<Uuid>,
    dates: Vec<NaiveDate>,
    times: Vec<NaiveTime>,
    timestamps: Vec<NaiveDateTime>,
    moments: Vec<DateTime<Utc>>,
    jsons: Vec<Option<Value>>,
    statuses: Option<Vec<Option<Status>>>,
    loans: Vec<LoanId>,
}

fn time(text: &str) -> NaiveDateTime {
    text.parse::<DateTime<Utc>>().unwrap().naive_utc()
}

fn scalars() -> Vec<Scalars> {
    let plain = Scalars {
        status: Status::Open,
        loan: LoanId(0),
        next: None,
        amount: Decimal::ZERO,
        rest: None,
        bytes: Vec::new(),
        maybe_bytes: None,
        at: time("1970-01-01T00:00:00Z"),
        time: NaiveTime::MIN,
        note: Note(None),
        json: None,
        form: None,
    };
    let full = Scalars {
        status: Status::Closed,
        loan: LoanId(i64::MIN),
        next: Some(Status::Closed),
        amount: Decimal::MAX,
        rest: Some(Decimal::new(-150, 2)),
        bytes: (0..=255).collect(),
        maybe_bytes: Some(b"\\x00".to_vec()),
        at: NaiveDateTime::MAX.trunc_subsecs(6),
        time: NaiveTime::from_hms_micro_opt(23, 59, 59, 999_999).unwrap(),
        note: Note(Some(String::new())),
        json: Some(json!({"a": null})),
        form: Some(Form::Round { radius: 1.5 }),
    };
    let odd = Scalars {
        loan: LoanId(1),
        amount: Decimal::new(1, 28),
        rest: Some(Decimal::MIN),
        maybe_bytes: Some(Vec::new()),
        at: time("-4712-01-01T00:00:00Z"),
        json: Some(Value::Null),
        ..plain.clone()
    };
    vec![plain, full, odd]
}

fn arrays() -> Vec<Arrays> {
    let empty = Arrays {
        id: 0,
        bools: Vec::new(),
        shorts: Vec::new(),
        ints: None,
        longs: Vec::new(),
        reals: Vec::new(),
        doubles: Vec::new(),
        decimals: Vec::new(),
        texts: Vec::new(),
        tags: Tags { all: Vec::new() },
        bytes: Vec::new(),
        uuids: Vec::new(),
        dates: Vec::new(),
        times: Vec::new(),
        timestamps: Vec::new(),
        moments: Vec::new(),
        jsons: Vec::new(),
        statuses: None,
        loans: Vec::new(),
    };
    let texts = ["", "null", "NULL", "{a,\"b\"}", "\\", " a ", "\n\t", "\u{1F980}e\u{301}'"];
    let moments = [
        time("-4712-01-01T00:00:00Z"),
        time("0000-02-29T12:00:00.000001Z"),
        time("0001-01-01T00:00:00Z"),
        time("0032-01-02T03:04:05Z"),
        time("1999-12-31T23:59:59.999999Z"),
        NaiveDateTime::MAX.trunc_subsecs(6),
    ];
    let full = Arrays {
        id: 1,
        bools: vec![true, false],
        shorts: vec![i16::MIN, 0, i16::MAX],
        ints: Some(vec![i32::MIN, i32::MAX]),
        longs: vec![Some(i64::MIN), None, Some(i64::MAX)],
        reals: vec![f32::MIN, f32::MIN_POSITIVE / 8.0, 0.1, f32::NAN, f32::INFINITY],
        doubles: vec![f64::MAX, f64::MIN_POSITIVE / 4.0, 0.1, -0.0, f64::NAN, f64::NEG_INFINITY],
        decimals: vec![Decimal::MAX, Decimal::new(-1, 28), Decimal::new(150, 2)],
        texts: texts.map(|text| Some(text.to_owned())).into_iter().chain([None]).collect(),
        tags: Tags { all: texts.map(str::to_owned).to_vec() },
        bytes: vec![Vec::new(), (0..=255).collect(), b"\\x".to_vec()],
        uuids: vec![Uuid::nil(), Uuid::max()],
        dates: moments.map(|moment| moment.date()).into_iter().chain([NaiveDate::MAX]).collect(),
        times: moments.map(|moment| moment.time()).to_vec(),
        timestamps: moments.to_vec(),
        moments: moments.map(|moment| moment.and_utc()).to_vec(),
        jsons: vec![Some(json!({"a\"": ["\\", {}]})), None, Some(Value::Null), Some(json!("x"))],
        statuses: Some(vec![Some(Status::Closed), None, Some(Status::Open)]),
        loans: vec![LoanId(7), LoanId(-7)],
    };
    let nulls = Arrays {
        id: 2,
        ints: Some(Vec::new()),
        longs: vec![None],
        texts: vec![None, None],
        jsons: vec![None],
        statuses: Some(vec![None]),
        ..empty.clone()
    };
    vec![empty, full, nulls]
}

macro_rules! projects {
    ($row:ident, $samples:ident) => {
        impl Project<SampleEvent> for $row {
            fn keys(_: &Recorded<SampleEvent>) -> Result<Keys<Self::Key>, KeyError> {
                Ok(Keys::many($samples().iter().map(Self::key)))
            }

            /// One event makes all rows: they are written by one statement.
            fn project_row(
                key: &Self::Key,
                row: Option<Self>,
                event: &Recorded<SampleEvent>,
            ) -> Change<Self> {
                // What was stored comes back as it was.
                let sample = $samples().into_iter().find(|sample| sample.key() == *key).unwrap();
                if let Some(row) = row {
                    assert_eq!(format!("{row:?}"), format!("{sample:?}"));
                }
                match wanted(event) {
                    0 => Change::Set(sample),
                    _ => Change::Delete,
                }
            }

            fn project(_: Option<Self>, _: &Recorded<SampleEvent>) -> Change<Self> {
                Change::Keep
            }
        }
    };
}

projects!(Scalars, scalars);
projects!(Arrays, arrays);

/// A database whose sessions read and write values in other forms than usual.
async fn foreign_database() -> TestDatabase {
    let database = TestDatabase::create().await;
    let name = database.name();
    let settings =
        ["datestyle = 'SQL, DMY'", "timezone = 'Asia/Kathmandu'", "bytea_output = 'escape'"];
    for setting in settings {
        let sql = format!("alter database {name} set {setting}");
        database.client().await.batch_execute(&sql).await.unwrap();
    }
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_rows_come_back_as_they_were() {
    let database = foreign_database().await;
    let (store, client) = (database.store().await, database.client().await);
    for sample in [0, 0, 1, 0] {
        append::<Sample>(&store, "x", [SampleEvent::Wanted { sample }]).await;
        catch_up::<Scalars>(&store).await;
        catch_up::<Arrays>(&store).await;
    }
    assert_exact::<Scalars>(&store, &client).await;
    assert_exact::<Arrays>(&store, &client).await;
    let end = store.safe_position().await.unwrap();
    for sample in scalars() {
        let row = store.query::<Scalars>().as_of(AsOf::Position(end)).get(&sample.key()).await;
        assert_eq!(row.unwrap(), Some(sample));
    }
    let sound: bool = client
        .query_one(
            r#"select status = 'It''s {"over"}, \' and amount = 79228162514264337593543950335
                 and rest = -1.5 and length(bytes) = 256
              from scalars where loan = -9223372036854775808"#,
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert!(sound);
}

/// Copies rows into the table of a read model, in the binary format.
async fn copy<R: ReadModel>(client: &Client, rows: &[R]) {
    let columns: Vec<_> = R::COLUMNS.iter().map(|column| format!("\"{}\"", column.name)).collect();
    let (columns, table) = (columns.join(", "), R::TABLE);
    let of_table = format!("select {columns} from {table} where false");
    let types: Vec<_> = client
        .prepare(&of_table)
        .await
        .unwrap()
        .columns()
        .iter()
        .map(|c| c.type_().clone())
        .collect();
    let copy = format!("copy {table} ({columns}) from stdin binary");
    let sink = client.copy_in(&copy).await.unwrap();
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
    let mut values: Vec<SqlValue<'_>> = Vec::new();
    for row in rows {
        values.clear();
        row.values(&mut values);
        writer.as_mut().write_raw(&values).await.unwrap();
    }
    assert_eq!(writer.finish().await.unwrap(), rows.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_rows_are_those_that_are_written() {
    let database = foreign_database().await;
    let (store, client) = (database.store().await, database.client().await);
    catch_up::<Scalars>(&store).await;
    catch_up::<Arrays>(&store).await;
    // The beginning of each is no column of the read model.
    let begin = "alter table scalars alter valid_from set default 0;
                 alter table arrays alter valid_from set default 0";
    client.batch_execute(begin).await.unwrap();
    copy(&client, &scalars()).await;
    copy(&client, &arrays()).await;
    assert_eq!(sorted(store.query::<Scalars>().all().await.unwrap()), sorted(scalars()));
    assert_eq!(sorted(store.query::<Arrays>().all().await.unwrap()), sorted(arrays()));

    // And as the database sees them.
    for table in ["scalars", "arrays"] {
        let copied = format!("create table copied_{table} as table {table}; truncate {table}");
        client.batch_execute(&copied).await.unwrap();
    }
    append::<Sample>(&store, "x", [SampleEvent::Wanted { sample: 0 }]).await;
    catch_up::<Scalars>(&store).await;
    catch_up::<Arrays>(&store).await;
    for table in ["scalars", "arrays"] {
        let begin = format!("update copied_{table} set valid_from = t.valid_from from {table} t");
        client.batch_execute(&begin).await.unwrap();
        let same = format!(
            "select count(*) from (
                 (table copied_{table} except table {table}) union all (table {table} except table copied_{table})
             ) differing"
        );
        let differing: i64 = client.query_one(&same, &[]).await.unwrap().get(0);
        assert_eq!(differing, 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_enum_does_not_know_is_told() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    append::<Sample>(&store, "x", [SampleEvent::Wanted { sample: 0 }]).await;
    catch_up::<Scalars>(&store).await;
    client.batch_execute("update scalars set next = 'declined' where loan = 0").await.unwrap();
    let error = store.query::<Scalars>().all().await.unwrap_err();
    let told = text(&error);
    assert!(told.contains("\"declined\" is no `Status`, which is one of: open"), "{told}");
    assert!(!error.is_retryable());
}
