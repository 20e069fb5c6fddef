//! What the example publishes, for those who read its topic. `contracts/` holds it as files.

use annals::contract::{Contract, PublishedCategory, ServiceLevel};

use crate::model::LoanApplication;

pub(crate) fn contract() -> Contract {
    let applications = PublishedCategory::of::<LoanApplication>()
        .owner("lending")
        .description("What happens to applications for loans, as the bank's log has it.")
        .service_level(
            ServiceLevel::new("latency", 1)
                .unit("s")
                .description("From the log to the topic, while both are up."),
        );
    Contract::new("lending")
        .version("1.0.0")
        .description("Loans of a bank, from the application to its end.")
        .category(applications)
}
