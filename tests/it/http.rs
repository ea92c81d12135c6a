//! The HTTP client against real sockets: TLS, proxies, redirects, bounds, and stops.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use in_trendmicro::clock::Stop;
use in_trendmicro::config::Config;
use in_trendmicro::error::{ErrorKind, Result};
use in_trendmicro::http::auth::Scheme;
use in_trendmicro::http::{Client, Request, Response, Transport};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub const OK: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// Serves connections one after another and reports each request's head.
pub fn serve(
    mut answer: impl FnMut(TcpStream) -> Option<String> + Send + 'static,
) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Some(head) = answer(stream)
                && sender.send(head).is_err()
            {
                return;
            }
        }
    });
    (port, receiver)
}

/// Reads one request's head and answers it.
pub fn exchange(mut stream: impl Read + Write, answer: &[u8]) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    stream.write_all(answer).ok()?;
    stream.flush().ok()?;
    Some(String::from_utf8(head).unwrap())
}

pub fn client(properties: &[(&str, &str)]) -> Result<Client> {
    let mut all = HashMap::from([
        ("connector", "email_security"),
        ("username", "admin"),
        ("api_key", "open sesame"),
        ("timeout", "5s"),
    ]);
    all.extend(properties.iter().copied());
    let config = Config::read(&|key| all.get(key).map(|&value| value.to_owned()))?;
    Client::new(&config.connectors[0], Scheme::Basic { username: "admin".to_owned() })
}

pub fn get(client: &mut Client) -> Result<Response> {
    let mut body = Vec::new();
    let response = client.send(
        &Request::get("/api/v1/log/x?a=%2B".to_owned()),
        &Stop::default(),
        &mut |bytes| {
            body.extend_from_slice(bytes);
            Ok(())
        },
    )?;
    assert_eq!(body.is_empty(), !response.is_success(), "a refusal's body goes elsewhere");
    Ok(response)
}

fn plain(answer: &'static [u8]) -> (Client, Receiver<String>) {
    let (port, heads) = serve(move |stream| exchange(stream, answer));
    (client(&[("base_url", &format!("http://127.0.0.1:{port}"))]).unwrap(), heads)
}

/// A private authority and a server certificate of it, for `localhost`.
fn authority(dir: &Path) -> ServerConfig {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(dir.join("ca.pem"), issuer.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap()
}

/// A full queue makes the sink wait; that is not the vendor's fault, and no reason to ask for less.
#[test]
fn time_in_which_a_body_finds_no_room_does_not_count() {
    let (port, _heads) = serve(|mut stream| {
        let head = exchange(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{ ");
        thread::sleep(Duration::from_millis(500));
        stream.write_all(b" }").ok()?;
        head
    });
    let address = format!("http://127.0.0.1:{port}");
    let mut client = client(&[("base_url", &address), ("timeout", "1s")]).unwrap();
    let mut body = Vec::new();
    let answer = client.send(&Request::get("/x".to_owned()), &Stop::default(), &mut |bytes| {
        body.extend_from_slice(bytes);
        thread::sleep(Duration::from_millis(1_500));
        Ok(())
    });
    assert!(answer.unwrap().is_success());
    assert_eq!(body, b"{  }");
}

#[test]
fn a_request_carries_credential_agent_and_the_exact_target() {
    let (mut client, heads) = plain(OK.as_bytes());
    let response = get(&mut client).unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(response.content_type.as_deref(), Some("application/json"));
    let head = heads.recv().unwrap();
    assert!(head.starts_with("GET /api/v1/log/x?a=%2B HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    for expected in [
        "authorization: basic ywrtaw46b3blbibzzxnhbwu=",
        "user-agent: in_trendmicro/",
        "accept-encoding: gzip",
    ] {
        assert!(head.contains(expected), "{expected} in {head}");
    }
}

#[test]
fn tls_trusts_the_configured_authority_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let config = Arc::new(authority(dir.path()));
    let (port, _heads) = serve(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        exchange(StreamOwned::new(connection, stream), OK.as_bytes())
    });
    let (url, ca) = (format!("https://localhost:{port}"), dir.path().join("ca.pem"));
    let (url, ca) = (url.as_str(), ca.to_str().unwrap());

    let trusted = get(&mut client(&[("base_url", url), ("tls_ca_file", ca)]).unwrap());
    assert_eq!(trusted.unwrap().status, 200);
    let unknown = get(&mut client(&[("base_url", url)]).unwrap()).unwrap_err().to_string();
    assert!(unknown.contains("cannot connect") && unknown.contains("certificate"), "{unknown}");
    let by_address = format!("https://127.0.0.1:{port}");
    let wrong_name = get(&mut client(&[("base_url", &by_address), ("tls_ca_file", ca)]).unwrap());
    assert!(wrong_name.unwrap_err().to_string().contains("certificate"));
    let newer = [("base_url", url), ("tls_ca_file", ca), ("tls_min_version", "1.3")];
    assert!(get(&mut client(&newer).unwrap()).is_err(), "the server speaks 1.2 only");
    let off = get(&mut client(&[("base_url", url), ("tls_verify", "off")]).unwrap());
    assert_eq!(off.unwrap().status, 200);
}

#[test]
fn files_without_certificates_are_configuration_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty.pem");
    std::fs::write(&path, "nothing").unwrap();
    let path = path.to_str().unwrap();
    for (properties, expected) in [
        (vec![("tls_ca_file", path)], "tls_ca_file"),
        (vec![("tls_crt_file", path), ("tls_key_file", path)], "tls_crt_file"),
    ] {
        let error = client(&properties).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().starts_with(&format!("{expected} = ")), "{error}");
    }
}

