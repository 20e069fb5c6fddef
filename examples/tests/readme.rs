//! The README shows the bank example as it is, and what running it prints.

mod support;

use support::{Database, example};

#[test]
fn the_readme_shows_the_bank_example_in_full() {
    let readme = include_str!("../../README.md");
    let bank = include_str!("../examples/bank.rs");
    let (program, _tests) = bank.split_once("\n#[cfg(test)]").unwrap();
    assert!(readme.contains(program.trim_end()), "examples/bank.rs and README.md differ");
}

#[tokio::test]
async fn the_readme_shows_what_the_bank_example_prints() {
    let database = Database::create().await;
    let output = example("bank").env("DATABASE_URL", database.url()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed.lines().count(), 5, "{printed}");
    assert!(include_str!("../../README.md").contains(&printed), "{printed}");
}
