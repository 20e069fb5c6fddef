//! Headers, compression, and files that break off.

use super::*;

#[test]
fn the_header_is_checked() {
    let problem = |text: &[u8]| match open(text) {
        Err(error @ InputError::Header { .. }) => {
            let message = error.to_string();
            let message = message.strip_prefix("log.csv is not a log of loan applications: ");
            let end = "; its first line must name the columns \
                       time,application,amount_requested,activity,transition,resource, in any order";
            message.unwrap().strip_suffix(end).unwrap().to_owned()
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the header is accepted"),
    };
    assert_eq!(problem(b""), "it is empty");
    assert_eq!(problem(b"\n \n"), "it is empty");
    assert_eq!(
        problem(b"time,application,activity,transition,resource\n"),
        "the header lacks amount_requested"
    );
    assert_eq!(
        problem(b"time,application,amount,activity,transition,resource\n"),
        "the header lacks amount_requested, and the header has unknown columns: \"amount\""
    );
    assert_eq!(
        problem(format!("note,{HEADER}").as_bytes()),
        "the header has unknown columns: \"note\""
    );
    assert_eq!(problem(format!("time,{HEADER}").as_bytes()), "the header has a column twice");
    assert_eq!(problem(b"\"time\n"), "a quote in the header is never closed");
    let other = problem(b"\x7fELF\x02\x01\xff\x00,a,b,c,d\n");
    assert!(other.contains("\"\\x7fELF\\x02\\x01\\xff\\x00\", \"a\", \"b\", ..."), "{other}");
    let long = problem(&b"x".repeat(1_000_000));
    assert!(long.len() < 300, "{long}");
    // Quotes and spaces around the names are fine.
    let header = HEADER.replace("time,application", "\"time\", application ");
    assert_eq!(applications(&read(format!("{header}{}", good(0, "1")))), ["1"]);
}

#[test]
fn a_log_without_rows_is_a_log() {
    assert_eq!(read(HEADER), []);
    assert_eq!(read(HEADER.trim_end()), []);
}

#[test]
fn compressed_input_is_known_by_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let plain = format!("{HEADER}{}{}", good(0, "1"), good(1, "2"));
    let (start, end) = plain.as_bytes().split_at(90);
    let several = [gzip(start), gzip(end)].concat();
    for (name, content) in [
        ("plain.gz", plain.clone().into_bytes()),
        ("packed.csv", gzip(plain.as_bytes())),
        ("log", several),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, &content).unwrap();
        let mut rows = Rows::open(&path).unwrap();
        let bytes = rows.bytes();
        assert_eq!(bytes.size(), content.len() as u64);
        let outcomes: Vec<_> = rows.by_ref().map(|row| row.unwrap()).collect();
        assert_eq!(outcomes, read(&plain), "{name}");
        assert_eq!(bytes.read(), bytes.size(), "{name}");
    }
}

#[test]
fn a_compressed_file_that_ends_too_early_is_an_error_after_its_rows() {
    let text: String = (0..20_000).map(|number| good(0, &number.to_string())).collect();
    let packed = gzip(format!("{HEADER}{text}").as_bytes());
    let whole = packed.len();
    for length in [whole / 2, whole - 9, whole - 8, whole - 1] {
        let mut good = 0;
        let mut rows = open(&packed[..length]).unwrap();
        let error = loop {
            match rows.next() {
                Some(Ok(row)) => {
                    // Half a line is never taken for a row.
                    assert_eq!(row.unwrap().application, good.to_string());
                    good += 1;
                }
                Some(Err(error)) => break error,
                None => panic!("cut to {length} of {whole} bytes, it is read to its end"),
            }
        };
        assert_eq!(error.to_string(), format!("cannot read log.csv beyond line {}", good + 1));
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(
            source.to_string(),
            "the compressed data ends too early; the file is not complete"
        );
        assert!(rows.next().is_none(), "it ends there");
    }
    for length in [2, 5, 10, 12] {
        let error = open(&packed[..length]).err().unwrap();
        assert_eq!(error.to_string(), "cannot read log.csv", "{length}");
    }
}

#[test]
fn damaged_compression_is_an_error() {
    let text: String = (0..20_000).map(|number| good(0, &number.to_string())).collect();
    let mut packed = gzip(format!("{HEADER}{text}").as_bytes());
    let middle = packed.len() / 2;
    packed[middle..middle + 20].fill(0xff);
    // The damage shows in the data or, at the latest, in its checksum.
    let error = open(&packed).unwrap().find_map(Result::err).unwrap();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("the compressed data"), "{source}");
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = Rows::open(&folder.path().join("no\n.csv")).err().unwrap();
    assert!(matches!(error, InputError::Open { .. }));
    assert!(error.to_string().ends_with("no\\n.csv"), "{error}");
    // A folder is none, either.
    let error = Rows::open(folder.path()).err().unwrap();
    assert!(matches!(error, InputError::Read { line: 0, .. }), "{error}");
}

#[test]
fn an_error_in_the_middle_says_how_far_it_came() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let start = format!("{HEADER}{}2011-10-", good(0, "1"));
    let mut rows = Rows::new("log.csv".into(), Cursor::new(start).chain(Broken), 0).unwrap();
    assert_eq!(rows.next().unwrap().unwrap().unwrap().application, "1");
    let error = rows.next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "cannot read log.csv beyond line 2");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the disk is gone");
    assert!(rows.next().is_none());
}
