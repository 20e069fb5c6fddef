//! `kafka`: what is published.

use std::fmt::Write;

use clap::{Args, Subcommand};
use comfy_table::{Cell, CellAlignment};
use serde_json::{Value, json};

use super::{
    App, Exit, Failure,
    database::Database,
    output::{Bar, Output, print, print_json, table},
};
use crate::kafka::{
    Builder, Delivery, Publisher,
    verify::{Finding, Place, Progress, Verification},
};

/// Looks after what is published to Kafka
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Verify(Arguments),
}

pub(super) async fn run(app: &App, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Verify(arguments) => verify(app, arguments).await,
    }
}

/// Checks that the topics hold what the store holds
///
/// Every event that counts as published is in its topic and partition, once, in order and unchanged, and
/// nothing else is. It reads the log and the topics side by side, from their beginning, as a consumer with
/// isolation.level=read_committed sees them. It writes nothing, and may run while the store is in use and
/// published.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 if the topics are sound, 1 if they could not be checked, 2 if there are \
                        findings, 130 if it was stopped."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: Database,

    /// Where Kafka is: HOST:PORT,..., where that is not what the program says
    #[arg(long, value_name = "BROKERS", env = "KAFKA_BROKERS")]
    brokers: Option<String>,

    /// What the names of the topics start with, where the program does not say what it publishes
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,

    /// The store is published at least once: events that are there again are counted, and no findings
    #[arg(long)]
    at_least_once: bool,

    /// How to print the outcome
    #[arg(long, value_enum, default_value_t)]
    output: Output,

    /// How many findings are shown; the others are counted
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    max_findings: usize,
}

impl Arguments {
    /// What is published where, as the program says it, or by default.
    fn publisher(&self, app: &App) -> Result<Builder, Failure> {
        let brokers = self.brokers.clone().filter(|brokers| !brokers.is_empty());
        match (&self.context, &app.publisher, brokers) {
            (None, Some(publisher), None) => Ok(publisher.clone()),
            (None, Some(publisher), Some(brokers)) => Ok(publisher.clone().brokers(brokers)),
            (Some(context), _, Some(brokers)) => Ok(Publisher::builder(brokers, context)),
            (Some(_), _, None) => Err(Failure(
                "KAFKA_BROKERS is not set; set it, or give --brokers HOST:PORT".to_owned(),
            )),
            (None, None, _) => Err(Failure(
                "what is published is not known: give --context, or have the program say it with \
                 App::publisher"
                    .to_owned(),
            )),
        }
    }
}

async fn verify(app: &App, arguments: Arguments) -> Result<Exit, Failure> {
    let mut publisher = arguments.publisher(app)?;
    if arguments.at_least_once {
        publisher = publisher.delivery(Delivery::AtLeastOnce);
    }
    let store = arguments.database.open(app).await?;
    let bar = Bar::new();
    let drawn = bar.handle();
    let verify = publisher.verify(&store)?.max_findings(arguments.max_findings).on_progress(
        move |Progress { done, of, .. }| {
            drawn.set_message("events");
            drawn.set_length(of);
            drawn.set_position(done);
        },
    );
    let verification = verify.run().await?;
    drop(bar);
    store.close().await;
    match arguments.output {
        Output::Text => print(&text(&verification)?)?,
        Output::Json => print_json(&document(&verification))?,
    }
    Ok(if verification.is_sound() { Exit::Success } else { Exit::Findings })
}

fn text(verification: &Verification) -> Result<String, Failure> {
    let mut text = String::new();
    let Verification { published, log_end, .. } = verification;
    writeln!(text, "Published up to position {published}; the log ends at {log_end}:\n")?;
    let mut topics = table();
    topics.set_header(["topic", "partitions", "records"]);
    let number = |number: String| Cell::new(number).set_alignment(CellAlignment::Right);
    for topic in &verification.topics {
        let counts = (number(topic.partitions.to_string()), number(topic.records.to_string()));
        topics.add_row([Cell::new(&topic.name), counts.0, counts.1]);
    }
    writeln!(text, "{topics}\n")?;
    for (index, finding) in verification.findings.iter().enumerate() {
        writeln!(text, "{}. {finding}\n   {}\n", index + 1, finding.advice())?;
    }
    let total = verification.findings_in_all();
    let shown = verification.findings.len() as u64;
    if total > shown {
        let counts = verification.counts.iter().map(|(kind, count)| format!("{count} {kind}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        writeln!(text, "... and {} more; in all {counts}\n", total - shown)?;
    }
    for (count, what) in [
        (verification.repeated, "records repeat earlier ones"),
        (verification.expired, "events are older than the oldest record of their partition"),
        (verification.archived, "events of archived streams were not published"),
    ] {
        if count > 0 {
            writeln!(text, "- {count} {what}")?;
        }
    }
    for place in &verification.held_back {
        writeln!(text, "- a transaction is open: what is in {place} and behind is not visible")?;
    }
    match total {
        0 => writeln!(text, "All is well.")?,
        1 => writeln!(text, "1 finding.")?,
        many => writeln!(text, "{many} findings.")?,
    }
    Ok(text)
}

fn document(verification: &Verification) -> Value {
    let place = |place: &Place| json!({ "topic": place.topic, "partition": place.partition, "offset": place.offset });
    let topics = verification.topics.iter().map(|topic| {
        json!({ "topic": topic.name, "partitions": topic.partitions, "records": topic.records })
    });
    let finding = |finding: &Finding| {
        let event = finding.event();
        json!({
            "kind": finding.kind(),
            "message": finding.to_string(),
            "advice": finding.advice(),
            "stream": event.map(|event| event.stream.to_string()),
            "version": event.map(|event| event.version),
            "position": event.map(|event| event.position),
            "record": finding.place().map(place),
        })
    };
    json!({
        "sound": verification.is_sound(),
        "published": verification.published,
        "log_end": verification.log_end,
        "events": verification.events,
        "topics": topics.collect::<Vec<_>>(),
        "repeated": verification.repeated,
        "expired": verification.expired,
        "archived": verification.archived,
        "held_back": verification.held_back.iter().map(place).collect::<Vec<_>>(),
        "findings": verification.findings.iter().map(finding).collect::<Vec<_>>(),
        "counts": verification.counts,
    })
}
