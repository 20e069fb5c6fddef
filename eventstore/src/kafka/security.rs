//! How a client proves who it is, and how it knows whom it talks to.

use std::{fmt, path::PathBuf};

use rdkafka::ClientConfig;

use super::producer::broker_error;
use crate::error::Error;

/// TLS and SASL towards the brokers. Nothing of either unless set.
///
/// ```no_run
/// use annals_eventstore::kafka::{Pem, Publisher, Sasl, Security, Tls};
///
/// let password = std::env::var("KAFKA_PASSWORD").expect("the password is set");
/// let security = Security::new()
///     .tls(Tls::new().trust(Pem::file("/etc/kafka/ca.pem")))
///     .sasl(Sasl::scram_sha_512("publisher", password));
/// let builder = Publisher::builder("broker:9093", "lending").security(security);
/// ```
///
/// TLS and SCRAM come with the feature `kafka-tls`, which builds with the machine's OpenSSL. Passwords
/// and private keys appear in no `Debug`, log or error of this crate.
#[derive(Clone, Debug, Default)]
#[must_use = "settings do nothing until they are given to a client"]
pub struct Security {
    tls: Option<Tls>,
    sasl: Option<Sasl>,
}

/// Encrypted connections to brokers whose certificates are verified, with the name of the host.
#[derive(Clone, Debug, Default)]
#[must_use = "settings do nothing until they are given to a client"]
pub struct Tls {
    authorities: Option<Pem>,
    identity: Option<(Pem, Pem)>,
    key_password: Option<Secret>,
}

/// A user and how it proves who it is.
#[derive(Clone, Debug)]
pub struct Sasl {
    mechanism: &'static str,
    user: String,
    password: Secret,
}

/// Certificates or a private key in PEM.
#[derive(Clone)]
pub struct Pem(Place);

#[derive(Clone)]
enum Place {
    File(PathBuf),
    Text(String),
}

/// What nobody gets to see.
#[derive(Clone)]
struct Secret(String);

impl Security {
    /// Neither TLS nor SASL.
    pub fn new() -> Self {
        Self::default()
    }

    /// Connections are encrypted.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The client logs in. Without TLS the password of [`Sasl::plain`] can be read on the wire.
    pub fn sasl(mut self, sasl: Sasl) -> Self {
        self.sasl = Some(sasl);
        self
    }

    /// The properties of librdkafka that say the same, for clients of a program's own. **Passwords and
    /// keys are among the values.**
    pub fn properties(&self) -> Vec<(&'static str, String)> {
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => return Vec::new(),
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        let mut properties = vec![("security.protocol", protocol.to_owned())];
        if let Some(tls) = &self.tls {
            properties.extend(tls.authorities.iter().map(|pem| pem.property(CA)));
            if let Some((certificate, key)) = &tls.identity {
                properties.extend([certificate.property(CERTIFICATE), key.property(KEY)]);
            }
            let password = tls.key_password.as_ref();
            properties.extend(password.map(|Secret(it)| ("ssl.key.password", it.clone())));
        }
        if let Some(Sasl { mechanism, user, password: Secret(password) }) = &self.sasl {
            properties.push(("sasl.mechanism", (*mechanism).to_owned()));
            properties.push(("sasl.username", user.clone()));
            properties.push(("sasl.password", password.clone()));
        }
        properties
    }

    /// Makes sure that the program is built for it. (A [`Publisher`](super::Publisher) does so by itself.)
    ///
    /// # Errors
    /// [`Error::Broker`] if librdkafka is built without TLS or SCRAM, and it is asked for.
    pub fn check(&self) -> Result<(), Error> {
        let native = ClientConfig::new().create_native_config();
        let features = native.and_then(|native| native.get("builtin.features"));
        let features = features.map_err(|error| broker_error("look at librdkafka", error))?;
        for needed in self.needs() {
            if !features.split(',').any(|feature| feature == needed) {
                let action = format!("use the security settings ({needed})");
                let reason = "librdkafka is built without it; turn on the feature kafka-tls";
                return Err(Error::Broker { action, source: reason.into() });
            }
        }
        Ok(())
    }

    /// What librdkafka has to be built with, by its own names.
    fn needs(&self) -> impl Iterator<Item = &'static str> {
        let scram = self.sasl.as_ref().is_some_and(|sasl| sasl.mechanism != PLAIN);
        self.tls.as_ref().map(|_| "ssl").into_iter().chain(scram.then_some("sasl_scram"))
    }
}

