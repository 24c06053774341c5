//! The nats-server that `dev` starts as its child.
//!
//! It listens on 127.0.0.1 only, keeps its store between runs, and ends with this process whatever ends that: a shell holds
//! the reading end of a pipe and stops the server when our end is gone. Should that shell be killed too, the next run ends
//! the server, as [`StoreLock`] knows of it.

mod complaints;
mod lock;
mod program;

use crate::error::{CliError, Exit, Result};
use complaints::Complaints;
pub(crate) use lock::StoreLock;
use program::{Program, find};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// The port that people expect, taken if it is free.
const USUAL_PORT: u16 = 4222;
/// Longest wait until a server has read its store: a million messages took 2 s.
const START_MAX: Duration = Duration::from_secs(60);
/// Longest wait until it has written everything and ended.
const STOP_MAX: Duration = Duration::from_secs(15);
/// Between two looks whether it is there.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Its input is our end of the pipe.
    watchdog: Child,
    url: String,
    version: String,
    log: PathBuf,
}

/// What a server is started with.
#[derive(Debug)]
pub(crate) struct Begin {
    program: Program,
    port: Option<u16>,
}

impl Begin {
    /// Looks whether there is all that a server needs, at this port or at any.
    ///
    /// # Errors
    /// No program, or the port is in use.
    pub(crate) async fn look(port: Option<u16>) -> Result<Self> {
        let program = find(std::env::current_dir().ok().as_deref()).await?;
        match port {
            Some(port) if !is_free(port) => Err(in_use(port)),
            port => Ok(Begin { program, port }),
        }
    }
}

impl Server {
    /// Starts a server with its store and log in the folder of the state, which is locked for it.
    ///
    /// # Errors
    /// The port was taken meanwhile, or it doesn't come up; one line each.
    pub(crate) async fn start(
        begin: Begin,
        folder: &Path,
        store: &Path,
        lock: &StoreLock,
    ) -> Result<Self> {
        let Begin { program, port } = begin;
        match port {
            Some(port) => Self::launch(&program, folder, store, lock, Some(port))
                .await?
                .ok_or_else(|| in_use(port)),
            None => {
                let usual = Some(USUAL_PORT).filter(|port| is_free(*port));
                if let Some(server) = Self::launch(&program, folder, store, lock, usual).await? {
                    return Ok(server);
                }
                // Somebody took the usual one between our look and the server's.
                let any = Self::launch(&program, folder, store, lock, None).await?;
                any.ok_or_else(|| CliError::failed("nats-server finds no free port"))
            }
        }
    }

