//! The ways in that operators of NATS ask for: TLS with certificates on both sides, JWT credentials, a JetStream domain.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa};
use serde_json::{Value, json};
use std::path::Path;
use tidemill_core::contract::{Connection, Tls};
use tidemill_nats::provision::{Mark, StreamPlan, ensure};
use tidemill_nats::{
    ConnectError, Credentials, KvBucket, Nats, Publish, Publisher, ReadFrom, Reader,
};
use tidemill_testbed::NatsServer;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// Makes a stream, publishes, reads, and writes a bucket: every kind of call that workers make.
async fn works(nats: &Nats) {
    let mark = || Mark::event_stream("dev", "shop", "orders", "one");
    let plan = StreamPlan::new("shop_orders", vec!["shop.orders.>".to_owned()], mark());
    ensure(nats, &plan).await.unwrap();
    ensure(nats, &StreamPlan::bucket("rows", mark()))
        .await
        .unwrap();
    let publisher = Publisher::new(nats, 8);
    let stored = publisher.publish(Publish::new("shop.orders.o-1.Placed", "{}"));
    assert_eq!(stored.await.await.unwrap().sequence, 1);
    let mut reader = Reader::open_to_end(nats, "shop_orders", Vec::new(), ReadFrom::First)
        .await
        .unwrap();
    let mut read = Vec::new();
    assert_eq!(reader.next_batch(8, &mut read).await.unwrap(), 1);
    let bucket = KvBucket::new(&publisher, "rows");
    bucket.put("a", "1").await.unwrap();
    assert_eq!(bucket.get("a").await.unwrap().unwrap().value, "1");
    assert_eq!(bucket.entries("").await.unwrap().len(), 1);
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

struct Certificates {
    ca: String,
    server: (String, String),
    client: (String, String),
}

fn certificates(folder: &Path) -> Certificates {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = CertifiedIssuer::self_signed(authority, key).unwrap();
    let issue = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();
        (
            write(folder, &format!("{name}.pem"), &certificate.pem()),
            write(folder, &format!("{name}.key"), &key.serialize_pem()),
        )
    };
    Certificates {
        ca: write(folder, "ca.pem", &authority.pem()),
        server: issue("server"),
        client: issue("client"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_certificates_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let files = certificates(folder.path());
    let (certificate, key) = &files.server;
    let tls = format!(
        "tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {:?}, verify: true }}",
        files.ca
    );
    let server = NatsServer::builder().config(&tls).start().await.unwrap();
    let with = |tls: Option<Tls>| Connection {
        tls,
        ..Connection::plain(&server.url())
    };
    let (certificate, key) = files.client.clone();
    let both = Tls {
        ca_file: Some(files.ca.clone()),
        certificate_file: Some(certificate),
        key_file: Some(key),
    };
    works(
        &Nats::connect(&with(Some(both.clone())), "test")
            .await
            .unwrap(),
    )
    .await;

    // An authority that nobody told us to trust.
    let unknown = Nats::connect(&with(None), "test").await.unwrap_err();
    assert!(matches!(unknown, ConnectError::Tls { .. }), "{unknown}");
    // A file that isn't there is named, and no waiting mends it.
    let gone = Tls {
        ca_file: Some("nowhere/ca.pem".to_owned()),
        ..both.clone()
    };
    let gone = Nats::connect(&with(Some(gone)), "test").await.unwrap_err();
    assert!(!gone.may_pass(), "{gone}");
    assert!(gone.to_string().contains("nowhere/ca.pem"), "{gone}");
    // Without the certificate that the server asks for.
    let nobody = Tls {
        certificate_file: None,
        key_file: None,
        ..both
    };
    let nobody = Nats::connect(&with(Some(nobody)), "test")
        .await
        .unwrap_err();
    assert!(nobody.to_string().contains("NATS at "), "{nobody}");
}

/// A JWT as NATS reads it (ADR-14 of its architecture: header `ed25519-nkey`, claims below `nats`).
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: &Value) -> String {
    let claims = json!({
        "jti": subject.public_key(), "iat": 1, "iss": issuer.public_key(), "name": "test",
        "sub": subject.public_key(), "nats": nats,
    });
    let header = base64(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{header}.{}", base64(claims.to_string().as_bytes()));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", base64(&signature))
}

/// base64url without padding (RFC 4648 §5).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for index in 0..=chunk.len() {
            text.push(ALPHABET[(bits >> (18 - 6 * index)) as usize & 63].into());
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jwt_credentials() {
    let (operator, user) = (KeyPair::new_operator(), KeyPair::new_user());
    let (account, system) = (KeyPair::new_account(), KeyPair::new_account());
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let account_claims = json!({"limits": limits, "type": "account", "version": 2});
    let user_claims = json!({"subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2});
    let operator_claims = json!({"type": "operator", "version": 2});
    let preloaded: Vec<String> = [&account, &system]
        .map(|account| {
            let claims = match account.public_key() == system.public_key() {
                true => &json!({"type": "account", "version": 2}),
                false => &account_claims,
            };
            format!(
                "{}: {}",
                account.public_key(),
                jwt(&operator, account, claims)
            )
        })
        .into();
    let config = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {} }}",
        jwt(&operator, &operator, &operator_claims),
        system.public_key(),
        preloaded.join(", "),
    );
    let server = NatsServer::builder().config(&config).start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        jwt(&account, &user, &user_claims),
        user.seed().unwrap()
    );
    let connection = |text: &str, name: &str| Connection {
        credentials_file: Some(write(folder.path(), name, text)),
        ..Connection::plain(&server.url())
    };
    works(
        &Nats::connect(&connection(&creds, "user.creds"), "test")
            .await
            .unwrap(),
    )
    .await;

    // Another key than the one the JWT is for.
    let wrong = creds.replace(&user.seed().unwrap(), &KeyPair::new_user().seed().unwrap());
    let refused = Nats::connect(&connection(&wrong, "wrong.creds"), "test")
        .await
        .unwrap_err();
    assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
    assert!(!format!("{refused:?}").contains("SEED"));
    let none = Nats::connect(&Connection::plain(&server.url()), "test")
        .await
        .unwrap_err();
    assert!(matches!(none, ConnectError::Refused { .. }), "{none}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jetstream_domain_or_prefix() {
    let server = NatsServer::builder().domain("hub").start().await.unwrap();
    let with_domain = Connection {
        jetstream_domain: Some("hub".to_owned()),
        ..Connection::plain(&server.url())
    };
    works(&Nats::connect(&with_domain, "test").await.unwrap()).await;
    let with_prefix = Connection {
        jetstream_api_prefix: Some("$JS.hub.API".to_owned()),
        ..Connection::plain(&server.url())
    };
    let nats = Nats::connect(&with_prefix, "test").await.unwrap();
    assert_eq!(nats.stream_state("shop_orders").await.unwrap().messages, 1);
    // Another domain isn't there, and its calls don't fall back to the one that is.
    let elsewhere = Connection {
        jetstream_domain: Some("leaf".to_owned()),
        ..Connection::plain(&server.url())
    };
    let nats = Nats::connect(&elsewhere, "test").await.unwrap();
    nats.stream_state("shop_orders").await.unwrap_err();
}

