//! TLS against servers that must not be trusted, and those that want to know who we are.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use in_trendmicro::error::{ErrorKind, Result};
use in_trendmicro::http::Response;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::http::{OK, client, exchange, get, serve};
use crate::support::{Host, Place, config, email, simulate};

/// A private authority, and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for `name`, otherwise as `change` has it, and its key.
    fn sign(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Certified, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (Certified { pem: certificate.pem(), der: certificate.der().clone() }, key)
    }

    /// Its own certificate, as a file to trust.
    fn write(&self, dir: &Path) -> String {
        let path = dir.join("ca.pem");
        std::fs::write(&path, self.0.pem()).unwrap();
        path.display().to_string()
    }
}

struct Certified {
    pem: String,
    der: CertificateDer<'static>,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()))
}

/// A server with that certificate; it tells the head of each request that it was sent.
fn start(
    certificate: &Certified,
    key: &KeyPair,
    clients: Option<&Authority>,
) -> (u16, Receiver<String>) {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = match clients {
        None => builder.unwrap().with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            builder.unwrap().with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let server = builder.with_single_cert(vec![certificate.der.clone()], private(key)).unwrap();
    let server = Arc::new(server);
    serve(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&server)).unwrap();
        exchange(StreamOwned::new(connection, stream), OK.as_bytes())
    })
}

/// Asks a server on this machine, with these properties beside its address.
fn ask(port: u16, properties: &[(&str, &str)]) -> Result<Response> {
    let url = format!("https://localhost:{port}");
    let mut all = vec![("base_url", url.as_str())];
    all.extend(properties);
    get(&mut client(&all)?)
}

/// Nothing is sent to a server whose certificate does not stand the test, whatever is wrong with it.
#[test]
fn certificates_that_do_not_stand_the_test_get_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let ca = authority.write(dir.path());
    let today = |_: &mut CertificateParams| {};
    let cases = [
        ("as it should be", authority.sign("localhost", today), ""),
        (
            "expired",
            authority
                .sign("localhost", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1)),
            "expired",
        ),
        (
            "of the future",
            authority
                .sign("localhost", |params| params.not_before = rcgen::date_time_ymd(2100, 1, 1)),
            "not valid yet",
        ),
        ("for another host", authority.sign("elsewhere.example", today), "not valid for name"),
        // Who calls itself like the trusted one is told apart by its signature.
        ("of a namesake", Authority::new().sign("localhost", today), "BadSignature"),
        (
            "an authority's own",
            authority.sign("localhost", |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }),
            "CaUsedAsEndEntity",
        ),
    ];
    for (name, (certificate, key), why) in cases {
        let (port, heads) = start(&certificate, &key, None);
        let answer = ask(port, &[("tls_ca_file", &ca)]);
        if why.is_empty() {
            assert_eq!(answer.unwrap().status, 200, "{name}");
            assert!(heads.recv().is_ok(), "{name}");
            continue;
        }
        let error = answer.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Retry { .. }), "{name}: {error}");
        let error = error.to_string();
        assert!(error.contains("cannot connect") && error.contains(why), "{name}: {error}");
        assert!(heads.try_recv().is_err(), "{name}: it got a request");
    }
}

#[test]
fn a_certificate_that_signs_itself_is_refused() {
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let own = own.self_signed(&key).unwrap();
    let (port, heads) = start(&Certified { pem: own.pem(), der: own.der().clone() }, &key, None);
    let error = ask(port, &[]).unwrap_err().to_string();
    assert!(error.contains("cannot connect") && error.contains("UnknownIssuer"), "{error}");
    assert!(heads.try_recv().is_err());
    // Only who says so in the configuration goes on.
    assert_eq!(ask(port, &[("tls_verify", "off")]).unwrap().status, 200);
    assert!(heads.recv().unwrap().to_lowercase().contains("authorization: basic"));
}

