//! TLS by rustls with the `ring` provider, named explicitly: the process belongs to the host, and
//! a default provider is a global.

use std::path::Path;
use std::sync::{Arc, Mutex, Weak};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
    WantsVerifier,
};

use crate::clock::lock;
use crate::config::Tls;
use crate::error::{Error, Result};
use crate::secret::others_can_read;

/// The client's side of TLS, as configured.
///
/// # Errors
/// When a file holds no usable certificate or key.
pub fn client_config(tls: &Tls) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = builder(&provider, tls.only_1_3)?;
    let builder = if tls.verify {
        builder.with_root_certificates(roots("tls_ca_file", tls.ca_file.as_deref())?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(NoVerifier(provider)))
    };
    let Some((crt, key)) = &tls.client else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates("tls_crt_file", crt)?;
    if others_can_read(key) {
        let cure = format!(
            "others can read it; legal: mode 600 or 640; write: chmod 600 {}",
            key.display()
        );
        return Err(unusable("tls_key_file", key, &cure));
    }
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| unusable("tls_key_file", key, "no private key").caused_by(error))?;
    builder.with_client_auth_cert(chain, private).map_err(|error| {
        unusable("tls_crt_file", crt, "not usable with tls_key_file").caused_by(error)
    })
}

/// The client's side of TLS towards a server that is no vendor: always verified, with what `property`
/// names trusted beside the system's.
///
/// # Errors
/// When the file holds no usable certificate.
pub fn verified(property: &str, ca_file: Option<&Path>) -> Result<ClientConfig> {
    let builder = builder(&Arc::new(ring::default_provider()), false)?;
    Ok(builder.with_root_certificates(roots(property, ca_file)?).with_no_client_auth())
}

/// Why a server's certificate was refused, if that is what an error is about.
#[must_use]
pub fn distrust(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    // What an I/O error holds is not among its causes.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let tls = match inner {
        Some(inner) => inner.downcast_ref::<rustls::Error>(),
        None => error.downcast_ref(),
    };
    match tls? {
        rustls::Error::InvalidCertificate(why) => Some(why.to_string()),
        _ => None,
    }
}

fn builder(
    provider: &Arc<CryptoProvider>,
    only_1_3: bool,
) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
    let versions: &[&rustls::SupportedProtocolVersion] = if only_1_3 {
        &[&rustls::version::TLS13]
    } else {
        &[&rustls::version::TLS13, &rustls::version::TLS12]
    };
    ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(|error| Error::config("tls_min_version").caused_by(error))
}

/// The system's certificates and those of `ca_file`.
fn roots(property: &str, ca_file: Option<&Path>) -> Result<Arc<RootCertStore>> {
    let system = system_roots();
    let Some(path) = ca_file else { return Ok(system) };
    let mut roots = Arc::unwrap_or_clone(system);
    for certificate in certificates(property, path)? {
        roots.add(certificate).map_err(|error| {
            unusable(property, path, "a certificate that cannot be used").caused_by(error)
        })?;
    }
    Ok(Arc::new(roots))
}

/// The system's certificates. There are more than a hundred, so connectors share them; they are read
/// anew once nobody has them, so a reload of the host finds those of its day.
fn system_roots() -> Arc<RootCertStore> {
    static SHARED: Mutex<Weak<RootCertStore>> = Mutex::new(Weak::new());
    let mut shared = lock(&SHARED);
    if let Some(roots) = shared.upgrade() {
        return roots;
    }
    let mut roots = RootCertStore::empty();
    // A system without any, as in a bare container, is an error only if nothing else is trusted.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let roots = Arc::new(roots);
    *shared = Arc::downgrade(&roots);
    roots
}

fn certificates(property: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(property, path, "not a PEM file").caused_by(error))?;
    if found.is_empty() { Err(unusable(property, path, "no certificate in it")) } else { Ok(found) }
}

fn unusable(property: &str, path: &Path, why: &str) -> Error {
    Error::config(format!("{property} = \"{}\": {why}", path.display()))
}

/// Accepts any certificate, for `tls_verify: off`; the handshake's signatures are still checked.
#[derive(Debug)]
struct NoVerifier(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
