//! A real `nats-server` as a child process: on free ports of 127.0.0.1, with JetStream in a folder of its own.
//!
//! It can be restarted **on the same port**, so that clients reconnect, killed as a crash would, frozen, and its store can be copied away
//! and set back, as a restore from a backup or a power loss does. Dropping it kills it.

mod binary;
mod config;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use futures::StreamExt;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ports::Port;
use crate::process::{Process, ProcessError};
use crate::wait::within;

pub use binary::{BinaryError, VERSION_MIN, find as find_binary};
pub use config::{ADMIN, NatsServerBuilder, User};

/// Longest wait for a server to be healthy: recovery of a million messages took 2 s, the rest is for a busy machine.
const READY_MAX: Duration = Duration::from_secs(60);
/// Longest wait for a graceful stop.
const STOP_MAX: Duration = Duration::from_secs(30);
/// Tries of the first start; each takes other ports.
const START_TRIES_MAX: usize = 3;
/// Pause of the testbed's own clients between two tries to reconnect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// What can go wrong with a test server.
#[derive(Debug, thiserror::Error)]
pub enum NatsServerError {
    /// No usable nats-server program.
    #[error(transparent)]
    Binary(#[from] BinaryError),
    /// The child process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A folder, port or file could not be had.
    #[error("nats-server: {what} failed")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// It runs but did not become healthy.
    #[error("nats-server was not healthy within {READY_MAX:?}: {seen}")]
    NotReady {
        /// Last observation.
        seen: String,
    },
    /// It ended instead of becoming healthy.
    #[error("nats-server ended ({status}) instead of becoming healthy:\n{log}")]
    EndedEarly {
        /// Its exit status.
        status: std::process::ExitStatus,
        /// Its log.
        log: String,
    },
    /// Only possible while the server is down.
    #[error("nats-server runs; stop or kill it before {what}")]
    Running {
        /// What was asked for.
        what: &'static str,
    },
    /// Only possible while the server runs.
    #[error("nats-server is down; restart it before {what}")]
    Down {
        /// What was asked for.
        what: &'static str,
    },
    /// It was started without users, and lets in everybody by whatever name.
    #[error("nats-server was started without users: say so with refuse_strangers()")]
    Open,
    /// A client could not connect.
    #[error("can't connect to the test server")]
    Connect(#[from] async_nats::ConnectError),
}

type Result<T> = std::result::Result<T, NatsServerError>;

/// A running, stopped or killed test server.
#[derive(Debug)]
pub struct NatsServer {
    settings: NatsServerBuilder,
    binary: PathBuf,
    port: Port,
    monitor: Port,
    folder: TempDir,
    store: PathBuf,
    process: Option<Process>,
    /// Users that came after its start.
    added: Mutex<Vec<User>>,
    /// What it refused before its last start.
    refused: Vec<String>,
}

impl NatsServer {
    /// Describes a server; [`NatsServerBuilder::start`] starts it.
    #[must_use]
    pub fn builder() -> NatsServerBuilder {
        NatsServerBuilder::default()
    }

    /// Starts a server with the default settings.
    ///
    /// # Errors
    /// As [`NatsServerBuilder::start`].
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    async fn start_with(settings: NatsServerBuilder) -> Result<Self> {
        let binary = binary::find()?;
        let mut tries = 1;
        loop {
            let mut server = Self::prepare(settings.clone(), binary.clone())?;
            match server.launch().await {
                Ok(()) => return Ok(server),
                // Another program may have taken a port between the look and the bind: again with others.
                Err(NatsServerError::EndedEarly { .. }) if tries < START_TRIES_MAX => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn prepare(settings: NatsServerBuilder, binary: PathBuf) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("tidemill-nats-")
            .tempdir()
            .map_err(|source| NatsServerError::Io {
                what: "making its folder",
                source,
            })?;
        let reserve = || {
            Port::reserve().map_err(|source| NatsServerError::Io {
                what: "finding a free port",
                source,
            })
        };
        let store = settings
            .store_dir
            .clone()
            .unwrap_or_else(|| folder.path().join("store"));
        Ok(Self {
            settings,
            binary,
            port: reserve()?,
            monitor: reserve()?,
            folder,
            store,
            process: None,
            added: Mutex::default(),
            refused: Vec::new(),
        })
    }

    async fn launch(&mut self) -> Result<()> {
        let file = self.configure()?;
        let mut program = Process::builder(&self.binary)
            .name("nats-server")
            .arg("-c")
            .arg(&file);
        if let Some(threads) = self.settings.threads {
            program = program.env("GOMAXPROCS", threads.to_string());
        }
        let process = self.process.insert(program.spawn()?);
        let monitor = self.monitor.number();
        let healthy = within(READY_MAX, async || match process.ended() {
            Some(status) => Ok(Err(status)),
            None => health(monitor).await.map(Ok),
        })
        .await;
        match healthy {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => Err(NatsServerError::EndedEarly {
                status,
                log: process.stderr(),
            }),
            Err(seen) => Err(NatsServerError::NotReady {
                seen: format!("{seen}\n{}", process.stderr()),
            }),
        }
    }

    fn configure(&self) -> Result<PathBuf> {
        let file = self.folder.path().join("nats.conf");
        let added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        let (port, monitor) = (self.port.number(), self.monitor.number());
        let text = self.settings.render(port, monitor, &self.store, &added);
        std::fs::write(&file, text).map_err(|source| NatsServerError::Io {
            what: "writing its configuration",
            source,
        })?;
        Ok(file)
    }

    /// Whether it lets in only whom it knows: see [`NatsServerBuilder::refuse_strangers`].
    #[must_use]
    pub fn refuses_strangers(&self) -> bool {
        self.settings.refuses_strangers()
    }

    /// Adds a user while it runs, or while it is down; a moment later it is let in.
    ///
    /// # Errors
    /// When the server lets in everybody, or can't be told.
    pub fn add_user(&self, user: User) -> Result<()> {
        if !self.refuses_strangers() {
            return Err(NatsServerError::Open);
        }
        let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        added.push(user);
        drop(added);
        self.configure()?;
        match &self.process {
            Some(process) => Ok(process.reload()?),
            None => Ok(()),
        }
    }

    /// What it refused for lack of permission since its first start, a line each.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        let mut refused = self.refused.clone();
        refused.extend(refusals(&self.log()));
        refused
    }

    /// Address for clients, without credentials: `nats://127.0.0.1:<port>`. The same for the server's whole life.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port.number())
    }

    /// Address with the credentials of a user given to [`NatsServerBuilder::user`], or of [`ADMIN`].
    #[must_use]
    pub fn url_for(&self, user: &str) -> String {
        format!("nats://{user}:{user}@127.0.0.1:{}", self.port.number())
    }

    /// Address with all rights: with the credentials of [`ADMIN`] where the server has users.
    #[must_use]
    pub fn admin_url(&self) -> String {
        match self.settings.users.is_empty() {
            true => self.url(),
            false => self.url_for(ADMIN),
        }
    }

    /// Port for clients.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Address of the monitoring endpoints (`/varz`, `/jsz`, …), without a slash at the end.
    #[must_use]
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor.number())
    }

