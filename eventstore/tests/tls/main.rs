//! Encrypted connections, to a server with certificates made for the test.
#![allow(clippy::unwrap_used, reason = "these are tests")]

#[path = "../support/mod.rs"]
mod support;

use annals_eventstore::{Error, EventStore};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use support::{TestDatabase, log, one, server::PrivateServer, stream, text};

/// An authority that signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a name, and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        // PostgreSQL takes the user of a client's certificate from here.
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A server with TLS, whose certificate is for `name`.
struct Secured {
    server: PrivateServer,
    authority: Authority,
    folder: tempfile::TempDir,
}

const ENCRYPTED_ONLY: &str = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n";

impl Secured {
    async fn start(name: &str, access: &str) -> Self {
        let authority = Authority::new("the server's");
        let mut server = PrivateServer::create().await;
        let (certificate, key) = authority.sign(name);
        let settings = [
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", server.put("server.crt", &certificate).display()),
            format!("ssl_key_file={}", server.put("server.key", &key).display()),
            format!("ssl_ca_file={}", server.put("ca.crt", &authority.pem()).display()),
            format!("hba_file={}", server.put("hba.conf", access).display()),
        ];
        server.start_with(&settings).await;
        Self { server, authority, folder: tempfile::tempdir().unwrap() }
    }

    /// Writes a file for the client.
    fn file(&self, name: &str, content: &str) -> String {
        let file = self.folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        file.display().to_string()
    }

    fn url(&self, parameters: &str) -> String {
        format!("{}?{parameters}", self.server.url())
    }

    /// With the authority's certificate.
    fn trusting(&self, mode: &str) -> String {
        let roots = self.file("ca.crt", &self.authority.pem());
        self.url(&format!("sslmode={mode}&sslrootcert={roots}"))
    }
}

/// Every kind of connection, and none that is not encrypted.
async fn assert_encrypted(url: &str) {
    let store = EventStore::connect(url).await.unwrap();
    let listener = store.database().unwrap().listen().await.unwrap();
    store.append(one(stream("a"), 1)).await.unwrap();
    listener.wait(std::time::Duration::from_secs(60)).await;
    assert!(!log(&store).await.is_empty());
    let client = store.database().unwrap().client().await.unwrap();
    let sql = "select count(*), count(*) filter (where ssl) from pg_stat_ssl
        join pg_stat_activity using (pid) where application_name = 'annals'";
    let row = client.query_one(sql, &[]).await.unwrap();
    let (all, encrypted) = (row.get::<_, i64>(0), row.get::<_, i64>(1));
    assert!(all >= 3, "appending, reading and listening, and only {all} connections");
    assert_eq!(all, encrypted);
}

fn assert_refused(result: Result<EventStore, Error>, why: &str) {
    let error = result.expect_err(why);
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(text(&error).contains(why), "{}", text(&error));
    assert!(!error.is_retryable(), "the certificate will be the same: {error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_trusts_the_authority_is_connected_and_encrypted() {
    let secured = Secured::start("127.0.0.1", ENCRYPTED_ONLY).await;
    for mode in ["require", "verify-full", "verify-ca", "prefer"] {
        assert_encrypted(&secured.trusting(mode)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_authority_is_refused() {
    let secured = Secured::start("127.0.0.1", ENCRYPTED_ONLY).await;
    let other = secured.file("other.crt", &Authority::new("another").pem());
    for mode in ["require", "verify-full", "verify-ca", "prefer"] {
        let url = secured.url(&format!("sslmode={mode}&sslrootcert={other}"));
        assert_refused(EventStore::connect(&url).await, "UnknownIssuer");
        // The platform does not know it either.
        let url = secured.url(&format!("sslmode={mode}"));
        assert_refused(EventStore::connect(&url).await, "UnknownIssuer");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_name_is_refused_unless_names_do_not_matter() {
    let secured = Secured::start("database.example", ENCRYPTED_ONLY).await;
    for mode in ["require", "verify-full", "prefer"] {
        let refused = EventStore::connect(&secured.trusting(mode)).await;
        assert_refused(refused, "NotValidForName");
    }
    assert_encrypted(&secured.trusting("verify-ca")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_be_encrypted_is_not_sent_in_plain() {
    // The server of the other tests has no TLS.
    let plain = PrivateServer::start(&[]).await;
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = format!("{}?sslmode={mode}", plain.url());
        let error = EventStore::connect(&url).await.unwrap_err();
        assert!(matches!(error, Error::Connect { .. }), "{error:?}");
        assert!(text(&error).contains("server does not support TLS"), "{}", text(&error));
    }
    let url = format!("{}?sslmode=prefer", plain.url());
    EventStore::connect(&url).await.unwrap();

    // And a server that wants it encrypted does not get it in plain.
    let secured = Secured::start("127.0.0.1", ENCRYPTED_ONLY).await;
    let error = EventStore::connect(&secured.url("sslmode=disable")).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_shows_its_own_certificate() {
    let access = "hostssl all all 127.0.0.1/32 cert\n";
    let secured = Secured::start("127.0.0.1", access).await;
    let (certificate, key) = secured.authority.sign("annals");
    let own = format!(
        "{}&sslcert={}&sslkey={}",
        secured.trusting("verify-full"),
        secured.file("client.crt", &certificate),
        secured.file("client.key", &key)
    );
    assert_encrypted(&own).await;
    let error = EventStore::connect(&secured.trusting("verify-full")).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_are_none_are_named() {
    let database = TestDatabase::create().await;
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.crt");
    std::fs::write(&empty, "nothing").unwrap();
    for file in [empty.display().to_string(), "/no/such/file".to_owned()] {
        let url = format!("{} sslrootcert='{file}' sslmode=require", database.url());
        let error = EventStore::connect(&url).await.unwrap_err();
        assert!(matches!(error, Error::InvalidUrl { .. }), "{error:?}");
        assert!(error.to_string().contains(&file), "{error}");
    }
}
