//! The benchmarks, one file each.

pub(crate) mod append_copy;
pub(crate) mod commands;
mod copy;
pub(crate) mod growth;
pub(crate) mod kafka;
pub(crate) mod load_10k;
pub(crate) mod processes;
pub(crate) mod read_side;
pub(crate) mod replay_copy;
mod rounds;

use annals::kafka::Delivery;
use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{broker::Broker, contestant::Alone, measure::Effort, report::Entry, server::Server};

/// A benchmark, by its name in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Name {
    /// Load, decide, append: one command at a time.
    #[value(name = "execute_1")]
    Execute1,
    /// The same, 64 commands at once.
    #[value(name = "execute_64")]
    Execute64,
    /// The same, 512 commands at once.
    #[value(name = "execute_512")]
    Execute512,
    /// 90 % loads, 10 % commands, 64 at once.
    Mixed,
    /// Appends of five events, against COPY into the same table.
    AppendCopy,
    /// The whole log as typed events, against COPY of it to the client.
    ReplayCopy,
    /// An aggregate of 10,000 events, with snapshots against without.
    #[value(name = "load_10k")]
    Load10k,
    /// Commands from four processes, against one process.
    Processes,
    /// A read model with history built anew, against a replay of the log.
    Rebuild,
    /// The same in two parts, against one.
    RebuildSlices,
    /// From an append to the read model.
    LiveLatency,
    /// One row as of the end of the log, against the row as it is.
    AsOfPoint,
    /// A whole table as of the end of the log, against the table as it is.
    AsOfTable,
    /// The log to Kafka, at least once, against a producer that sends the same from memory.
    PublishAtLeastOnce,
    /// The same, exactly once.
    PublishExactlyOnce,
    /// A read model that catches up with a topic, against one that catches up with the log.
    ConsumeToReadModel,
    /// From an append, by Kafka, to the read model.
    EndToEnd,
    /// Commands, appends and loads in stores of 100,000 to 10,000,000 events. Only if named.
    Growth,
}

/// How to run them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) effort: Effort,
    pub(crate) alone: Alone,
    /// Events in the largest store of `growth`.
    pub(crate) largest: i64,
}

impl Name {
    /// What runs when nothing is named.
    pub(crate) const DEFAULT: [Self; 17] = [
        Self::Execute1,
        Self::Execute64,
        Self::Execute512,
        Self::Mixed,
        Self::AppendCopy,
        Self::ReplayCopy,
        Self::Load10k,
        Self::Processes,
        Self::Rebuild,
        Self::RebuildSlices,
        Self::LiveLatency,
        Self::AsOfPoint,
        Self::AsOfTable,
        Self::PublishAtLeastOnce,
        Self::PublishExactlyOnce,
        Self::ConsumeToReadModel,
        Self::EndToEnd,
    ];

    /// Whether there is nothing to measure without Kafka.
    pub(crate) fn needs_broker(self) -> bool {
        matches!(
            self,
            Self::PublishAtLeastOnce
                | Self::PublishExactlyOnce
                | Self::ConsumeToReadModel
                | Self::EndToEnd
        )
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Execute1 => "execute_1",
            Self::Execute64 => "execute_64",
            Self::Execute512 => "execute_512",
            Self::Mixed => "mixed",
            Self::AppendCopy => "append_copy",
            Self::ReplayCopy => "replay_copy",
            Self::Load10k => "load_10k",
            Self::Processes => "processes",
            Self::Rebuild => "rebuild",
            Self::RebuildSlices => "rebuild_slices",
            Self::LiveLatency => "live_latency",
            Self::AsOfPoint => "as_of_point",
            Self::AsOfTable => "as_of_table",
            Self::PublishAtLeastOnce => "publish_at_least_once",
            Self::PublishExactlyOnce => "publish_exactly_once",
            Self::ConsumeToReadModel => "consume_to_read_model",
            Self::EndToEnd => "end_to_end",
            Self::Growth => "growth",
        }
    }

    pub(crate) async fn run(
        self,
        server: &Server,
        broker: Option<&Broker>,
        how: How,
    ) -> Result<Entry> {
        let effort = how.effort;
        let broker = || broker.context("KAFKA_BROKERS names no broker");
        let publish = async |delivery| {
            kafka::publish::run(self.as_str(), server, broker()?, effort, delivery).await
        };
        match self {
            Self::Execute1 => commands::run(self.as_str(), server, how, 1, 0).await,
            Self::Execute64 => commands::run(self.as_str(), server, how, 64, 0).await,
            Self::Execute512 => commands::run(self.as_str(), server, how, 512, 0).await,
            Self::Mixed => commands::run(self.as_str(), server, how, 64, 9).await,
            Self::AppendCopy => append_copy::run(server, effort).await,
            Self::ReplayCopy => replay_copy::run(server, effort).await,
            Self::Load10k => load_10k::run(server, effort).await,
            Self::Processes => processes::run(server, effort).await,
            Self::Rebuild => read_side::rebuild::run(server, effort).await,
            Self::RebuildSlices => read_side::rebuild::slices(server, effort).await,
            Self::LiveLatency => read_side::live_latency::run(server, effort).await,
            Self::AsOfPoint => read_side::as_of::point(server, effort).await,
            Self::AsOfTable => read_side::as_of::table(server, effort).await,
            Self::PublishAtLeastOnce => publish(Delivery::AtLeastOnce).await,
            Self::PublishExactlyOnce => publish(Delivery::ExactlyOnce).await,
            Self::ConsumeToReadModel => kafka::consume::run(server, broker()?, effort).await,
            Self::EndToEnd => kafka::end_to_end::run(server, broker()?, effort).await,
            Self::Growth => growth::run(server, effort, how.largest).await,
        }
    }
}
