//! The settings of the private cluster.

/// Whether the server counts statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statements {
    Counted,
    /// The binaries come without the library for it.
    NotCounted,
}

/// The library that counts them, an extension as well.
pub(crate) const COUNTING: &str = "pg_stat_statements";

/// What the cluster's postgresql.conf includes. fsync stays on: what is measured here should hold
/// elsewhere.
pub(crate) fn render(port: u16, statements: Statements) -> String {
    let counting = match statements {
        Statements::Counted => format!(
            "
# The benchmarks say how many statements a command takes.
shared_preload_libraries = '{COUNTING}'
# Tests make many databases, and what they ran there is of no use later.
{COUNTING}.max = 10000
{COUNTING}.save = off
"
        ),
        Statements::NotCounted => String::new(),
    };
    format!(
        "\
# Written anew by every `cargo xtask services up`.
listen_addresses = '127.0.0.1'
port = {port}
# No socket: its path would have to be short, and ours may not be.
unix_socket_directories = ''

# Tests run in parallel, each with pools of its own.
max_connections = 400
shared_buffers = '256MB'
max_wal_size = '2GB'

timezone = 'UTC'
log_timezone = 'UTC'
{counting}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_listens_on_the_loopback_interface_only() {
        let config = render(20_001, Statements::NotCounted);
        assert!(config.contains("\nlisten_addresses = '127.0.0.1'\n"));
        assert!(config.contains("\nport = 20001\n"));
        assert!(!config.contains("fsync"));
    }

    #[test]
    fn only_what_is_there_is_preloaded() {
        // A server that is to load a library that is not there does not start.
        assert!(!render(1, Statements::NotCounted).contains(COUNTING));
        let config = render(1, Statements::Counted);
        assert!(config.contains("\nshared_preload_libraries = 'pg_stat_statements'\n"), "{config}");
    }
}
