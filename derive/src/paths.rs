//! Finds out by which name the user's crate knows the framework.

use proc_macro_crate::{Error as LookupError, FoundCrate, crate_name};
use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Error, Path};

/// The crate that holds the write side.
pub(crate) fn eventstore() -> Result<Path, Error> {
    find("annals-eventstore", crate_name)
}

/// The crate that holds the read side.
pub(crate) fn projections() -> Result<Path, Error> {
    find("annals-projections", crate_name)
}

/// Serde: the user's own dependency, which derives `Serialize` and `Deserialize`.
pub(crate) fn serde() -> Result<Path, Error> {
    match crate_name("serde") {
        Ok(FoundCrate::Name(name)) => absolute(&name),
        _ => absolute("serde"),
    }
}

/// The facade if the user depends on it, else the crate itself; both under the name they have there.
fn find(
    package: &str,
    lookup: impl Fn(&str) -> Result<FoundCrate, LookupError>,
) -> Result<Path, Error> {
    let mut missing = false;
    for candidate in ["annals", package] {
        match lookup(candidate) {
            // Tests and examples of a package name it like any dependency; its library does so
            // by `extern crate self`.
            Ok(FoundCrate::Itself) => return absolute(&candidate.replace('-', "_")),
            Ok(FoundCrate::Name(name)) => return absolute(&name),
            Err(LookupError::CrateNotFound { .. }) => missing = true,
            // Built without Cargo: there is no manifest to ask.
            Err(_) => {}
        }
    }
    if missing {
        return Err(Error::new(
            Span::call_site(),
            format!(
                "add `annals` to the [dependencies] of this crate's Cargo.toml (or `{package}` alone)"
            ),
        ));
    }
    absolute("annals")
}

/// The path, so that errors about what it is applied to are shown at `span`.
pub(crate) fn at(path: &Path, span: Span) -> TokenStream {
    let respan = |mut token: TokenTree| {
        token.set_span(span);
        token
    };
    path.to_token_stream().into_iter().map(respan).collect()
}

fn absolute(name: &str) -> Result<Path, Error> {
    syn::parse_str(&format!("::{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(manifest: &[(&str, FoundCrate)]) -> Result<String, String> {
        let lookup = |package: &str| {
            let entry = manifest.iter().find(|(name, _)| *name == package);
            entry.map(|(_, found)| found.clone()).ok_or_else(|| LookupError::CrateNotFound {
                crate_name: package.to_owned(),
                path: "Cargo.toml".into(),
            })
        };
        find("annals-eventstore", lookup)
            .map(|path| path.to_token_stream().to_string().replace(' ', ""))
            .map_err(|error| error.to_string())
    }

    fn named(name: &str) -> FoundCrate {
        FoundCrate::Name(name.to_owned())
    }

    #[test]
    fn the_facade_comes_first() {
        let both = [("annals-eventstore", named("annals_eventstore")), ("annals", named("annals"))];
        assert_eq!(found(&both).unwrap(), "::annals");
    }

    #[test]
    fn a_part_serves_without_the_facade() {
        let part = [("annals-eventstore", named("annals_eventstore"))];
        assert_eq!(found(&part).unwrap(), "::annals_eventstore");
    }

    #[test]
    fn renamed_dependencies_are_honoured() {
        assert_eq!(found(&[("annals", named("tales"))]).unwrap(), "::tales");
        let part = [("annals-eventstore", named("store"))];
        assert_eq!(found(&part).unwrap(), "::store");
    }

    #[test]
    fn the_crates_own_tests_name_it_absolutely() {
        let itself = [("annals-eventstore", FoundCrate::Itself)];
        assert_eq!(found(&itself).unwrap(), "::annals_eventstore");
        assert_eq!(found(&[("annals", FoundCrate::Itself)]).unwrap(), "::annals");
    }

    #[test]
    fn a_missing_dependency_is_named() {
        let error = found(&[]).unwrap_err();
        assert!(error.contains("add `annals`"), "{error}");
        assert!(error.contains("`annals-eventstore` alone"), "{error}");
    }

    #[test]
    fn without_cargo_the_facade_is_assumed() {
        let path = find("annals-eventstore", |_| Err(LookupError::CargoManifestDirNotSet));
        let path = path.unwrap().to_token_stream().to_string();
        assert_eq!(path.replace(' ', ""), "::annals");
    }
}
