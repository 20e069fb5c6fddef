//! A shop that asks more than is its due, and somebody who is no shop at all.

use std::time::Duration;

use futures::future::join_all;
use reqwest::{Method, StatusCode, Url, header::RETRY_AFTER};
use tokio::time::{Instant, sleep};

use crate::shop::Shop;

/// How many requests are under way at the same time.
const AT_ONCE: usize = 64;
/// It has no effect, and costs next to nothing.
const TARGET: &str = "/bookings?limit=0";

/// Asks as fast as it can until it is refused, for so long at most; comes back when it was told to, and is let in. What
/// was otherwise is the result.
pub(crate) async fn run(
    gateway: Url,
    key: &str,
    within: Duration,
    say: impl Fn(&str),
) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let begun = Instant::now();
    let stranger = Shop::new(vec![gateway.clone()], "no key")?;
    let answer = stranger.persists(Method::GET, TARGET, &[], None).await?;
    if answer.status != StatusCode::UNAUTHORIZED {
        wrong.push(format!("a stranger was answered {}", answer.status));
    }
    let shop = Shop::new(vec![gateway], key)?;
    let mut sent = 0;
    let refused = loop {
        let asked = (0..AT_ONCE).map(|_| shop.ask(Method::GET, TARGET, &[], None));
        // Where there is no answer, a process was killed.
        let answers = join_all(asked).await.into_iter().flatten();
        let refused = |answer: &_| is_refused(answer);
        sent += AT_ONCE;
        if let Some(answer) = answers.into_iter().find(refused) {
            break answer;
        }
        if begun.elapsed() > within {
            wrong.push(format!("the rude shop sent {sent} requests, and none was refused"));
            return Ok(wrong);
        }
    };
    let retry_after = refused.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let Some(seconds) = retry_after.and_then(|value| value.parse().ok()).filter(|s| *s > 0) else {
        wrong.push(format!("the rude shop was not told when to come back: {refused:?}"));
        return Ok(wrong);
    };
    say(&format!("the rude shop was refused after some {sent} requests, for {seconds} s"));
    sleep(Duration::from_secs(seconds)).await;
    if let Ok(answer) = shop.ask(Method::GET, TARGET, &[], None).await
        && is_refused(&answer)
    {
        wrong.push("the rude shop came back when it was told to, and was refused".to_owned());
    }
    Ok(wrong)
}

fn is_refused(answer: &crate::shop::Answer) -> bool {
    answer.status == StatusCode::TOO_MANY_REQUESTS
}