#[test]
fn a_proxy_is_used_and_gets_its_own_credential_only() {
    let (port, heads) = serve(|stream| exchange(stream, OK.as_bytes()));
    let proxy = format!("http://user:word@127.0.0.1:{port}");
    let mut client = client(&[("base_url", "http://127.0.0.1:1"), ("proxy", &proxy)]).unwrap();
    assert_eq!(get(&mut client).unwrap().status, 200);
    let head = heads.recv().unwrap();
    assert!(head.starts_with("GET http://127.0.0.1:1/api/v1/log/x?a=%2B HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains("proxy-authorization: basic dxnlcjp3b3jk"), "{head}");
}

#[test]
fn redirects_are_not_followed() {
    let (port, heads) = serve(|stream| exchange(stream, OK.as_bytes()));
    let answer = format!(
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{port}/\r\nContent-Length: 0\r\n\r\n"
    );
    let (mut client, _heads) = plain(answer.leak().as_bytes());
    assert_eq!(get(&mut client).unwrap().status, 302);
    assert!(heads.try_recv().is_err(), "nobody asked the other host");
}

#[test]
fn a_bomb_ends_at_the_bound() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![b' '; 1 << 20];
    for _ in 0..300 {
        encoder.write_all(&zeros).unwrap();
    }
    let body = encoder.finish().unwrap();
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend(body);
    let (mut client, _heads) = plain(answer.leak());
    let error = get(&mut client).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Narrow);
    assert!(error.to_string().contains("larger than"), "{error}");
}

#[test]
fn a_silent_server_ends_at_the_timeout_and_a_stop_ends_it_at_once() {
    let (port, _heads) = serve(|mut stream| {
        // Reads for ever and never answers.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
        None
    });
    let url = format!("http://127.0.0.1:{port}");
    let mut client = client(&[("base_url", &url), ("timeout", "1s")]).unwrap();
    let error = get(&mut client).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Narrow);
    assert!(error.to_string().contains("within 1 s"), "{error}");

    let (stop, started) = (Stop::default(), Instant::now());
    let raiser = stop.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        raiser.raise();
    });
    let error = client.send(&Request::get("/".to_owned()), &stop, &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
    assert!(started.elapsed() < Duration::from_millis(900), "before the timeout");
}
