//! TLS to the database: always verified, unless the address says that there is none.

use in_trendmicro::checkpoint::Postgres;
use in_trendmicro::error::ErrorKind;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::{configured, file, fresh, text};
use crate::support::postgres::Server;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server whose certificate is for `localhost`, the file with its authority, and one with another.
fn secure() -> Option<(Server, String, String)> {
    let mut server = Server::start(&[])?;
    let (ours, other, key) = (authority(), authority(), KeyPair::generate().unwrap());
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ours).unwrap();
    file(&server, "data/server.crt", &certificate.pem());
    file(&server, "data/server.key", &key.serialize_pem());
    server.sql("postgres", "ALTER SYSTEM SET ssl = on");
    server.restart();
    let write = |name: &str, pem: String| file(&server, name, &pem).display().to_string();
    let (ours, other) = (write("ours.pem", ours.pem()), write("other.pem", other.pem()));
    Some((server, ours, other))
}

#[test]
fn a_server_is_believed_only_if_its_certificate_is() {
    let Some((server, ours, other)) = secure() else { return };
    let database = server.database();
    let plain = server.address(&database);
    let connect = |address: &str, ca: &str| {
        let more = [("db_ca_file", ca)];
        let more = if ca.is_empty() { &[] } else { &more[..] };
        Postgres::new(&configured(address, more)).unwrap().connect()
    };
    let named = plain.replace("127.0.0.1", "localhost");
    for mode in ["", "?sslmode=require", "?sslmode=verify-ca", "?sslmode=verify-full"] {
        let address = named.replace("?sslmode=disable", mode);
        connect(&address, &ours).unwrap_or_else(|error| panic!("{mode}: {error}"));
        for (address, ca, why) in [
            (address.clone(), other.as_str(), "BadSignature"),
            (address.clone(), "", "UnknownIssuer"),
            (address.replace("localhost", "127.0.0.1"), &ours, "not valid for name"),
        ] {
            let error = connect(&address, ca).unwrap_err();
            let said = text(&error);
            assert_eq!(error.kind(), ErrorKind::Config, "{said}");
            assert!(said.contains("certificate is refused") && said.contains(why), "{said}");
            assert!(said.contains("; legal: ") && said.contains("; write: db_ca_file"), "{said}");
        }
    }
    let using = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
                 WHERE s.ssl AND application_name = 'in_trendmicro'";
    let db = configured(&named.replace("?sslmode=disable", ""), &[("db_ca_file", &ours)]);
    let mut store = Postgres::new(&db).unwrap();
    store.connect().unwrap();
    assert_eq!(server.sql(&database, using), [["1"]]);
    drop(store);
    connect(&plain, "").expect("without TLS, since the address says so");
}

#[test]
fn a_server_without_tls_is_refused_unless_the_address_says_so() {
    let Some((server, database, mut store)) = fresh() else { return };
    store.connect().expect("sslmode=disable");
    let address = server.address(&database).replace("?sslmode=disable", "");
    let mut store = Postgres::new(&configured(&address, &[])).unwrap();
    let error = store.connect().unwrap_err();
    let said = text(&error);
    assert_eq!(error.kind(), ErrorKind::Config, "{said}");
    assert!(said.contains("speaks no TLS") && said.contains("sslmode=disable"), "{said}");
}

#[test]
fn a_file_without_certificates_is_refused_at_once() {
    let Some((server, database, _)) = fresh() else { return };
    let path = file(server, "empty.pem", "nothing").display().to_string();
    let address = server.address(&database).replace("?sslmode=disable", "");
    let error = Postgres::new(&configured(&address, &[("db_ca_file", &path)])).err().unwrap();
    assert!(text(&error).starts_with(&format!("db_ca_file = \"{path}\"")), "{error}");
}
