//! A PgBouncer between a test's store and its database, in transaction mode.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::chown,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio_postgres::{NoTls, config::Host};

use super::server::Account;

/// A pooler that gives each transaction whichever connection is free. Ends when dropped.
pub(crate) struct Pooler {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Pooler {
    /// A pooler before one database.
    pub(crate) async fn start(database: &tokio_postgres::Config) -> Self {
        let program = program();
        let account = Account::for_postgres();
        let folder = tempfile::Builder::new().prefix("annals-pooler-").tempdir().unwrap();
        loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let file = folder.path().join("pgbouncer.ini");
            fs::write(&file, settings(database, port)).unwrap();
            let mut command = Command::new(&program);
            if let Some(account) = &account {
                chown(folder.path(), Some(account.uid), Some(account.gid)).unwrap();
                chown(&file, Some(account.uid), Some(account.gid)).unwrap();
                account.run(&mut command);
            }
            command.arg("--quiet").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
            let mut process = command.stderr(Stdio::null()).spawn().unwrap();
            let mut config = tokio_postgres::Config::new();
            config.host("127.0.0.1").port(port).user("anybody").dbname("pooled");
            let started = std::time::Instant::now();
            while process.try_wait().unwrap().is_none() {
                if config.connect(NoTls).await.is_ok() {
                    return Self { process, port, _folder: folder };
                }
                assert!(started.elapsed() < Duration::from_secs(60), "pgbouncer does not answer");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // Another took the port.
            assert!(started.elapsed() < Duration::from_secs(60), "pgbouncer does not start");
        }
    }

    /// The URL through it.
    pub(crate) fn url(&self) -> String {
        self.url_as("annals")
    }

    /// The same under a name by which the server knows its backends.
    pub(crate) fn url_as(&self, application_name: &str) -> String {
        let port = self.port;
        format!("postgres://anybody@127.0.0.1:{port}/pooled?application_name={application_name}")
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn settings(database: &tokio_postgres::Config, port: u16) -> String {
    let host = match &database.get_hosts()[0] {
        Host::Tcp(host) => host.clone(),
        Host::Unix(path) => path.display().to_string(),
    };
    let server_port = database.get_ports().first().copied().unwrap_or(5432);
    let mut target = format!(
        "host={host} port={server_port} dbname={} user={}",
        database.get_dbname().unwrap(),
        database.get_user().unwrap(),
    );
    if let Some(password) = database.get_password() {
        target.push_str(&format!(" password={}", String::from_utf8_lossy(password)));
    }
    // Few connections to the server, so that a client nearly always gets another one than before.
    format!(
        "[databases]\npooled = {target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
         default_pool_size = 6\nserver_round_robin = 1\nmax_client_conn = 500\n\
         logfile =\nserver_lifetime = 3600\n"
    )
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let mut programs = folders.map(|folder| folder.join("pgbouncer"));
    programs.find(|program| program.is_file()).unwrap_or_else(|| {
        panic!("these tests need PgBouncer: run `cargo xtask test` as root, or apt-get install pgbouncer")
    })
}
