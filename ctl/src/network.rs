//! The road to a vendor's host, one stage at a time: name, connection, TLS; and to a database.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::client::proxy::matcher::Matcher;
use in_trendmicro::checkpoint::Postgres;
use in_trendmicro::config::{ConnectorConfig, DbServer, Proxy};
use in_trendmicro::http::tls;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConnection, ProtocolVersion};
use url::Url;

use crate::report::{Check, Status};
use crate::stanza::Stanza;

/// A host that does not answer within this is not reachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// Where a database listens if its address does not say.
const POSTGRES_PORT: u16 = 5432;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Checks the road to the API's host, or to the proxy before it; stops at the first failure.
#[must_use]
pub fn check(config: &ConnectorConfig, stanza: Stanza<'_>) -> Vec<Check> {
    let Ok(api) = Url::parse(config.base_url.as_str()) else { return Vec::new() };
    let proxy = proxy(config, &api);
    let is_direct = proxy.is_none();
    let properties: &[&str] = if is_direct { &["base_url", "region"] } else { &["proxy"] };
    let lines = || stanza.lines(&config.name, properties);
    let url = proxy.unwrap_or(api);
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let via = if is_direct { "" } else { ", the proxy" };
    let mut checks = Vec::new();
    let addresses = match (host.as_str(), port).to_socket_addrs() {
        Ok(addresses) => addresses.take(ADDRESSES_MAX).collect::<Vec<_>>(),
        Err(error) => {
            let check = Check::failed("dns", format!("{host}{via}: no address ({error})"))
                .advise("check the name for typing errors, and this machine's name servers");
            return vec![check.at(lines())];
        }
    };
    let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let is_address = shown.first() == Some(&host);
    let what = if is_address { "an address".to_owned() } else { shown.join(", ") };
    checks.push(Check::ok("dns", format!("{host}{via}: {what}")));
    let began = Instant::now();
    let stream = match connect(&addresses) {
        Ok(stream) => stream,
        Err(error) => {
            let check = Check::failed("tcp", format!("{host}:{port}{via}: {error}"));
            checks.push(check.advise(tcp_advice(error.kind())).at(lines()));
            return checks;
        }
    };
    let took = began.elapsed().as_millis();
    checks.push(Check::ok("tcp", format!("port {port}{via} answers in {took} ms")));
    if is_direct && url.scheme() == "https" {
        checks.push(handshake(config, stanza, &host, stream));
    }
    checks
}

/// Checks the database that hosts share: the road to it, one stage at a time, then all that the plugin
/// does when it connects. Nothing is changed there.
#[must_use]
pub fn database(server: &DbServer, stanza: Stanza<'_>, is_offline: bool) -> Vec<Check> {
    const STAGE: &str = "database";
    let shown = &server.shown;
    if is_offline {
        return vec![Check::new(STAGE, Status::Skipped, format!("{shown}: nothing is sent"))];
    }
    let lines = || stanza.lines("", &["db"]);
    let Ok(url) = Url::parse(server.address.expose()) else { return Vec::new() };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    // Without a host it is a socket of this machine.
    if !host.is_empty() {
        let port = url.port().unwrap_or(POSTGRES_PORT);
        let addresses = match (host.as_str(), port).to_socket_addrs() {
            Ok(addresses) => addresses.take(ADDRESSES_MAX).collect::<Vec<_>>(),
            Err(error) => {
                let check = Check::failed(STAGE, format!("{host}: no address ({error})"))
                    .advise("check the name for typing errors, and this machine's name servers");
                return vec![check.at(lines())];
            }
        };
        if let Err(error) = connect(&addresses) {
            let check = Check::failed(STAGE, format!("{host}:{port}: {error}"));
            return vec![check.advise(database_advice(error.kind())).at(lines())];
        }
    }
    let error = match Postgres::probe(server) {
        Ok(found) => return vec![Check::ok(STAGE, format!("{shown}: {found}"))],
        Err(error) => error.to_string(),
    };
    // The plugin's own words hold the advice.
    let (detail, advice) = match error.split_once("; legal: ") {
        Some((why, advice)) => (why.to_owned(), format!("legal: {advice}")),
        None => (error, "look at the server's own log".to_owned()),
    };
    vec![Check::failed(STAGE, detail).advise(advice).at(lines())]
}

