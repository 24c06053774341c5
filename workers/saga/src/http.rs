//! `http` actions.

use crate::append::Appended;
use crate::effects::Of;
use crate::engine::Engine;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tidemill_core::json::Value;
use tidemill_core::names::LogKind;
use tidemill_core::saga::{HttpEffect, Observed};

/// Largest answer of an HTTP participant that is read, in bytes; the log's messages have a limit too.
const BODY_BYTES_MAX: usize = 512 * 1024;

/// The client of all `http` actions of a worker.
pub(crate) fn client() -> Result<reqwest::Client, reqwest::Error> {
    // Whose default it is doesn't matter; that there is one does.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        // A redirect would send a command to somebody the definition doesn't name, and so would a proxy of the environment.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
}

impl Engine {
    pub(crate) async fn http(self: Arc<Self>, of: Of, effect: HttpEffect) {
        let timeout = Duration::from_millis(effect.timeout_ms);
        let kind = LogKind::Observed {
            step: effect.step.clone(),
            side: effect.side,
            attempt: effect.attempt,
        };
        let answer = async {
            // Waiting for a turn is part of the attempt's time: one that is given up must not be sent any more.
            let _permit = Arc::clone(&self.http_permits).acquire_owned().await.ok()?;
            self.metrics.attempts.inc();
            Some(self.ask(effect).await)
        };
        // The timer of the attempt says when it is lost; this only frees the connection.
        let Ok(Some(what)) = tokio::time::timeout(timeout, answer).await else {
            return;
        };
        let appended = match what {
            Observed::Unreachable { message, .. } => {
                let silence = |sole| Observed::Unreachable {
                    sole,
                    message: message.clone(),
                };
                self.append_silence(&of.instance, kind.clone(), of.sole, silence)
                    .await
            }
            what => {
                self.append(&of.instance, kind.clone(), what.to_json())
                    .await
            }
        };
        if let Appended::Refused(why) = appended {
            let message = format!("the log refuses the answer: {why}");
            self.append(&of.instance, kind, Observed::Lost { message }.to_json())
                .await;
        }
    }

    async fn ask(&self, effect: HttpEffect) -> Observed {
        let method = reqwest::Method::from_bytes(effect.method.as_str().as_bytes())
            .unwrap_or(reqwest::Method::POST);
        let mut request = self.http.request(method, &effect.url);
        for (name, value) in &effect.headers {
            request = request.header(name, value);
        }
        if let Some(body) = effect.body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return unanswered(&error),
        };
        let status = u32::from(response.status().as_u16());
        let retry_after_ms = response
            .headers()
            .get("retry-after")
            .and_then(|value| retry_after_ms(value.to_str().ok()?, SystemTime::now()));
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() <= BODY_BYTES_MAX => {
                    bytes.extend_from_slice(&chunk)
                }
                // Its status says enough, unless it is to give an output.
                Ok(Some(_)) if !(200..300).contains(&status) => {
                    return Observed::Http {
                        status,
                        body: None,
                        retry_after_ms,
                    };
                }
                Ok(Some(_)) => {
                    let message = format!("the answer has more than {BODY_BYTES_MAX} bytes");
                    return Observed::Lost { message };
                }
                Ok(None) => break,
                Err(error) => {
                    let message = plain(&error);
                    return Observed::Lost { message };
                }
            }
        }
        let body = if bytes.is_empty() {
            Some(Value::Null)
        } else {
            Value::parse(&bytes).ok()
        };
        Observed::Http {
            status,
            body,
            retry_after_ms,
        }
    }
}

fn unanswered(error: &reqwest::Error) -> Observed {
    let message = plain(error);
    if error.is_builder() {
        Observed::Unsendable { message }
    } else if error.is_connect() {
        // Whether nobody else reached it is said when it is appended.
        let sole = false;
        Observed::Unreachable { sole, message }
    } else {
        Observed::Lost { message }
    }
}

/// An error of the HTTP client without the URL, which may hold what isn't for logs.
fn plain(error: &reqwest::Error) -> String {
    use std::error::Error as _;
    let mut text = match error {
        _ if error.is_timeout() => "timed out".to_owned(),
        _ if error.is_connect() => "can't connect".to_owned(),
        _ if error.is_builder() => "the request can't be made".to_owned(),
        _ => "the request failed".to_owned(),
    };
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// `Retry-After`: seconds, or a date of HTTP.
fn retry_after_ms(text: &str, now: SystemTime) -> Option<u64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.saturating_mul(1000));
    }
    let wait = httpdate::parse_http_date(text)
        .ok()?
        .duration_since(now)
        .unwrap_or_default();
    u64::try_from(wait.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, expected) in [
            ("3", Some(3000)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3000)),
            // In the past.
            ("Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
            ("soon", None),
            ("-3", None),
            ("99999999999999999999", None),
            ("18446744073709551615", Some(u64::MAX)),
        ] {
            assert_eq!(retry_after_ms(text, now), expected, "{text}");
        }
    }
}
