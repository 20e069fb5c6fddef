//! Encrypted connections (feature `tls`).

#[cfg(feature = "tls")]
pub(super) use self::with_rustls::{Connector, connector};
#[cfg(not(feature = "tls"))]
pub(super) use self::without::{Connector, connector};

#[cfg(not(feature = "tls"))]
mod without {
    use tokio_postgres::NoTls;

    use super::super::url::{Mode, Tls, invalid};
    use crate::error::Error;

    pub(in super::super) type Connector = NoTls;

    pub(in super::super) fn connector(tls: &Tls) -> Result<Connector, Error> {
        let asked = matches!(tls.mode, Mode::VerifyFull | Mode::VerifyCa)
            || tls.root_certificates.is_some()
            || tls.certificate.is_some();
        if asked {
            return Err(invalid(
                "it asks for TLS, which this program was built without: enable the cargo feature \
                 `tls` of annals",
            ));
        }
        Ok(NoTls)
    }
}

#[cfg(feature = "tls")]
mod with_rustls {
    use std::{path::Path, sync::Arc};

    use rustls::{
        CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
        client::{
            WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    };
    use tokio_postgres_rustls::MakeRustlsConnect;

    use super::super::url::{Mode, Tls, invalid};
    use crate::error::Error;

    pub(in super::super) type Connector = MakeRustlsConnect;

    pub(in super::super) fn connector(tls: &Tls) -> Result<Connector, Error> {
        let provider = Arc::new(ring::default_provider());
        let cannot = |what: &str, error: &dyn std::fmt::Display| {
            invalid(format!("TLS: cannot use {what}: {error}"))
        };
        let mut roots = RootCertStore::empty();
        match (&tls.root_certificates, tls.mode) {
            (Some(file), _) => {
                for certificate in certificates(file)? {
                    roots.add(certificate).map_err(|error| cannot(&named(file), &error))?;
                }
            }
            (None, Mode::Disable) => {}
            // Some of the platform's may be of a kind that is not supported; that is no loss.
            (None, _) => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| cannot("its protocol versions", &error))?;
        let config = if roots.is_empty() {
            // Nobody is trusted, and each connection that would have to trust says so.
            config.with_root_certificates(roots)
        } else if tls.mode == Mode::VerifyCa {
            let verifier = AnyName::new(roots, provider);
            let verifier = verifier.map_err(|error| cannot("the root certificates", &error))?;
            config.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        } else {
            config.with_root_certificates(roots)
        };
        let config = match (&tls.certificate, &tls.key) {
            (Some(certificate), Some(key)) => {
                let secret = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| cannot(&named(key), &error))?;
                config
                    .with_client_auth_cert(certificates(certificate)?, secret)
                    .map_err(|error| cannot(&named(certificate), &error))?
            }
            _ => config.with_no_client_auth(),
        };
        Ok(MakeRustlsConnect::new(config))
    }

    fn named(file: &Path) -> String {
        format!("the file {}", file.display())
    }

    fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
        let read =
            CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match read {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            Ok(_) => Err(invalid(format!("TLS: there is no certificate in {}", named(file)))),
            Err(error) => Err(invalid(format!("TLS: cannot read {}: {error}", named(file)))),
        }
    }

    /// Verifies the server's certificate as usual, but for the name in it.
    #[derive(Debug)]
    struct AnyName(Arc<WebPkiServerVerifier>);

    impl AnyName {
        fn new(
            roots: RootCertStore,
            provider: Arc<CryptoProvider>,
        ) -> Result<Self, rustls::client::VerifierBuilderError> {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().map(Self)
        }
    }

    impl ServerCertVerifier for AnyName {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            intermediates: &[CertificateDer<'_>],
            server_name: &ServerName<'_>,
            ocsp_response: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            // The name is the last thing that it looks at.
            match self.0.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ) {
                Err(rustls::Error::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. },
                )) => Ok(ServerCertVerified::assertion()),
                result => result,
            }
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.0.verify_tls12_signature(message, certificate, signed)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.0.verify_tls13_signature(message, certificate, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    }
}
