//! NATS JWTs, version 2: pure. The claims are those of github.com/nats-io/jwt/v2, as far as they are used here.
//!
//! The two crates there are for this (`nats-jwt`, `nats-io-jwt`) aren't kept up, and both stamp the time into what they make. Here the
//! same claims always give the same text: Secrets that are made anew are as before, and what is as it shall be isn't written.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use nkeys::KeyPair;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tidemill_nats::permissions::{Rights, Subjects};

/// No limit.
const ALL: i64 = -1;

/// Of whom a JWT speaks.
pub(super) struct Subject<'a> {
    /// Its public key.
    pub(super) key: &'a str,
    /// For people.
    pub(super) name: &'a str,
}

/// A server's operator, signed by itself.
pub(super) fn operator(
    name: &str,
    system_account: &str,
    signer: &KeyPair,
) -> Result<String, nkeys::error::Error> {
    let key = signer.public_key();
    let claims = json!({"type": "operator", "version": 2, "system_account": system_account});
    encode(&Subject { key: &key, name }, claims, signer)
}

/// An account, signed by the operator. With `jetstream` it may store without limits but the server's.
pub(super) fn account(
    subject: &Subject<'_>,
    signing_key: Option<&str>,
    jetstream: bool,
    signer: &KeyPair,
) -> Result<String, nkeys::error::Error> {
    let mut limits = json!({
        "subs": ALL, "data": ALL, "payload": ALL,
        "imports": ALL, "exports": ALL, "wildcards": true, "disallow_bearer": true, "conn": ALL, "leaf": ALL,
    });
    if jetstream {
        for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
            limits[limit] = json!(ALL);
        }
    }
    let mut claims = json!({"type": "account", "version": 2, "limits": limits});
    if let Some(key) = signing_key {
        claims["signing_keys"] = json!([key]);
    }
    encode(subject, claims, signer)
}

/// A user of an account, signed by one of the account's signing keys.
pub(super) fn user(
    subject: &Subject<'_>,
    account: &str,
    rights: &Rights,
    signer: &KeyPair,
) -> Result<String, nkeys::error::Error> {
    let Rights {
        publish,
        subscribe,
        responses,
    } = rights;
    let mut claims = json!({
        "type": "user", "version": 2, "issuer_account": account,
        "subs": ALL, "data": ALL, "payload": ALL,
        "pub": subjects(publish), "sub": subjects(subscribe),
    });
    if let Some(responses) = responses {
        let nanoseconds = u64::try_from(responses.within.as_nanos()).unwrap_or(u64::MAX);
        claims["resp"] = json!({"max": responses.max, "ttl": nanoseconds});
    }
    encode(subject, claims, signer)
}

fn subjects(Subjects { allow, deny }: &Subjects) -> Value {
    let mut subjects = json!({});
    for (name, list) in [("allow", allow), ("deny", deny)] {
        if !list.is_empty() {
            subjects[name] = json!(list);
        }
    }
    subjects
}

fn encode(
    subject: &Subject<'_>,
    nats: Value,
    signer: &KeyPair,
) -> Result<String, nkeys::error::Error> {
    let mut claims = json!({
        // The beginning of time: see above.
        "iat": 0,
        "iss": signer.public_key(),
        "name": subject.name,
        "nats": nats,
        "sub": subject.key,
    });
    claims["jti"] = json!(BASE32_NOPAD.encode(&Sha256::digest(written(&claims))));
    let header = json!({"alg": "ed25519-nkey", "typ": "JWT"});
    let text = [header, claims]
        .map(|part| BASE64URL_NOPAD.encode(written(&part).as_bytes()))
        .join(".");
    let signature = signer.sign(text.as_bytes())?;
    Ok(format!("{text}.{}", BASE64URL_NOPAD.encode(&signature)))
}

/// JSON with its keys in order: whether serde_json keeps them so is decided by what else is linked in.
fn written(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let fields = fields.into_iter();
            let fields = fields.map(|(name, value)| format!("{}:{}", json!(name), written(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        value => value.to_string(),
    }
}

/// The text of a credentials file.
pub(super) fn file(jwt: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}
