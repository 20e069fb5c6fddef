//! What a request asks for besides what it names: a moment, freshness, conditions.

use std::{collections::HashMap, time::Duration};

use annals_eventstore::{AsOf, ExpectedVersion, Position, Version};
use annals_projections::Consistency;
use axum::extract::{FromRequestParts, Query};
use chrono::{DateTime, Utc};
use http::{HeaderMap, header, request::Parts};

use super::problem::Problem;

/// The longest that a request may wait.
const LONGEST: Duration = Duration::from_secs(60);

/// The parameters of the query string, of which each is taken once.
#[derive(Debug)]
pub(super) struct Parameters(HashMap<String, String>);

impl Parameters {
    pub(super) async fn of(parts: &mut Parts) -> Result<Self, Problem> {
        let all = Query::<Vec<(String, String)>>::from_request_parts(parts, &()).await;
        let Query(all) = all.map_err(|error| Problem::bad_request(error.body_text()))?;
        let mut map = HashMap::new();
        for (name, value) in all {
            if map.insert(name.clone(), value).is_some() {
                return Err(Problem::bad_request(format!("the parameter {name:?} is there twice")));
            }
        }
        Ok(Self(map))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// `as_of`: a time (RFC 3339), `position:N` or `version:N`.
    pub(super) fn as_of(&mut self) -> Result<Option<AsOf>, Problem> {
        let Some(text) = self.take("as_of") else { return Ok(None) };
        let number = |text: &str| text.parse().ok().filter(|number: &i64| *number >= 0);
        let parsed = match text.split_once(':') {
            Some(("position", rest)) => number(rest).map(|at| AsOf::Position(Position::new(at))),
            Some(("version", rest)) => number(rest).map(|at| AsOf::Version(Version::new(at))),
            // In a query string, a plus sign that is not escaped is a space.
            _ => DateTime::parse_from_rfc3339(&text.replace(' ', "+"))
                .ok()
                .map(|time| AsOf::Time(time.with_timezone(&Utc))),
        };
        match parsed {
            Some(as_of) => Ok(Some(as_of)),
            None => Err(Problem::bad_request(format!(
                "as_of={text:?} is no moment: give a time as 2011-12-31T23:59:59Z, position:123, or version:7"
            ))),
        }
    }

    /// `consistency=strong`, or `at_least=N`, with `Prefer: wait=S` for how long.
    pub(super) fn consistency(&mut self, headers: &HeaderMap) -> Result<Consistency, Problem> {
        let at_least = match self.take("at_least") {
            None => None,
            Some(text) => Some(text.parse().map(Position::new).map_err(|_| {
                Problem::bad_request(format!("at_least={text:?} is no position; give a number"))
            })?),
        };
        match (self.take("consistency").as_deref(), at_least) {
            (None | Some("eventual"), None) => Ok(Consistency::Eventual),
            (None, Some(position)) => {
                let wait = wait(headers)?.unwrap_or(Duration::ZERO);
                Ok(Consistency::AtLeast(position, wait))
            }
            (Some("strong"), None) => Ok(Consistency::Strong),
            (Some(_), Some(_)) => {
                Err(Problem::bad_request("give either consistency or at_least, not both"))
            }
            (Some(other), None) => Err(Problem::bad_request(format!(
                "consistency={other:?} is not known: it is eventual or strong"
            ))),
        }
    }

    /// `limit`, 100 unless given, and 1,000 at most.
    pub(super) fn limit(&mut self) -> Result<u32, Problem> {
        match self.take("limit") {
            None => Ok(100),
            Some(text) => match text.parse() {
                Ok(limit @ 1..=1000) => Ok(limit),
                _ => Err(Problem::bad_request(format!("limit={text:?} is not from 1 to 1000"))),
            },
        }
    }

    pub(super) fn after(&mut self) -> Option<String> {
        self.take("after")
    }

    /// What has not been taken: conditions on columns.
    pub(super) fn rest(self) -> HashMap<String, String> {
        self.0
    }

    /// Fails if anything has not been taken.
    pub(super) fn end(self) -> Result<(), Problem> {
        match self.0.keys().min() {
            None => Ok(()),
            Some(name) => {
                Err(Problem::bad_request(format!("the parameter {name:?} is not known here")))
            }
        }
    }
}

/// How long to wait: `Prefer: wait=5` (RFC 7240), in seconds.
pub(super) fn wait(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    for value in headers.get_all("prefer") {
        for preference in value.to_str().unwrap_or_default().split([',', ';']) {
            let Some((name, value)) = preference.split_once('=') else { continue };
            if name.trim().eq_ignore_ascii_case("wait") {
                let value = value.trim().trim_matches('"');
                let seconds: u64 = value.parse().map_err(|_| {
                    Problem::bad_request(format!("wait={value:?} is no number of seconds"))
                })?;
                return Ok(Some(Duration::from_secs(seconds).min(LONGEST)));
            }
        }
    }
    Ok(None)
}

/// What the stream must be at: `If-Match: "7"`, `If-Match: *`, `If-None-Match: *`.
pub(super) fn expected_version(headers: &HeaderMap) -> Result<Option<ExpectedVersion>, Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(None),
        (Some("*"), None) => Ok(Some(ExpectedVersion::Exists)),
        (None, Some("*")) => Ok(Some(ExpectedVersion::NoStream)),
        (Some(tag), None) => match version(tag) {
            Some(version) => Ok(Some(ExpectedVersion::Exact(version))),
            None => Err(Problem::bad_request(format!(
                "If-Match: {tag} is none of our tags: they are a version in quotes, as \"7\""
            ))),
        },
        (None, Some(_)) => Err(Problem::bad_request("with a command, If-None-Match can only be *")),
        (Some(_), Some(_)) => {
            Err(Problem::bad_request("give either If-Match or If-None-Match, not both"))
        }
    }
}