    /// A new connection with all rights (as [`ADMIN`] where the server has users). It reconnects within milliseconds.
    ///
    /// # Errors
    /// When the server can't be reached.
    pub async fn client(&self) -> Result<Client> {
        let user = (!self.settings.users.is_empty()).then_some(ADMIN);
        self.connect(self.options(user)).await
    }

    /// A new connection as one of the users.
    ///
    /// # Errors
    /// When the server can't be reached or doesn't know the user.
    pub async fn client_for(&self, user: &str) -> Result<Client> {
        self.connect(self.options(Some(user))).await
    }

    /// What [`NatsServer::client`] connects with, to add to: credentials (async-nats 0.51 doesn't take them from a URL), quick reconnects.
    #[must_use]
    pub fn options(&self, user: Option<&str>) -> ConnectOptions {
        let options = match user {
            Some(user) => ConnectOptions::with_user_and_password(user.to_owned(), user.to_owned()),
            None => ConnectOptions::new(),
        };
        options.reconnect_delay_callback(|_tries| RECONNECT_PAUSE)
    }

    async fn connect(&self, options: ConnectOptions) -> Result<Client> {
        Ok(options.connect(self.url()).await?)
    }

    /// Process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Where JetStream keeps its files.
    #[must_use]
    pub fn store_dir(&self) -> &Path {
        &self.store
    }

    /// The log since the last start.
    #[must_use]
    pub fn log(&self) -> String {
        self.process
            .as_ref()
            .map(Process::stderr)
            .unwrap_or_default()
    }

    /// Resident memory of the server process in MiB.
    ///
    /// # Errors
    /// When it is down.
    pub fn rss_mib(&self) -> Result<f64> {
        let process = self.process.as_ref().ok_or(NatsServerError::Down {
            what: "reading its memory",
        })?;
        Ok(process.rss_mib()?)
    }

