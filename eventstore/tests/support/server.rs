//! A server of a test's own: one that it may configure, kill, restart and fill.

use std::{
    fs::{self, File},
    io,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio_postgres::NoTls;

/// The superuser of the server. It needs no password.
const USER: &str = "annals";

/// How long a start may take on a busy machine, recovery included.
const PATIENCE: Duration = Duration::from_secs(120);

/// A PostgreSQL server of the same version as that of `DATABASE_URL`, else of the machine's; it is
/// stopped and removed when dropped.
pub(crate) struct PrivateServer {
    postgres: Option<Child>,
    binaries: PathBuf,
    account: Option<Account>,
    port: u16,
    settings: Vec<String>,
    // The last field: the folder goes when the server is down.
    folder: TempDir,
}

impl PrivateServer {
    /// Creates a server and starts it with these settings, each as `name=value`.
    pub(crate) async fn start(settings: &[&str]) -> Self {
        let mut server = Self::create().await;
        server.settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        server.run().await;
        server
    }

    /// Creates a server without starting it, so that files can be put beside its data first.
    pub(crate) async fn create() -> Self {
        let binaries = binaries().await;
        let account = Account::for_postgres();
        let folder = tempfile::Builder::new().prefix("annals-server-").tempdir().unwrap();
        let server = Self { postgres: None, binaries, account, port: 0, settings: vec![], folder };
        server.give(server.folder.path());
        let mut initdb = server.command("initdb");
        initdb
            .args(["--username", USER, "--auth", "trust", "--encoding", "UTF8", "--no-locale"])
            .arg("--no-sync")
            .arg(server.data());
        let output = initdb.output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        server
    }

    /// Starts a server that was created, or starts it with other settings once it is down.
    pub(crate) async fn start_with(&mut self, settings: &[String]) {
        self.settings = settings.to_vec();
        self.run().await;
    }

    /// A connection configuration for the superuser.
    pub(crate) fn config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user(USER).dbname("postgres");
        config
    }

    /// The same as a URL.
    pub(crate) fn url(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/postgres", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Puts a file beside the data that only the server may read; returns where it is.
    pub(crate) fn put(&self, name: &str, content: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let file = self.folder.path().join(name);
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        self.give(&file);
        file
    }

    /// `kill -9` of the postmaster. Its children notice and end by themselves, a moment later.
    pub(crate) fn kill(&mut self) {
        if let Some(mut postgres) = self.postgres.take() {
            postgres.kill().unwrap();
            postgres.wait().unwrap();
        }
    }

    /// Stops the server as an administrator would, cutting off who is connected.
    pub(crate) fn stop(&mut self) {
        if let Some(mut postgres) = self.postgres.take() {
            self.pg_ctl(&["stop", "-m", "fast"]);
            postgres.wait().unwrap();
        }
    }

    /// Starts the server again, on the same port with the same data; stops it first if it runs.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        self.run().await;
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    async fn run(&mut self) {
        let started = std::time::Instant::now();
        loop {
            if self.port == 0 {
                self.port = free_port();
            }
            match self.try_run(PATIENCE.saturating_sub(started.elapsed())).await {
                Ok(()) => return,
                // Children of a killed postmaster are still at it, or another took the port.
                Err(problem) => {
                    let again = started.elapsed() < PATIENCE;
                    assert!(again, "the server does not start: {problem}\n{}", self.log());
                    let taken = TcpListener::bind(("127.0.0.1", self.port)).is_err();
                    let is_new = !self.data().join("postmaster.opts").exists();
                    if taken && is_new {
                        self.port = 0;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn try_run(&mut self, patience: Duration) -> Result<(), String> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .map_err(|error| error.to_string())?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        let own = [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "shared_buffers=32MB".to_owned(),
        ];
        for setting in own.iter().chain(&self.settings) {
            command.arg("-c").arg(setting);
        }
        let output = log.try_clone().map_err(|error| error.to_string())?;
        let mut postgres = command.stdout(output).stderr(log).spawn().unwrap();
        let started = std::time::Instant::now();
        loop {
            if let Some(status) = postgres.try_wait().unwrap() {
                return Err(status.to_string());
            }
            if answers(&self.config()).await {
                self.postgres = Some(postgres);
                return Ok(());
            }
            if started.elapsed() > patience {
                postgres.kill().unwrap();
                postgres.wait().unwrap();
                return Err("it does not answer".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn pg_ctl(&self, arguments: &[&str]) -> bool {
        let mut pg_ctl = self.command("pg_ctl");
        pg_ctl.arg("-D").arg(self.data()).args(arguments).stdout(Stdio::null());
        pg_ctl.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        for (variable, _) in std::env::vars_os() {
            if variable.to_str().is_some_and(|variable| variable.starts_with("PG")) {
                command.env_remove(variable);
            }
        }
        if let Some(account) = &self.account {
            account.run(&mut command);
        }
        command
    }

    /// Makes a file the server's own.
    fn give(&self, file: &Path) {
        if let Some(account) = &self.account {
            chown(file, Some(account.uid), Some(account.gid)).unwrap();
        }
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        if let Some(mut postgres) = self.postgres.take() {
            if !self.pg_ctl(&["stop", "-m", "immediate"]) {
                drop(postgres.kill());
            }
            drop(postgres.wait());
        }
    }
}

/// True once the server lets somebody in, or asks who it is: a server with TLS may refuse us.
async fn answers(config: &tokio_postgres::Config) -> bool {
    let mut config = config.clone();
    let connecting = config.connect_timeout(Duration::from_secs(5)).connect(NoTls);
    match connecting.await {
        Ok(_) => true,
        Err(error) => error.code().is_some_and(|code| code.code().starts_with("28")),
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Where the server's programs are.
async fn binaries() -> PathBuf {
    let found = told_by_server().await.or_else(|| on_this_machine().ok().flatten());
    found.unwrap_or_else(|| {
        panic!("this test starts a PostgreSQL server of its own: install PostgreSQL 15 or newer")
    })
}

/// The programs of the server that the other tests use, if they are on this machine: tests of one
/// run test one version.
async fn told_by_server() -> Option<PathBuf> {
    let url = std::env::var("DATABASE_URL").ok()?;
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.ok()?;
    tokio::spawn(connection);
    let sql = "select setting from pg_config where name = 'BINDIR'";
    let row = client.query_one(sql, &[]).await.ok()?;
    Some(PathBuf::from(row.get::<_, String>(0))).filter(|folder| is_complete(folder))
}

fn on_this_machine() -> io::Result<Option<PathBuf>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path)
        .filter_map(|folder| Some(fs::canonicalize(folder.join("initdb")).ok()?.parent()?.into()));
    let mut debian: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    debian.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let mut folders = in_path.chain(debian.into_iter().map(|(_, folder)| folder));
    Ok(folders.find(|folder: &PathBuf| is_complete(folder)))
}

fn is_complete(folder: &Path) -> bool {
    ["initdb", "postgres", "pg_ctl"].iter().all(|program| folder.join(program).is_file())
}

/// The account that servers run under, because they refuse to run as root.
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// `None` if the test's own will do.
    pub(crate) fn for_postgres() -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        // A file that this process makes belongs to whom it runs as.
        let own = tempfile::tempfile().unwrap().metadata().unwrap().uid();
        if own != 0 {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let find = |name: &str| {
            users.lines().find_map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                let [found, _, uid, gid, ..] = fields[..] else { return None };
                let account = Self { uid: uid.parse().ok()?, gid: gid.parse().ok()? };
                (found == name && account.uid != 0).then_some(account)
            })
        };
        let account = find("postgres").or_else(|| find("nobody"));
        Some(account.expect("PostgreSQL does not run as root: create a user postgres"))
    }

    pub(crate) fn run(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid).env("HOME", "/");
    }
}
