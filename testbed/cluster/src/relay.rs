//! A way into a network namespace, and none out of it: connections to a port of 127.0.0.1 go on inside.

use crate::namespace::Entrance;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread::JoinHandle;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Carries connections until it is dropped.
///
/// A thread of ours that has entered the namespace: sockets it opens belong there. No device and no address is shared with the
/// machine, so nothing inside can reach anything outside, and two nodes can have the same addresses.
#[derive(Debug)]
pub(crate) struct Relay {
    from: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// From a port of 127.0.0.1 (0: any free one) to an address inside.
    pub(crate) fn start(inside: &Entrance, from: u16, to: SocketAddr) -> std::io::Result<Relay> {
        // Opened here, so it belongs to the machine.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, from))?;
        listener.set_nonblocking(true)?;
        let from = listener.local_addr()?;
        let namespace = File::open(inside.network())?;
        let (stop, stopped) = oneshot::channel();
        let (entered, result) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || {
                let runtime = enter(&namespace).and_then(|()| {
                    let mut builder = tokio::runtime::Builder::new_current_thread();
                    builder.enable_all().build()
                });
                drop(namespace);
                match runtime {
                    Ok(runtime) => {
                        let _ = entered.send(Ok(()));
                        runtime.block_on(carry(listener, to, stopped));
                    }
                    Err(error) => {
                        let _ = entered.send(Err(error));
                    }
                }
            })?;
        result.recv().map_err(std::io::Error::other)??;
        Ok(Relay {
            from,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.from
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Takes this thread, and no other, into a network.
#[cfg(target_os = "linux")]
fn enter(network: &File) -> std::io::Result<()> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd;
    let kind = Some(LinkNameSpaceType::Network);
    Ok(move_into_link_name_space(network.as_fd(), kind)?)
}

#[cfg(not(target_os = "linux"))]
fn enter(_network: &File) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

async fn carry(listener: TcpListener, to: SocketAddr, mut stopped: oneshot::Receiver<()>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => return,
        };
        // Of a connection that was given up before we looked; the next one is another.
        let Ok((mut outside, _)) = accepted else {
            continue;
        };
        tokio::spawn(async move {
            // Refused inside is closed outside: whoever asks sees that.
            if let Ok(mut inside) = TcpStream::connect(to).await {
                let _ = outside.set_nodelay(true);
                let _ = inside.set_nodelay(true);
                let _ = copy_bidirectional(&mut outside, &mut inside).await;
            }
        });
    }
}
