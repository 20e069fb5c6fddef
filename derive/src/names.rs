//! The rules for names that end up in the database.

/// The longest stored name of an event.
const MAX_NAME_BYTES: usize = 128;
/// The longest category: the store's own limit.
const MAX_CATEGORY_BYTES: usize = 64;
/// The longest table name: PostgreSQL cuts names at 63 bytes, and suffixes are appended.
const MAX_TABLE_BYTES: usize = 40;
/// The longest column name: PostgreSQL cuts names at 63 bytes.
const MAX_COLUMN_BYTES: usize = 63;

/// Columns that the history of a read model adds.
const HISTORY_COLUMNS: [&str; 2] = ["valid_from", "valid_to"];
/// Columns that every table of PostgreSQL has already.
const SYSTEM_COLUMNS: [&str; 6] = ["cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"];

/// `LoanApproved` is `loan_approved`, `KYCPassed` is `kyc_passed`, `Step2Done` is `step2_done`.
pub(crate) fn snake_case(ident: &str) -> String {
    let chars: Vec<char> = ident.chars().collect();
    let mut snake = String::with_capacity(ident.len() + 4);
    for (index, &char) in chars.iter().enumerate() {
        if char.is_uppercase() && index > 0 {
            let before = chars[index - 1];
            let next_is_lower = chars.get(index + 1).is_some_and(|next| next.is_lowercase());
            let word_starts =
                before.is_lowercase() || before.is_numeric() || (before != '_' && next_is_lower);
            if word_starts {
                snake.push('_');
            }
        }
        snake.extend(char.to_lowercase());
    }
    snake
}

/// What is wrong with the stored name of an event or a command, if anything.
pub(crate) fn invalid_name(name: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if name.is_empty() || !name.bytes().all(allowed) {
        return Some(format!("{name:?} is no stored name: use one or more of A-Z a-z 0-9 _ . -"));
    }
    too_long(name, "a stored name", MAX_NAME_BYTES)
}

/// What is wrong with a category, if anything: the same rules as at run time.
pub(crate) fn invalid_category(category: &str) -> Option<String> {
    let mut bytes = category.bytes();
    let starts = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
    if !starts || !bytes.all(is_lower_word) {
        return Some(format!(
            "{category:?} is no category: use lower-case letters, digits and _, after a first letter"
        ));
    }
    too_long(category, "a category", MAX_CATEGORY_BYTES)
}

/// What is wrong with a table, if anything.
pub(crate) fn invalid_table(table: &str) -> Option<String> {
    invalid_identifier(table, "a table", MAX_TABLE_BYTES)
}

/// What is wrong with a column, if anything.
pub(crate) fn invalid_column(column: &str) -> Option<String> {
    if HISTORY_COLUMNS.contains(&column) {
        return Some(format!("the column `{column}` is reserved for the history of a read model"));
    }
    if SYSTEM_COLUMNS.contains(&column) {
        return Some(format!("the column `{column}` is one that PostgreSQL gives every table"));
    }
    invalid_identifier(column, "a column", MAX_COLUMN_BYTES)
}

fn invalid_identifier(name: &str, what: &str, max: usize) -> Option<String> {
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if !starts || !bytes.all(is_lower_word) {
        return Some(format!(
            "{name:?} is no name for {what}: use lower-case letters, digits and _, not starting with a digit"
        ));
    }
    too_long(name, what, max)
}

fn is_lower_word(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

fn too_long(name: &str, what: &str, max: usize) -> Option<String> {
    let length = name.len();
    (length > max).then(|| format!("{what} has at most {max} bytes; this one has {length}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snake_case_splits_words_and_keeps_acronyms() {
        for (ident, snake) in [
            ("Submitted", "submitted"),
            ("LoanApproved", "loan_approved"),
            ("KYCPassed", "kyc_passed"),
            ("PassedKYC", "passed_kyc"),
            ("Step2Done", "step2_done"),
            ("A", "a"),
            ("ABTest", "ab_test"),
            ("Loan_Approved", "loan_approved"),
            ("already_snake", "already_snake"),
            ("Ünpaid", "ünpaid"),
        ] {
            assert_eq!(snake_case(ident), snake);
        }
    }

    #[test]
    fn names_end_at_their_limits() {
        let name = |bytes: usize| "a".repeat(bytes);
        assert_eq!(invalid_name(&name(128)), None);
        assert!(invalid_name(&name(129)).is_some());
        assert_eq!(invalid_category(&name(64)), None);
        assert!(invalid_category(&name(65)).is_some());
        assert_eq!(invalid_table(&name(40)), None);
        assert!(invalid_table(&name(41)).is_some());
        assert_eq!(invalid_column(&name(63)), None);
        assert!(invalid_column(&name(64)).is_some());
    }

    #[test]
    fn names_keep_to_their_alphabets() {
        assert_eq!(invalid_name("Loan-approved.v2_x"), None);
        for name in ["", "loan approved", "loan/approved", "ünpaid", "a\0"] {
            assert!(invalid_name(name).is_some(), "{name}");
        }
        assert_eq!(invalid_category("loan_2"), None);
        for category in ["", "Loan", "2loan", "_loan", "loan-x", "dé"] {
            assert!(invalid_category(category).is_some(), "{category}");
        }
        assert_eq!(invalid_table("_loan_2"), None);
        for table in ["", "Loan", "2loan", "a.b", "a\"b"] {
            assert!(invalid_table(table).is_some(), "{table}");
        }
        for column in ["", "Amount", "valid_from", "valid_to", "ctid", "xmin"] {
            assert!(invalid_column(column).is_some(), "{column}");
        }
    }
}
