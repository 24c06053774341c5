//! From a contract's connection to options of the client, and from the client's errors to lines a person can act on.

use super::ConnectError;
use crate::credentials::{self, Credentials};
use async_nats::{ConnectErrorKind, ConnectOptions, ServerAddr};
use std::error::Error as _;
use std::path::PathBuf;
use tidemill_core::contract::Connection;

/// What of a contract's connection is understood before anything is tried.
pub(super) struct Settings {
    pub(super) addresses: Vec<ServerAddr>,
    /// The addresses without credentials.
    pub(super) shown: String,
    /// Credentials given in a URL; the contract says there are none, people's `--nats` may have some.
    url_user: Option<(String, String)>,
    /// Credentials that are in no file.
    given: Option<Credentials>,
    pub(super) api_prefix: String,
}

impl Settings {
    pub(super) fn new(connection: &Connection) -> Result<Self, ConnectError> {
        let wrong = |reason: String| Err(ConnectError::Settings(reason));
        if connection.servers.is_empty() {
            return wrong("it names no server".to_owned());
        }
        let mut addresses = Vec::new();
        let mut shown = Vec::new();
        let mut url_user = None;
        for server in &connection.servers {
            // The text isn't quoted as it is: it may hold a password.
            let Ok(address) = server.parse::<ServerAddr>() else {
                let end = server.rsplit('@').next().unwrap_or_default();
                return wrong(format!("`{end}` is no address; write nats://host:port"));
            };
            if address.is_websocket() {
                return wrong(format!(
                    "{}: WebSocket isn't supported, use nats:// or tls://",
                    address.host()
                ));
            }
            if let (None, Some(user)) = (&url_user, address.username()) {
                let password = address.password().unwrap_or_default();
                url_user = Some((decode_percent(user), decode_percent(password)));
            }
            shown.push(format!(
                "{}://{}:{}",
                address.scheme(),
                bracketed(address.host()),
                address.port()
            ));
            addresses.push(address);
        }
        let api_prefix = match (
            &connection.jetstream_domain,
            &connection.jetstream_api_prefix,
        ) {
            (Some(_), Some(_)) => {
                return wrong(
                    "it has a JetStream domain and an API prefix; give one of them".to_owned(),
                );
            }
            (Some(domain), None) => format!("$JS.{domain}.API"),
            (None, Some(prefix)) => prefix.trim_end_matches('.').to_owned(),
            (None, None) => "$JS.API".to_owned(),
        };
        Ok(Settings {
            addresses,
            shown: shown.join(", "),
            url_user,
            given: None,
            api_prefix,
        })
    }

    pub(super) fn with(mut self, credentials: Option<&Credentials>) -> Self {
        self.given = credentials.cloned();
        self
    }

    pub(super) async fn options(
        &self,
        connection: &Connection,
    ) -> Result<ConnectOptions, ConnectError> {
        let mut options =
            match (&self.given, &connection.credentials_file, &self.url_user) {
                (Some(given), ..) => credentials::from_text(given.text()).map_err(|reason| {
                    ConnectError::Settings(format!("the credentials given: {reason}"))
                })?,
                (None, Some(file), _) => credentials::from_file(file).await.map_err(|reason| {
                    ConnectError::Credentials {
                        file: file.clone(),
                        reason,
                    }
                })?,
                (None, None, Some((user, password))) => {
                    ConnectOptions::with_user_and_password(user.clone(), password.clone())
                }
                (None, None, None) => ConnectOptions::new(),
            };
        if let Some(tls) = &connection.tls {
            options = options.require_tls(true);
            for file in [&tls.ca_file, &tls.certificate_file, &tls.key_file]
                .into_iter()
                .flatten()
            {
                if let Err(error) = tokio::fs::metadata(file).await {
                    return Err(ConnectError::Settings(format!("{file}: {error}")));
                }
            }
            if let Some(file) = &tls.ca_file {
                options = options.add_root_certificates(PathBuf::from(file));
            }
            options = match (&tls.certificate_file, &tls.key_file) {
                (Some(certificate), Some(key)) => {
                    options.add_client_certificate(PathBuf::from(certificate), PathBuf::from(key))
                }
                (None, None) => options,
                _ => {
                    return Err(ConnectError::Settings(
                        "a client certificate needs its key, and a key its certificate".to_owned(),
                    ));
                }
            };
        }
        Ok(options)
    }

    pub(super) fn explain(&self, error: &async_nats::ConnectError) -> ConnectError {
        let servers = self.shown.clone();
        let reason = error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string);
        match error.kind() {
            ConnectErrorKind::ServerParse => ConnectError::Settings(reason),
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                ConnectError::Refused { servers, reason }
            }
            ConnectErrorKind::Tls => ConnectError::Tls { servers, reason },
            _ if is_tls(error) => ConnectError::Tls { servers, reason },
            ConnectErrorKind::Dns
            | ConnectErrorKind::TimedOut
            | ConnectErrorKind::Io
            | ConnectErrorKind::MaxReconnects => ConnectError::Unreachable { servers, reason },
        }
    }
}

/// The client says `Io` of a handshake that failed; what is below tells.
fn is_tls(error: &async_nats::ConnectError) -> bool {
    error
        .source()
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .and_then(std::io::Error::get_ref)
        .is_some_and(|inner| inner.is::<rustls::Error>())
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// Decodes `%HH` of a URL's user part; what isn't such a code stays as it is.
fn decode_percent(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = (byte == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        at += if code.is_some() { 3 } else { 1 };
        decoded.push(code.unwrap_or(byte));
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        for server in [
            "nats://me:s%40cret@host:1",
            "nats://me:s%40cret@:x",
            "ws://me:s%40cret@host",
        ] {
            match Settings::new(&Connection::plain(server)) {
                Ok(settings) => {
                    assert_eq!(settings.shown, "nats://host:1");
                    assert_eq!(
                        settings.url_user,
                        Some(("me".to_owned(), "s@cret".to_owned()))
                    );
                }
                Err(error) => assert!(!error.to_string().contains("cret"), "{error}"),
            }
        }
    }
}