/// Credentials that are in no file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_of_a_forwarded_port() {
    let config = "authorization { user: me, password: secret }";
    let server = NatsServer::builder().config(config).start().await.unwrap();
    let connection = Connection::plain(&server.url());
    let connect = async |credentials: Option<&str>| {
        let credentials = credentials.map(|text| Credentials::new(text.to_owned()));
        Nats::connect_forwarded(&connection, credentials.as_ref(), "test").await
    };
    let nobody = connect(None).await.unwrap_err();
    assert!(matches!(nobody, ConnectError::Refused { .. }), "{nobody}");
    let wrong = connect(Some("s3cret")).await.unwrap_err();
    assert!(
        !wrong.may_pass() && !wrong.to_string().contains("s3cret"),
        "{wrong}"
    );
    works(&connect(Some("me:secret")).await.unwrap()).await;
}

/// A server of a cluster names its own addresses; from outside they lead nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_of_a_forwarded_port() {
    // A single nats-server names none.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let info = json!({"server_id": "a", "version": "2.15.2", "proto": 1, "max_payload": 1_000_000,
                "headers": true, "connect_urls": ["192.0.2.1:4222"]});
            let info = format!("INFO {info}\r\n");
            socket.write_all(info.as_bytes()).await.unwrap();
            let (read, mut write) = socket.into_split();
            tokio::spawn(async move {
                let mut lines = BufReader::new(read).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line.starts_with("PING") {
                        let _ = write.write_all(b"PONG\r\n").await;
                    }
                }
            });
        }
    });
    let connection = Connection::plain(&url);
    let plain = Nats::connect(&connection, "test").await.unwrap();
    let forwarded = Nats::connect_forwarded(&connection, None, "test");
    let forwarded = forwarded.await.unwrap();
    let addresses = async |nats: &Nats| nats.client().server_pool().await.unwrap().len();
    assert_eq!(addresses(&plain).await, 2);
    assert_eq!(addresses(&forwarded).await, 1);
}