/// A server hello of a version, as a server of that time would send it.
fn hello(version: u8) -> Vec<u8> {
    let mut body = vec![3, version];
    body.extend([7; 32]);
    // No session, TLS_RSA_WITH_AES_128_CBC_SHA, no compression.
    body.extend([0, 0x00, 0x2f, 0]);
    let length = body.len() as u8;
    let mut record = vec![0x16, 3, version, 0, length + 4, 2, 0, 0, length];
    record.extend(body);
    record
}

/// SSL 3.0, TLS 1.0 and TLS 1.1 are answered with an alert and nothing else.
#[test]
fn old_protocols_are_refused() {
    for version in 0..=2 {
        let (port, received) = serve(move |mut stream: TcpStream| {
            let mut seen = [0; 4096];
            let length = stream.read(&mut seen).ok()?;
            assert!(length > 100 && seen[0] == 0x16, "a client's hello");
            stream.write_all(&hello(version)).ok()?;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            Some(format!("{rest:?}"))
        });
        let error = ask(port, &[("tls_verify", "off")]).unwrap_err().to_string();
        assert!(error.contains("cannot connect"), "{error}");
        // An alert: fatal, protocol version.
        let rest = received.recv().unwrap();
        assert!(rest.starts_with("[21, 3, ") && rest.ends_with("0, 2, 2, 70]"), "{rest}");
    }
}

/// A server that speaks no TLS at all gets nothing that it could read.
#[test]
fn plain_http_behind_https_gets_no_request() {
    let (port, received) = serve(|mut stream: TcpStream| {
        let mut seen = vec![0; 4096];
        let length = stream.read(&mut seen).ok()?;
        stream.write_all(OK.as_bytes()).ok()?;
        seen.truncate(length);
        let _ = stream.read_to_end(&mut seen);
        Some(String::from_utf8_lossy(&seen).to_lowercase())
    });
    let error = ask(port, &[("tls_verify", "off")]).unwrap_err().to_string();
    assert!(error.contains("cannot connect"), "{error}");
    assert!(!received.recv().unwrap().contains("authorization"));
}

#[test]
fn a_server_that_wants_a_certificate_gets_the_configured_one() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let ca = authority.write(dir.path());
    let (certificate, key) = authority.sign("localhost", |_| {});
    let (port, heads) = start(&certificate, &key, Some(&authority));
    let without = ask(port, &[("tls_ca_file", &ca)]).unwrap_err().to_string();
    assert!(
        without.contains("connection failed") || without.contains("cannot connect"),
        "{without}"
    );
    assert!(heads.try_recv().is_err());

    let (own, own_key) = authority.sign("fluent-bit", |_| {});
    let file = |name: &str, text: &str, mode| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let crt = file("client.crt", &own.pem, 0o644);
    let private = file("client.key", &own_key.serialize_pem(), 0o600);
    let both = [("tls_ca_file", ca.as_str()), ("tls_crt_file", &crt), ("tls_key_file", &private)];
    assert_eq!(ask(port, &both).unwrap().status, 200);
    assert!(heads.recv().is_ok());

    let open = file("open.key", &own_key.serialize_pem(), 0o644);
    let error = ask(port, &[("tls_crt_file", &crt), ("tls_key_file", &open)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let error = error.to_string();
    assert!(
        error.starts_with("tls_key_file = ") && error.contains("others can read it"),
        "{error}"
    );
    assert!(!error.contains("PRIVATE"), "{error}");
}

#[test]
fn verification_that_is_off_is_said_at_every_start() {
    let (place, sim) = (Place::new(), simulate(email()));
    let config = config(&sim, &place).with(&[("tls_verify", "off")]);
    for _ in 0..2 {
        let host = Host::start(&place, &config, &[]);
        let line = host.wait_log("tls_verify is off");
        assert!(line.contains("[ warn]") && line.contains("can read the API key"), "{line}");
        host.reload();
        host.wait_log_times("tls_verify is off", 2);
        host.stop();
    }
}
