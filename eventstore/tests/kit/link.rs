//! A way to a server that is disturbed.

use std::time::{Duration, Instant};

use annals_eventstore::testkit::faults::{Delay, Link, Passage, Plan, Seed, Verdict, Way};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_postgres::{Client, NoTls};

use crate::support::{TestDatabase, in_time};

const MOMENT: Duration = Duration::from_millis(300);

async fn connect(link: &Link) -> Client {
    let (client, connection) = tokio_postgres::connect(link.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn answers(client: &Client) -> bool {
    client.simple_query("select 1").await.is_ok()
}

/// Sends back what it gets.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                drop(tokio::io::copy(&mut from, &mut to).await);
            });
        }
    });
    port
}

/// Whether what is sent comes back.
async fn comes_back(stream: &mut TcpStream, bytes: usize) -> bool {
    let (mut from, mut to) = stream.split();
    let sent = vec![7; bytes];
    let mut back = vec![0; bytes];
    let (written, read) = tokio::join!(to.write_all(&sent), from.read_exact(&mut back));
    written.is_ok() && read.is_ok() && back == sent
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_passes() {
    in_time(async {
        let database = TestDatabase::create().await;
        let link = database.link().await;
        let client = connect(&link).await;
        assert!(answers(&client).await);
        for passage in [Passage::Stalled, Passage::Mute] {
            link.set(passage);
            let mut asking = Box::pin(answers(&client));
            assert!(timeout(MOMENT, &mut asking).await.is_err(), "{passage:?}");
            // What was held up arrives, and no connection was closed.
            link.set(Passage::Open);
            assert!(asking.await, "{passage:?}");
        }
        link.set(Passage::Closed);
        assert!(!answers(&client).await);
        assert!(tokio_postgres::connect(link.url(), NoTls).await.is_err());
        link.set(Passage::Open);
        assert!(answers(&connect(&link).await).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_is_one_to_what_was_done() {
    in_time(async {
        let database = TestDatabase::create().await;
        let (link, direct) = (database.link().await, database.client().await);
        direct.batch_execute("create table notes (number int)").await.unwrap();
        let client = connect(&link).await;
        link.lose_next_answer();
        assert!(client.batch_execute("insert into notes values (1)").await.is_err());
        assert_eq!(link.disturbed(), 1);
        let count = direct.query_one("select count(*) from notes", &[]).await.unwrap();
        assert_eq!(count.get::<_, i64>(0), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_cut_and_others_made() {
    in_time(async {
        let database = TestDatabase::create().await;
        let link = database.link().await;
        let (first, second) = (connect(&link).await, connect(&link).await);
        link.cut();
        assert!(!answers(&first).await && !answers(&second).await);
        assert!(answers(&connect(&link).await).await);
        // All are refused, then none.
        link.follow(Plan::new(Seed::of(1)).refuses(1.0));
        assert!(tokio_postgres::connect(link.url(), NoTls).await.is_err());
        link.follow(None);
        assert!(answers(&connect(&link).await).await);
        drop(link);
        assert!(!answers(&first).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_judge_sees_each_message() {
    in_time(async {
        let database = TestDatabase::create().await;
        let link = database.link().await;
        link.judge(|message| {
            let says = |text: &[u8]| message.bytes.windows(text.len()).any(|found| found == text);
            match message.way {
                Way::ToServer if says(b"forbidden") => Verdict::Cut,
                Way::ToServer if says(b"slow") => Verdict::Delay(MOMENT),
                _ => Verdict::Pass,
            }
        });
        let client = connect(&link).await;
        let started = Instant::now();
        assert!(client.simple_query("select 'slow'").await.is_ok());
        assert!(started.elapsed() >= MOMENT);
        assert!(client.simple_query("select 'forbidden'").await.is_err());
        assert!(answers(&connect(&link).await).await);
    })
    .await;
}

/// A client that would like encryption is told that there is none, and goes on without.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_encryption_is_told_no() {
    in_time(async {
        let database = TestDatabase::create().await;
        let link = database.link().await;
        let mut stream = TcpStream::connect(link.address()).await.unwrap();
        let request = [0, 0, 0, 8, 4, 210, 22, 47];
        stream.write_all(&request).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'N');
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_server_can_be_behind_a_link() {
    in_time(async {
        let link = Link::unbound().await.unwrap();
        let mut early = TcpStream::connect(link.address()).await.unwrap();
        assert!(!comes_back(&mut early, 10).await, "it leads nowhere yet");
        link.lead_to(echo().await);
        let mut stream = TcpStream::connect(link.address()).await.unwrap();
        assert!(comes_back(&mut stream, 1_000_000).await);

        let delay = Duration::from_millis(100);
        link.follow(Plan::new(Seed::of(1)).delay(Delay::fixed(delay)));
        let started = Instant::now();
        assert!(comes_back(&mut stream, 10).await);
        assert!(started.elapsed() >= 2 * delay, "each way");

        // Both ways together.
        link.follow(Plan::new(Seed::of(1)).cuts_after(1000));
        let mut stream = TcpStream::connect(link.address()).await.unwrap();
        assert!(comes_back(&mut stream, 400).await);
        assert!(!comes_back(&mut stream, 400).await);

        link.follow(Plan::new(Seed::of(1)).stalls(1.0));
        let mut stream = TcpStream::connect(link.address()).await.unwrap();
        assert!(timeout(MOMENT, comes_back(&mut stream, 10)).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn what_is_no_url_is_refused() {
    assert!(Link::postgres("postgres://a:b:c").await.is_err());
}
