//! SIGTERM and SIGINT: the first asks to finish, the second ends at once.

use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Longest time for finishing what is in flight (a saga gives starts, then effects 4 s each) and handing over. Kubernetes kills after 30 s unless told
/// otherwise.
pub const GRACE: Duration = Duration::from_secs(15);

/// A token that is cancelled by the first SIGTERM or SIGINT. The second ends the process with 130.
///
/// # Errors
/// If the system lets no signals be listened to.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let shutdown = token.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if first {
                tracing::info!(signal = name, "finishing what is in flight");
                shutdown.cancel();
            }
        }
        tracing::warn!("ending at once");
        std::process::exit(130);
    });
    Ok(token)
}

/// Runs a driver until it ends by itself, or at most [`GRACE`] after the token is cancelled; `None` = it was cut off.
pub async fn within_grace<T>(
    shutdown: &CancellationToken,
    driver: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(driver);
    tokio::select! {
        ended = &mut driver => return Some(ended),
        () = shutdown.cancelled() => {}
    }
    tokio::time::timeout(GRACE, driver).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_driver_that_hangs_is_cut_off_after_the_grace() {
        let token = CancellationToken::new();
        assert_eq!(within_grace(&token, std::future::ready(1)).await, Some(1));
        token.cancel();
        let started = tokio::time::Instant::now();
        assert_eq!(
            within_grace(&token, std::future::pending::<()>()).await,
            None
        );
        assert_eq!(started.elapsed().as_secs(), GRACE.as_secs());
    }
}
