//! What a test server is started with, and its configuration file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{NatsServer, Result};

/// User with all rights that every server with users has.
pub const ADMIN: &str = "admin";

/// When JetStream flushes to disk.
#[derive(Debug, Clone, Copy)]
enum Sync {
    Always,
    Every(Duration),
}

/// A user of the server and what it may do. Its password is its name.
#[derive(Debug, Clone)]
pub struct User {
    name: String,
    publish: Option<Vec<String>>,
    subscribe: Option<Vec<String>>,
    allow_responses: bool,
    permissions: Option<String>,
}

impl User {
    /// A user that may do everything, until one of the lists is given. `name` is used in a URL: letters, digits, `-`, `_`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            publish: None,
            subscribe: None,
            allow_responses: false,
            permissions: None,
        }
    }

    /// Lets it do exactly this: the value of `permissions` in the configuration file's syntax. The other ways to say it count for nothing then.
    #[must_use]
    pub fn permissions(mut self, value: impl ToString) -> Self {
        self.permissions = Some(value.to_string());
        self
    }

    /// Lets it publish on these subjects only (an empty list: on none).
    #[must_use]
    pub fn publish(mut self, subjects: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.publish = Some(subjects.into_iter().map(Into::into).collect());
        self
    }

    /// Lets it subscribe to these subjects only (an empty list: to none).
    #[must_use]
    pub fn subscribe(mut self, subjects: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.subscribe = Some(subjects.into_iter().map(Into::into).collect());
        self
    }

    /// Lets it answer a request, on whatever reply subject, with the server's defaults: one message within two minutes.
    #[must_use]
    pub fn allow_responses(mut self) -> Self {
        self.allow_responses = true;
        self
    }

    fn render(&self, out: &mut String) {
        let Self {
            name,
            publish,
            subscribe,
            allow_responses,
            permissions,
        } = self;
        let _ = write!(out, "    {{ user: {name:?}, password: {name:?}");
        let mut rights = Vec::new();
        // A list that is empty would be read as absent, that is, as everything: say "deny all" instead.
        for (key, subjects) in [("publish", publish), ("subscribe", subscribe)] {
            match subjects.as_deref() {
                None => {}
                Some([]) => rights.push(format!("{key}: {{ deny: \">\" }}")),
                Some(list) => rights.push(format!("{key}: {{ allow: {list:?} }}")),
            }
        }
        if *allow_responses {
            rights.push("allow_responses: true".to_owned());
        }
        if let Some(permissions) = permissions {
            let _ = write!(out, ", permissions: {permissions}");
        } else if !rights.is_empty() {
            let _ = write!(out, ", permissions: {{ {} }}", rights.join(", "));
        }
        out.push_str(" }\n");
    }
}

/// Streams reserve what their limits say; by the server's default no more than the machine has left.
const FILE_STORE_MAX: u64 = 1_000_000_000_000_000;

/// Settings of a test server.
#[derive(Debug, Clone, Default)]
pub struct NatsServerBuilder {
    pub(super) store_dir: Option<PathBuf>,
    pub(super) users: Vec<User>,
    sync: Option<Sync>,
    max_payload: Option<usize>,
    pub(super) threads: Option<usize>,
    domain: Option<String>,
    strangers_refused: bool,
    extra: String,
}

impl NatsServerBuilder {
    /// Keeps JetStream's files here; default is a temporary folder that goes with the server.
    #[must_use]
    pub fn store_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.store_dir = Some(folder.into());
        self
    }

    /// Flushes every write to disk before it is acknowledged.
    #[must_use]
    pub fn sync_always(mut self) -> Self {
        self.sync = Some(Sync::Always);
        self
    }

    /// Flushes this often; the server's default is two minutes.
    #[must_use]
    pub fn sync_interval(mut self, every: Duration) -> Self {
        self.sync = Some(Sync::Every(every));
        self
    }

    /// Largest message in bytes, headers included; the server's default is 1 MiB.
    #[must_use]
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = Some(bytes);
        self
    }

    /// Threads that run the server's code at a time (Go's `GOMAXPROCS`); else one per core. A container's CPU limit of 1
    /// does the same.
    #[must_use]
    pub fn threads(mut self, number: usize) -> Self {
        self.threads = Some(number);
        self
    }

    /// Name of the JetStream domain; by default it has none.
    #[must_use]
    pub fn domain(mut self, name: &str) -> Self {
        self.domain = Some(name.to_owned());
        self
    }

    /// Adds a user. A server with users lets nobody in without, and has the user [`ADMIN`] besides.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.users.push(user);
        self
    }

    /// Lets in only users it knows, which may also come later ([`NatsServer::add_user`]), and those that name none, who may do everything. A
    /// server that was started without users lets in everybody by whatever name, and can't be told otherwise while it runs.
    #[must_use]
    pub fn refuse_strangers(mut self) -> Self {
        self.strangers_refused = true;
        self
    }

    pub(super) fn refuses_strangers(&self) -> bool {
        self.strangers_refused || !self.users.is_empty()
    }

    /// Adds lines to the configuration file, in its syntax.
    #[must_use]
    pub fn config(mut self, lines: &str) -> Self {
        self.extra.push_str(lines);
        self.extra.push('\n');
        self
    }

    /// Starts the server and returns when it is healthy.
    ///
    /// # Errors
    /// When there is no nats-server of a sufficient version, or it does not become healthy.
    pub async fn start(self) -> Result<NatsServer> {
        NatsServer::start_with(self).await
    }

    pub(super) fn render(&self, port: u16, monitor: u16, store: &Path, added: &[User]) -> String {
        let Self {
            store_dir: _,
            threads: _,
            users,
            sync,
            max_payload,
            domain,
            strangers_refused,
            extra,
        } = self;
        let mut out = format!(
            "server_name: tidemill-test\nlisten: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitor}\"\n"
        );
        let _ = writeln!(
            out,
            "jetstream {{\n  store_dir: {:?}\n  max_file_store: {FILE_STORE_MAX}",
            store.display().to_string()
        );
        if let Some(domain) = domain {
            let _ = writeln!(out, "  domain: {domain:?}");
        }
        match sync {
            None => {}
            Some(Sync::Always) => out.push_str("  sync_interval: always\n"),
            Some(Sync::Every(every)) => drop(writeln!(
                out,
                "  sync_interval: \"{}ms\"",
                every.as_millis()
            )),
        }
        out.push_str("}\n");
        if let Some(bytes) = max_payload {
            let _ = writeln!(out, "max_payload: {bytes}");
        }
        if !users.is_empty() || *strangers_refused {
            out.push_str("authorization {\n  users: [\n");
            User::new(ADMIN).render(&mut out);
            for user in users.iter().chain(added) {
                user.render(&mut out);
            }
            out.push_str("  ]\n}\n");
        }
        if *strangers_refused {
            let _ = writeln!(out, "no_auth_user: {ADMIN}");
        }
        out.push_str(extra);
        out
    }
}