/// The version that a tag is.
fn version(tag: &str) -> Option<Version> {
    let number = tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()?;
    (number >= 0).then(|| Version::new(number))
}

/// The tag that a version is.
pub(super) fn tag(version: impl std::fmt::Display) -> String {
    format!("\"{version}\"")
}

/// True if the caller has this already.
pub(super) fn has(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).into_iter();
    let mut tags = values.filter_map(|value| value.to_str().ok()).flat_map(|tags| tags.split(','));
    tags.any(|known| known.trim().trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
        });
        pairs.collect()
    }

    async fn parameters(query: &str) -> Parameters {
        let request = http::Request::get(format!("/?{query}")).body(()).unwrap();
        Parameters::of(&mut request.into_parts().0).await.unwrap()
    }

    #[tokio::test]
    async fn moments_are_times_positions_and_versions() {
        let time = "2011-12-31T23:59:59Z".parse().unwrap();
        for (text, expected) in [
            ("as_of=2011-12-31T23:59:59Z", AsOf::Time(time)),
            ("as_of=2012-01-01T00:59:59%2B01:00", AsOf::Time(time)),
            ("as_of=2012-01-01T00:59:59+01:00", AsOf::Time(time)),
            ("as_of=position:12", AsOf::Position(Position::new(12))),
            ("as_of=version:3", AsOf::Version(Version::new(3))),
        ] {
            assert_eq!(parameters(text).await.as_of().unwrap(), Some(expected), "{text}");
        }
        for text in ["as_of=yesterday", "as_of=position:-1", "as_of=version:x", "as_of="] {
            assert!(parameters(text).await.as_of().is_err(), "{text}");
        }
    }

    #[test]
    fn conditions_are_tags() {
        for (name, value, expected) in [
            ("if-match", "\"7\"", Some(ExpectedVersion::Exact(Version::new(7)))),
            ("if-match", "*", Some(ExpectedVersion::Exists)),
            ("if-none-match", "*", Some(ExpectedVersion::NoStream)),
            ("accept", "*", None),
        ] {
            assert_eq!(expected_version(&headers(&[(name, value)])).unwrap(), expected);
        }
        for (name, value) in [("if-match", "7"), ("if-match", "\"x\""), ("if-none-match", "\"7\"")]
        {
            assert!(expected_version(&headers(&[(name, value)])).is_err(), "{name}: {value}");
        }
    }

    #[test]
    fn who_waits_says_for_how_long() {
        let waits = |value| wait(&headers(&[("prefer", value)]));
        assert_eq!(waits("wait=5").unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(waits("respond-async, wait=100").unwrap(), Some(LONGEST));
        assert_eq!(waits("return=minimal").unwrap(), None);
        assert!(waits("wait=long").is_err());
    }
}
