//! What we write for Kafka and Maven to read.

use std::fmt::Write as _;
use std::path::Path;

/// The broker's server.properties.
pub(crate) fn render(port: u16, controller_port: u16, data: &Path) -> String {
    let data = escaped(&data.to_string_lossy());
    format!(
        "\
# Written anew by every `cargo xtask services up`.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}

# One node: there is nowhere to replicate to.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4

# A topic that nobody created is a mistake to be seen, not one to be mended.
auto.create.topics.enable=false
delete.topic.enable=true
num.partitions=4
# Nothing disappears while somebody looks at it.
log.retention.ms=-1
log.retention.bytes=-1

# Consumers start at once.
group.initial.rebalance.delay.ms=0
# A broker that was killed comes back when its old session is over: in seconds, with these.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
"
    )
}

/// A value of a Java properties file, which is read as Latin-1 and unescaped.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for unit in value.encode_utf16() {
        match u8::try_from(unit) {
            Ok(b'\\') => text.push_str(r"\\"),
            Ok(byte) if byte.is_ascii_graphic() || byte == b' ' => text.push(byte.into()),
            // Writing to a String does not fail.
            _ => drop(write!(text, "\\u{unit:04x}")),
        }
    }
    text
}

/// A Maven project that depends on the broker and on a logger that writes to stderr.
pub(crate) fn render_pom(version: &str) -> String {
    format!(
        "\
<project xmlns=\"http://maven.apache.org/POM/4.0.0\">
  <modelVersion>4.0.0</modelVersion>
  <groupId>annals</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_ports_and_data() {
        let config = render(20_001, 20_002, Path::new("/tmp/a b"));
        for line in [
            "listeners=PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:20002",
            "advertised.listeners=PLAINTEXT://127.0.0.1:20001",
            "controller.quorum.voters=1@127.0.0.1:20002",
            "log.dirs=/tmp/a b",
        ] {
            assert!(config.lines().any(|found| found == line), "{line}\n{config}");
        }
    }

    #[test]
    fn no_setting_is_given_twice() {
        let config = render(1, 2, Path::new("/d"));
        let mut keys: Vec<&str> =
            config.lines().filter_map(|line| line.split_once('=')).map(|(key, _)| key).collect();
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }

    #[test]
    fn paths_survive_the_properties_format() {
        assert_eq!(escaped("/home/jürgen/a b"), r"/home/j\u00fcrgen/a b");
        assert_eq!(escaped(r"C:\x"), r"C:\\x");
        assert_eq!(escaped("/😀"), r"/\ud83d\ude00");
    }
}