    /// Starts it again on the same ports with the same store, after a graceful stop if it still runs. Returns when it is healthy.
    ///
    /// # Errors
    /// When it can't be stopped or does not become healthy.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.launch().await
    }

    /// Stops it gracefully (SIGTERM) and waits for its end. Nothing happens if it is down.
    ///
    /// # Errors
    /// When it doesn't end; it is killed then.
    pub async fn stop(&mut self) -> Result<()> {
        self.refused = self.refused();
        if let Some(mut process) = self.process.take()
            && process.ended().is_none()
        {
            process.terminate()?;
            process.wait_exit(STOP_MAX).await?;
        }
        Ok(())
    }

    /// Kills it as a crash would (SIGKILL) and waits until it is gone. Nothing happens if it is down.
    pub fn kill9(&mut self) {
        self.refused = self.refused();
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
    }

    /// Freezes it (SIGSTOP): connections stay open, nothing answers.
    ///
    /// # Errors
    /// When it is down.
    pub async fn sigstop(&mut self) -> Result<()> {
        let process = self.process.as_mut().ok_or(NatsServerError::Down {
            what: "freezing it",
        })?;
        Ok(process.sigstop().await?)
    }

    /// Lets it go on after [`NatsServer::sigstop`].
    ///
    /// # Errors
    /// When it is down.
    pub fn sigcont(&mut self) -> Result<()> {
        let process = self.process.as_mut().ok_or(NatsServerError::Down {
            what: "letting it go on",
        })?;
        Ok(process.sigcont()?)
    }

    /// Copies its store to `to` (made new) while it is down: what a backup has.
    ///
    /// # Errors
    /// When it runs, or a file can't be copied.
    pub fn copy_store(&self, to: &Path) -> Result<()> {
        self.only_down("copying its store")?;
        copy_folder(&self.store, to).map_err(|source| NatsServerError::Io {
            what: "copying its store",
            source,
        })
    }

    /// Replaces its store by an earlier copy while it is down: everything stored since is lost, as after a restore.
    ///
    /// # Errors
    /// When it runs, or a file can't be written.
    pub fn set_store_back(&self, from: &Path) -> Result<()> {
        self.only_down("setting its store back")?;
        std::fs::remove_dir_all(&self.store)
            .and_then(|()| copy_folder(from, &self.store))
            .map_err(|source| NatsServerError::Io {
                what: "setting its store back",
                source,
            })
    }

    /// Replaces one stream of the default account by what an earlier copy of the store has of it, while it is down.
    ///
    /// # Errors
    /// When it runs, or a file can't be written.
    pub fn set_stream_back(&self, from: &Path, stream: &str) -> Result<()> {
        self.only_down("setting a stream back")?;
        let folder = Path::new("jetstream/$G/streams").join(stream);
        let to = self.store.join(&folder);
        std::fs::remove_dir_all(&to)
            .and_then(|()| copy_folder(&from.join(&folder), &to))
            .map_err(|source| NatsServerError::Io {
                what: "setting a stream back",
                source,
            })
    }

    fn only_down(&self, what: &'static str) -> Result<()> {
        match self.process {
            Some(_) => Err(NatsServerError::Running { what }),
            None => Ok(()),
        }
    }
}

/// Waits until the server has handled everything that this client sent before, subscriptions too.
///
/// async-nats' `flush` only writes to the socket; without this, another connection's message can overtake a subscription.
///
/// # Errors
/// When the client can't subscribe or publish to an inbox, or the connection has ended for good.
pub async fn round_trip(client: &Client) -> std::result::Result<(), async_nats::Error> {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await?;
    client.publish(inbox, bytes::Bytes::new()).await?;
    echo.next()
        .await
        .map(|_| ())
        .ok_or_else(|| "the connection was closed".into())
}

/// Publishes over a connection of its own with a header block as it is, which async-nats wouldn't send; returns when the server has it.
///
/// # Errors
/// When the server closes the connection.
pub async fn publish_raw(
    server: &NatsServer,
    subject: &str,
    headers: &[u8],
    body: &[u8],
) -> std::io::Result<()> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await?;
    let (of_headers, total) = (headers.len(), headers.len() + body.len());
    let mut bytes = b"CONNECT {\"headers\":true,\"verbose\":false}\r\n".to_vec();
    bytes.extend(format!("HPUB {subject} {of_headers} {total}\r\n").bytes());
    bytes.extend(headers.iter().chain(body).chain(b"\r\nPING\r\n"));
    stream.write_all(&bytes).await?;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|window| window == b"PONG") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn refusals(log: &str) -> impl Iterator<Item = String> {
    let lines = log.lines().filter(|line| line.contains(" Violation - "));
    lines.map(str::to_owned)
}

/// One look at `/healthz`, which is 200 once every stream and consumer is recovered.
async fn health(port: u16) -> std::result::Result<(), String> {
    let look = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match look.await {
        Ok(answer) if answer.starts_with("HTTP/1.1 200") => Ok(()),
        Ok(answer) => Err(answer),
        Err(error) => Err(error.to_string()),
    }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
