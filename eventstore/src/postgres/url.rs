//! Connection strings, with the parameters for TLS that libpq knows and tokio-postgres does not.

use std::path::PathBuf;

use tokio_postgres::config::SslMode;

use crate::error::Error;

/// What a connection string says.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: Tls,
}

/// How the server shows who it is, and we who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) mode: Mode,
    /// Certificates of authorities to trust instead of the platform's.
    pub(super) root_certificates: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    Disable,
    /// Encrypted if the server offers it.
    #[default]
    Prefer,
    /// Encrypted, and the server is who the URL says.
    VerifyFull,
    /// Encrypted, and the server's certificate is of an authority that we trust.
    VerifyCa,
}

pub(super) fn parse(url: &str) -> Result<Parsed, Error> {
    let mut tls = Tls::default();
    let mut unknown_mode = None;
    let mut take = |name: &str, value: String| {
        match name {
            "sslmode" => match value.as_str() {
                "disable" => tls.mode = Mode::Disable,
                "prefer" => tls.mode = Mode::Prefer,
                "require" | "verify-full" => tls.mode = Mode::VerifyFull,
                "verify-ca" => tls.mode = Mode::VerifyCa,
                _ => unknown_mode = Some(()),
            },
            // What the platform trusts is trusted without being asked for.
            "sslrootcert" if value == "system" => {}
            "sslrootcert" => tls.root_certificates = Some(value.into()),
            "sslcert" => tls.certificate = Some(value.into()),
            "sslkey" => tls.key = Some(value.into()),
            _ => return false,
        }
        true
    };
    let rest = if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        without_query_parameters(url, &mut take)
    } else {
        without_pairs(url, &mut take)
    };
    if unknown_mode.is_some() {
        return Err(invalid("sslmode must be disable, prefer, require, verify-ca or verify-full"));
    }
    if tls.certificate.is_some() != tls.key.is_some() {
        return Err(invalid("sslcert and sslkey are only of use together"));
    }
    // The parser's own message repeats parts of the URL, which may hold a password.
    let mut config: tokio_postgres::Config = rest.parse().map_err(|_| {
        invalid(
            "expected postgres://USER:PASSWORD@HOST:PORT/DATABASE, or key=value pairs that libpq \
             knows",
        )
    })?;
    config.ssl_mode(match tls.mode {
        Mode::Disable => SslMode::Disable,
        Mode::Prefer => SslMode::Prefer,
        Mode::VerifyFull | Mode::VerifyCa => SslMode::Require,
    });
    Ok(Parsed { config, tls })
}

pub(super) fn invalid(reason: impl Into<String>) -> Error {
    Error::InvalidUrl { reason: reason.into() }
}

/// A URL without the parameters that `take` takes.
fn without_query_parameters(url: &str, take: &mut impl FnMut(&str, String) -> bool) -> String {
    let Some((address, query)) = url.split_once('?') else { return url.to_owned() };
    let kept: Vec<_> = query
        .split('&')
        .filter(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
            !take(name, value.into_owned())
        })
        .collect();
    if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) }
}

/// `key=value` pairs without those that `take` takes. What is no such pair stays, to be refused.
fn without_pairs(text: &str, take: &mut impl FnMut(&str, String) -> bool) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let value = after.trim_start();
        let (length, unquoted) = value_of(value);
        let end = rest.len() - value.len() + length;
        if !take(name.trim(), unquoted) {
            kept.push_str(&rest[..end]);
        }
        rest = &rest[end..];
    }
    kept.push_str(rest);
    kept
}

/// How long the value is at the start of a text, quotes included, and what it says.
fn value_of(text: &str) -> (usize, String) {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return (at + 1, value),
            space if !quoted && space.is_whitespace() => return (at, value),
            other => value.push(other),
        }
    }
    (text.len(), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(url: &str) -> Tls {
        parse(url).map(|parsed| parsed.tls).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn the_parameters_of_tls_are_taken_out_of_a_url() {
        let url = "postgres://u:p@h:1/d?sslmode=verify-ca&application_name=x&sslrootcert=%2Fa%20b";
        let parsed = parse(url).map_err(|error| error.to_string());
        let Ok(Parsed { config, tls }) = parsed else { panic!("{parsed:?}") };
        assert_eq!(config.get_application_name(), Some("x"));
        assert_eq!(config.get_ssl_mode(), SslMode::Require);
        assert_eq!((tls.mode, tls.root_certificates), (Mode::VerifyCa, Some("/a b".into())));
    }

    #[test]
    fn the_parameters_of_tls_are_taken_out_of_pairs() {
        let text =
            r"host=h sslrootcert = '/it\'s a b' password='x sslmode=disable' sslmode=require";
        let parsed = parse(text).map_err(|error| error.to_string());
        let Ok(Parsed { config, tls }) = parsed else { panic!("{parsed:?}") };
        assert_eq!(config.get_password(), Some(&b"x sslmode=disable"[..]));
        assert_eq!(tls.root_certificates, Some("/it's a b".into()));
        assert_eq!(tls.mode, Mode::VerifyFull);
    }

    #[test]
    fn encryption_without_knowing_with_whom_is_not_to_be_had() {
        assert_eq!(tls("postgres://h/d").mode, Mode::Prefer);
        assert_eq!(tls("postgres://h/d?sslmode=require").mode, Mode::VerifyFull);
        assert_eq!(tls("host=h sslmode=disable").mode, Mode::Disable);
        assert_eq!(tls("host=h sslrootcert=system").root_certificates, None);
        for url in ["host=h sslmode=allow", "postgres://h/d?sslmode=Require", "host=h sslcert=x"] {
            assert!(matches!(parse(url), Err(Error::InvalidUrl { .. })), "{url}");
        }
    }
}