fn database_advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ConnectionRefused => {
            "nothing listens there: check host and port, listen_addresses in postgresql.conf, and \
             whether a firewall refuses"
        }
        _ => "no answer: check the address, this machine's routes, and whether a firewall drops it",
    }
}

/// The proxy that a request to the API would take.
fn proxy(config: &ConnectorConfig, api: &Url) -> Option<Url> {
    match &config.proxy {
        Proxy::Off => None,
        Proxy::Url(url) => Url::parse(url.expose()).ok(),
        Proxy::Environment if config.base_url.is_loopback() => None,
        Proxy::Environment => {
            let intercept = Matcher::from_env().intercept(&api.as_str().parse().ok()?)?;
            Url::parse(&intercept.uri().to_string()).ok()
        }
    }
}

fn connect(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect_timeout(address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn tcp_advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ConnectionRefused => {
            "nothing listens there: check host and port, and whether a firewall refuses"
        }
        ErrorKind::TimedOut => {
            "no answer: a firewall may drop it; if this machine needs a proxy, write proxy"
        }
        _ => "check the address, this machine's routes, and whether it needs a proxy",
    }
}

/// Shakes hands as the plugin does.
fn handshake(
    config: &ConnectorConfig,
    stanza: Stanza<'_>,
    host: &str,
    mut stream: TcpStream,
) -> Check {
    let mut shake = || -> Result<ClientConnection, Box<dyn std::error::Error>> {
        let name = ServerName::try_from(host.to_owned())?;
        let mut connection =
            ClientConnection::new(Arc::new(tls::client_config(&config.tls)?), name)?;
        stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(connection)
    };
    let error = match shake() {
        Ok(connection) => {
            let version = match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
                _ => "TLS 1.2",
            };
            let trust = if config.tls.verify { "" } else { ", the certificate is not verified" };
            let check = Check::ok("tls", format!("{version}{trust}"));
            if config.tls.verify {
                return check;
            }
            let check = Check::warning("tls", format!("{version}{trust}"));
            return check
                .advise("anybody on the way can read the key; write tls_ca_file instead")
                .at(stanza.line(&config.name, "tls_verify"));
        }
        Err(error) => error,
    };
    let (advice, property) = tls_advice(&*error);
    let lines = stanza.lines(&config.name, property);
    let is_timeout = error.downcast_ref().is_some_and(is_timeout);
    let what = if is_timeout { "timed out".to_owned() } else { error.to_string() };
    Check::failed("tls", format!("{host}: {what}")).advise(advice).at(lines)
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// What to do about a handshake that failed, and the properties it is about.
fn tls_advice(
    error: &(dyn std::error::Error + 'static),
) -> (&'static str, &'static [&'static str]) {
    let io = error.downcast_ref::<std::io::Error>();
    let inner = io.and_then(std::io::Error::get_ref);
    let tls = inner.and_then(|error| error.downcast_ref::<rustls::Error>());
    let address: &[&str] = &["base_url", "region"];
    match tls.or_else(|| error.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(why)) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
                "the certificate has expired, or this machine's clock is wrong: check the clock, then \
                 who answers at this address",
                address,
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                ("the certificate is for another name: check the address", address)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                ("the certificate is not valid yet: check this machine's clock", address)
            }
            _ => (
                "nobody whom this machine trusts has signed the certificate: if a proxy inspects TLS, or \
                 the console has its own certificate, write tls_ca_file",
                &["tls_ca_file"],
            ),
        },
        Some(rustls::Error::AlertReceived(_)) => (
            "the server refuses this handshake: it may want a client certificate",
            &["tls_crt_file"],
        ),
        Some(rustls::Error::PeerIncompatible(_)) => {
            ("the server speaks no common TLS version", &["tls_min_version"])
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            ("what answers there speaks no TLS: check the port", address)
        }
        None if io.is_some_and(is_timeout) => (
            "no answer to the handshake; perhaps what listens there speaks no TLS: check the port",
            address,
        ),
        _ => ("the connection broke during the handshake: check the address and the port", address),
    }
}
