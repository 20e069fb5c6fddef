//! The settings of the private cluster.

/// What the cluster's postgresql.conf includes. fsync stays on: what is measured here should hold
/// elsewhere.
pub(crate) fn render(port: u16) -> String {
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
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_listens_on_the_loopback_interface_only() {
        let config = render(20_001);
        assert!(config.contains("\nlisten_addresses = '127.0.0.1'\n"));
        assert!(config.contains("\nport = 20001\n"));
        assert!(!config.contains("fsync"));
    }
}