impl Tls {
    /// Brokers whose certificates the machine trusts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Brokers whose certificates these authorities have signed, instead of the machine's.
    pub fn trust(mut self, authorities: Pem) -> Self {
        self.authorities = Some(authorities);
        self
    }

    /// The client shows a certificate of its own.
    pub fn identity(mut self, certificate: Pem, private_key: Pem) -> Self {
        self.identity = Some((certificate, private_key));
        self
    }

    /// The password of the client's private key, if it is encrypted.
    pub fn key_password(mut self, password: impl Into<String>) -> Self {
        self.key_password = Some(Secret(password.into()));
        self
    }
}

const PLAIN: &str = "PLAIN";

impl Sasl {
    /// The mechanism `PLAIN`.
    pub fn plain(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::by(PLAIN, user, password)
    }

    /// The mechanism `SCRAM-SHA-256`.
    pub fn scram_sha_256(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::by("SCRAM-SHA-256", user, password)
    }

    /// The mechanism `SCRAM-SHA-512`.
    pub fn scram_sha_512(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::by("SCRAM-SHA-512", user, password)
    }

    fn by(mechanism: &'static str, user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { mechanism, user: user.into(), password: Secret(password.into()) }
    }
}

/// The names of a property: of a file, and of its content.
type Names = (&'static str, &'static str);
const CA: Names = ("ssl.ca.location", "ssl.ca.pem");
const CERTIFICATE: Names = ("ssl.certificate.location", "ssl.certificate.pem");
const KEY: Names = ("ssl.key.location", "ssl.key.pem");

impl Pem {
    /// A file. It is read whenever a client is made.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Place::File(path.into()))
    }

    /// The text itself.
    pub fn text(pem: impl Into<String>) -> Self {
        Self(Place::Text(pem.into()))
    }

    fn property(&self, (location, content): Names) -> (&'static str, String) {
        match &self.0 {
            Place::File(path) => (location, path.to_string_lossy().into_owned()),
            Place::Text(text) => (content, text.clone()),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::File(path) => f.debug_tuple("Pem").field(path).finish(),
            // It may be a private key.
            Place::Text(_) => f.write_str("Pem(..)"),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_becomes_the_properties_that_say_it() {
        let properties = |security: &Security| security.properties();
        assert_eq!(properties(&Security::new()), []);
        let tls = || {
            let tls = Tls::new().trust(Pem::file("/ca.pem")).key_password("k");
            tls.identity(Pem::file("/c.pem"), Pem::text("KEY"))
        };
        let expected_tls = [
            ("ssl.ca.location", "/ca.pem"),
            ("ssl.certificate.location", "/c.pem"),
            ("ssl.key.pem", "KEY"),
            ("ssl.key.password", "k"),
        ];
        let expected_sasl =
            [("sasl.mechanism", "SCRAM-SHA-512"), ("sasl.username", "ada"), ("sasl.password", "p")];
        let expect = |protocol, rest: &[(&'static str, &str)]| {
            let all = [("security.protocol", protocol)].into_iter().chain(rest.iter().copied());
            all.map(|(key, value)| (key, value.to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(properties(&Security::new().tls(tls())), expect("ssl", &expected_tls));
        let sasl = || Sasl::scram_sha_512("ada", "p");
        let only_sasl = Security::new().sasl(sasl());
        assert_eq!(properties(&only_sasl), expect("sasl_plaintext", &expected_sasl));
        let both = Security::new().tls(tls()).sasl(sasl());
        let expected = [&expected_tls[..], &expected_sasl[..]].concat();
        assert_eq!(properties(&both), expect("sasl_ssl", &expected));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let tls = Tls::new().identity(Pem::text("hidden"), Pem::text("hidden"));
        let tls = tls.key_password("hidden").trust(Pem::file("/ca.pem"));
        let security = Security::new().tls(tls).sasl(Sasl::plain("ada", "hidden"));
        let shown = format!("{security:?} {security:#?}");
        assert!(!shown.contains("hidden"), "{shown}");
        assert!(shown.contains("ada") && shown.contains("/ca.pem"), "{shown}");
    }

    #[test]
    fn what_librdkafka_must_bring_is_known() {
        let needs = |security: Security| security.needs().collect::<Vec<_>>();
        assert_eq!(needs(Security::new().sasl(Sasl::plain("a", "b"))), [""; 0]);
        assert_eq!(needs(Security::new().tls(Tls::new())), ["ssl"]);
        let scram = Security::new().tls(Tls::new()).sasl(Sasl::scram_sha_256("a", "b"));
        assert_eq!(needs(scram), ["ssl", "sasl_scram"]);
    }
}
