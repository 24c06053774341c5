//! A port of this machine that leads to NATS in a cluster, as `kubectl port-forward` opens one, for as long as this process runs.
//!
//! Each connection finds its own pod, so that what reconnects finds the pod that is there then.

use super::nats::Place;
use crate::error::{CliError, Exit, Result, chain};
use kube::client::UpgradeConnectionError;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::copy;
use tokio::net::{TcpListener, TcpStream};

/// Longest wait for one forward to be opened; clients give up sooner or later by themselves.
const OPEN_MAX: Duration = Duration::from_secs(20);
/// Wait after this machine could not accept.
const PAUSE: Duration = Duration::from_millis(100);

/// The port.
pub(crate) struct Forward {
    address: SocketAddr,
    failed: Failed,
}

/// The last thing that went wrong.
type Failed = Arc<Mutex<Option<CliError>>>;

impl Forward {
    /// Opens it. That there is a ready pod is looked at first.
    ///
    /// # Errors
    /// No ready pod, or no port.
    pub(crate) async fn open(place: Place) -> Result<Forward> {
        place.pod().await?;
        let no_port =
            |error| CliError::failed(format!("no port of 127.0.0.1 can be opened: {error}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(no_port)?;
        let address = listener.local_addr().map_err(no_port)?;
        let failed = Failed::default();
        tokio::spawn(accept(listener, place, Arc::clone(&failed)));
        Ok(Forward { address, failed })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Why the last connection got nowhere, if it did.
    pub(crate) fn failure(&self) -> Option<CliError> {
        self.failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

async fn accept(listener: TcpListener, place: Place, failed: Failed) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (place, failed) = (place.clone(), Arc::clone(&failed));
        tokio::spawn(async move {
            if let Err(error) = carry(&place, socket).await {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        });
    }
}

/// Carries one connection until either side ends it; what goes wrong closes it, so that whoever connected sees that.
async fn carry(place: &Place, mut socket: TcpStream) -> Result<()> {
    let (pod, port) = place.pod().await?;
    let failed = |why: &str| {
        let what = format!(
            "port {port} of pod {}/{pod} can't be reached: {why}",
            place.namespace
        );
        CliError::new(Exit::Unreachable, what)
    };
    let pods = place.pods();
    let ports = [port];
    let mut forwarder = match tokio::time::timeout(OPEN_MAX, pods.portforward(&pod, &ports)).await {
        Ok(Ok(forwarder)) => forwarder,
        Ok(Err(kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code))))
            if code.as_u16() == 403 =>
        {
            let what = format!(
                "{} lets you forward no port to pod {}/{pod}",
                place.cluster().shown(),
                place.namespace
            );
            return Err(CliError::new(Exit::Refused, what)
                .remedy("that takes the right `create pods/portforward` there; or give --nats nats://HOST:4222"));
        }
        Ok(Err(error)) => return Err(failed(&chain(&error))),
        Err(_) => {
            return Err(failed(&format!(
                "no answer within {} s",
                OPEN_MAX.as_secs()
            )));
        }
    };
    let (Some(stream), Some(refusal)) = (forwarder.take_stream(port), forwarder.take_error(port))
    else {
        return Err(failed("the forward has no such port"));
    };
    // Best effort: it only delays.
    let _ = socket.set_nodelay(true);
    let (mut from_here, mut to_here) = socket.split();
    let (mut from_pod, mut to_pod) = tokio::io::split(stream);
    // Clients of NATS close both ways at once.
    let outcome = tokio::select! {
        Some(why) = refusal => Err(failed(&why)),
        _ = copy(&mut from_here, &mut to_pod) => Ok(()),
        _ = copy(&mut from_pod, &mut to_here) => Ok(()),
    };
    forwarder.abort();
    outcome
}
