//! What librdkafka says about its connections.

use std::sync::{Mutex, PoisonError};

use rdkafka::{
    ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError,
    types::RDKafkaErrorCode as Code,
};

/// Keeps what was last said about connections that fail, and passes log lines on.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<Option<String>>);

impl Connections {
    /// What was last said.
    pub(super) fn trouble(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// They are there again.
    pub(super) fn forget_trouble(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl ClientContext for Connections {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, "{message}");
            }
            // Lost connections, each attempt of them: the reader tells it in one line.
            RDKafkaLogLevel::Error if matches!(facility, "FAIL" | "ERROR") => {
                tracing::debug!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", facility, "{message}");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        // "1/1 brokers are down" says less than what was said about one of them.
        let all_down = error.rdkafka_error_code() == Some(Code::AllBrokersDown);
        let mut trouble = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all_down || trouble.is_none() {
            *trouble = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Connections {}
