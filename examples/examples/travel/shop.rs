//! A shop's way to the booking service: to one of its processes after the other, until there is an answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use backon::{ExponentialBuilder, Retryable};
use reqwest::{
    Client, ClientBuilder, Method, StatusCode, Url,
    header::{HeaderMap, HeaderValue},
};
use serde_json::Value;

use crate::clients::KEY_HEADER;

/// How long to wait for an answer before asking again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Clones share the connections, and the counts.
#[derive(Clone)]
pub(crate) struct Shop {
    client: Client,
    gateways: Arc<[Url]>,
    turn: Arc<AtomicUsize>,
    again: Arc<AtomicU64>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// `null` if it is no JSON.
    pub(crate) body: Value,
}

impl Shop {
    /// One that is known by this key, to processes of the booking service, of which there is at least one.
    pub(crate) fn new(gateways: Vec<Url>, key: &str) -> anyhow::Result<Self> {
        let client = with_key(key)?.timeout(PATIENCE).build()?;
        Ok(Self { client, gateways: gateways.into(), turn: Arc::default(), again: Arc::default() })
    }

    /// How many requests were sent again.
    pub(crate) fn again(&self) -> u64 {
        self.again.load(Ordering::Relaxed)
    }

    /// Asks until there is an answer: what may pass is none.
    pub(crate) async fn persists(
        &self,
        method: Method,
        target: &str,
        headers: &[(&'static str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(1))
            .with_max_times(100)
            .with_jitter();
        let ask = || async {
            match self.ask(method.clone(), target, headers, body).await? {
                Answer { status, body, .. } if may_pass(status) => {
                    Err(Failure::PutOff { status, body })
                }
                answer => Ok(answer),
            }
        };
        let count = |_: &Failure, _| {
            self.again.fetch_add(1, Ordering::Relaxed);
        };
        ask.retry(delays).notify(count).await
    }

    /// Asks once.
    pub(crate) async fn ask(
        &self,
        method: Method,
        target: &str,
        headers: &[(&'static str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.gateways.len();
        let url = self.gateways[turn].join(target);
        let url = url.map_err(|error| Failure::Target(error.to_string()))?;
        let mut request = self.client.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let body = serde_json::from_slice(&response.bytes().await?).unwrap_or_default();
        Ok(Answer { status, headers, body })
    }
}

/// A client that says whose it is.
pub(crate) fn with_key(key: &str) -> anyhow::Result<ClientBuilder> {
    let mut value = HeaderValue::from_str(key).context("that is no key")?;
    value.set_sensitive(true);
    Ok(Client::builder().default_headers([(KEY_HEADER.parse()?, value)].into_iter().collect()))
}

/// That it has not been answered yet, and may be later.
fn may_pass(status: StatusCode) -> bool {
    let later = [StatusCode::TOO_MANY_REQUESTS, StatusCode::CONFLICT];
    status.is_server_error() || later.contains(&status)
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("there was no answer")]
    Transport(#[from] reqwest::Error),
    #[error("the answer was {status}: {body}")]
    PutOff { status: StatusCode, body: Value },
    #[error("it cannot be asked for: {0}")]
    Target(String),
    #[error("it cannot be written")]
    Body(#[from] serde_json::Error),
}