    /// Nothing if the port is taken.
    async fn launch(
        program: &Program,
        folder: &Path,
        store: &Path,
        lock: &StoreLock,
        port: Option<u16>,
    ) -> Result<Option<Self>> {
        let cannot =
            |what: String, error: &std::io::Error| CliError::failed(format!("{what}: {error}"));
        let (ports, log) = (folder.join("ports"), folder.join("nats.log"));
        // Left over by a server that was killed.
        let _ = std::fs::remove_dir_all(&ports);
        std::fs::create_dir_all(&ports)
            .map_err(|error| cannot(format!("{} can't be made", ports.display()), &error))?;
        let file = std::fs::File::create(&log)
            .map_err(|error| cannot(format!("{} can't be written", log.display()), &error))?;
        let unlocked =
            |error: &std::io::Error| cannot("the store can't be locked".to_owned(), error);
        let input = lock.input().map_err(|error| unlocked(&error))?;
        let config = folder.join("nats.conf");
        std::fs::write(&config, settings(store))
            .map_err(|error| cannot(format!("{} can't be written", config.display()), &error))?;
        let child = Command::new(&program.path)
            .args(["--addr", "127.0.0.1", "--name", "tidemill-dev"])
            .arg("--config")
            .arg(config)
            .arg("--port")
            .arg(port.map_or_else(|| "-1".to_owned(), |port| port.to_string()))
            .arg("--ports_file_dir")
            .arg(&ports)
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(file)
            // Ctrl-C in the terminal is for us, who stop the workers first.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                cannot(
                    format!("{} can't be started", program.path.display()),
                    &error,
                )
            })?;
        lock.tell(child.id()).map_err(|error| unlocked(&error))?;
        let watchdog = watchdog(child.id())
            .map_err(|error| cannot("`sh` can't be started".to_owned(), &error))?;
        let mut server = Server {
            child,
            watchdog,
            url: String::new(),
            version: program.version.clone(),
            log,
        };
        match server.wait_for_address(&ports).await? {
            Some(url) => server.url = url,
            None => return Ok(None),
        }
        Ok(Some(server))
    }

    /// Its address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its version.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Waits until it ends by itself, which it never should, and says so. Until then what it complains of goes to our log.
    pub(crate) async fn ended(&mut self) -> CliError {
        let mut complaints = Complaints::open(&self.log).ok();
        let mut look = tokio::time::interval(complaints::LOOK_INTERVAL);
        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status,
                _ = look.tick() => {
                    for text in complaints.iter_mut().flat_map(Complaints::new_ones) {
                        // From then on it stores nothing there, room or not.
                        let remedy = match text.contains("no space left") {
                            true => "; make room, then start `tidemill dev` again",
                            false => "",
                        };
                        tracing::error!("nats-server: {text}{remedy}");
                    }
                }
            }
        };
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        CliError::failed(format!("nats-server ended ({status})"))
            .remedy(format!("its log is {}", self.log.display()))
    }

    /// Stops it and waits until it has.
    pub(crate) async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(pid) {
            // It may have ended in this moment; the wait finds out.
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(STOP_MAX, self.child.wait())
            .await
            .is_err()
        {
            tracing::warn!("nats-server didn't stop in time and is killed");
            let _ = self.child.kill().await;
        }
        // It would stop whatever process has the number by then.
        let _ = self.watchdog.kill().await;
    }

    /// Nothing if it ended because its port is taken.
    async fn wait_for_address(&mut self, ports: &Path) -> Result<Option<String>> {
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return self
                    .did_not_start(&status.to_string())
                    .map_or(Ok(None), Err);
            }
            if let Some(url) = self.child.id().and_then(|pid| address(ports, pid)) {
                return Ok(Some(url));
            }
            if Instant::now() >= deadline {
                let what = format!(
                    "nats-server did not come up within {} s",
                    START_MAX.as_secs()
                );
                return Err(CliError::new(Exit::Unreachable, what)
                    .remedy(format!("its log is {}", self.log.display())));
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Nothing if its port is taken.
    fn did_not_start(&self, status: &str) -> Option<CliError> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        if log.contains("address already in use") {
            return None;
        }
        let last = log
            .lines()
            .rev()
            .find(|line| line.contains("[FTL]") || line.contains("[ERR]"));
        let why = last
            .and_then(|line| line.split_once("] "))
            .map_or("", |(_, why)| why);
        Some(
            CliError::failed(format!("nats-server ended ({status}) {why}"))
                .remedy(format!("its log is {}", self.log.display())),
        )
    }
}

/// The ports file is there once the server listens.
fn address(ports: &Path, pid: u32) -> Option<String> {
    #[derive(Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let text = std::fs::read(ports.join(format!("nats-server_{pid}.ports"))).ok()?;
    let ports: Ports = serde_json::from_slice(&text).ok()?;
    ports.nats.into_iter().next()
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn in_use(port: u16) -> CliError {
    CliError::new(Exit::Refused, format!("port {port} of 127.0.0.1 is in use"))
        .remedy("stop what listens there, give another --port, or leave it out to take a free one")
}

/// A shell that stops the server when this process is gone.
fn watchdog(server: Option<u32>) -> std::io::Result<Child> {
    let server = server.ok_or_else(|| std::io::Error::other("the server has ended"))?;
    Command::new("sh")
        .args([
            "-c",
            "read -r _; kill -TERM \"$0\" 2>/dev/null",
            &server.to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

/// What there is no option for. A stream's `maxBytes` is reserved when it is made: of three quarters of the free disk, by the server's default, so
/// that a manifest for a cluster couldn't be had on a laptop.
fn settings(store: &Path) -> String {
    const FILE_STORE_MAX: u64 = 1_000_000_000_000_000;
    let store = store.display().to_string();
    format!("jetstream {{ store_dir: {store:?}, max_file_store: {FILE_STORE_MAX} }}\n")
}
