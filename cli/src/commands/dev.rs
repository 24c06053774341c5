//! `tidemill dev`.

use crate::commands::lint;
use crate::context::{Context, not_connected};
use crate::dev::apply::{Applied, apply};
use crate::dev::folder::StateFolder;
use crate::dev::limits;
use crate::dev::log::Recent;
use crate::dev::next::{events_file, next_commands};
use crate::dev::observe::Observer;
use crate::dev::replicas;
use crate::dev::screen::{Board, Screen};
use crate::dev::server::{Begin, Server, StoreLock};
use crate::dev::watch::Watch;
use crate::dev::workers::Workers;
use crate::dev_file::DevFile;
use crate::error::{CliError, Result};
use crate::manifests::{Manifests, Missing, Options, Severity};
use crate::output::count;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemill_core::contract::Connection;
use tidemill_core::definition::StreamRef;
use tidemill_nats::Nats;
use tokio_util::sync::CancellationToken;

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill dev manifests/
  tidemill dev k8s/examples/orders/manifests --fresh
  tidemill dev manifests/ --nats nats://127.0.0.1:4222
  tidemill dev manifests/ --port 4333 --plain
  tidemill dev manifests/ --allow-loss orders

Needs no Kubernetes: starts a nats-server (of PATH, .tools/bin or Go's bin folder; TIDEMILL_NATS_SERVER names another) that listens \
on 127.0.0.1 only, makes streams and buckets, and runs every Projection and Saga in this process. Changed manifests are taken over \
at once; one with an error is reported, and what ran before goes on; a limit that would delete events which are there waits for \
--allow-loss. All data stays in DIR/.tidemill until --fresh. Ctrl-C stops \
everything; the next run goes on where this one ended.";

/// Between two looks at the figures.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long what is being made may go on when `dev` is told to stop.
const FINISH_MAX: Duration = Duration::from_secs(2);

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder with the manifests
    #[arg(default_value = ".", value_name = "DIR")]
    folder: PathBuf,
    /// Forget all streams, rows and instances of earlier runs
    #[arg(long)]
    fresh: bool,
    /// Port of the NATS server on 127.0.0.1 [default: 4222 if it is free, else any]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// One line per change instead of a table that is drawn over
    #[arg(long)]
    plain: bool,
    /// Let the limits of this EventStream delete events that are there, in this run; may be repeated
    #[arg(long, value_name = "EVENTSTREAM")]
    allow_loss: Vec<String>,
    /// Make streams and buckets, but run no workers
    #[arg(long)]
    no_workers: bool,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<()> {
    let folder = &args.folder;
    if !folder.is_dir() {
        let error = CliError::not_found(format!("{} is no folder", folder.display()));
        return Err(error.remedy("name the folder that holds the manifests"));
    }
    if !context.for_people() {
        let error = CliError::usage("dev writes no JSON and no YAML");
        return Err(error.remedy("leave -o out; lists beside it take -o"));
    }
    if context.given_address().is_some() && (args.fresh || args.port.is_some()) {
        return Err(
            CliError::usage("--fresh and --port are for the server that dev starts")
                .remedy("leave them out, or leave out --nats (and TIDEMILL_NATS)"),
        );
    }
    let options = Options {
        run_here: true,
        namespace: context.given_namespace().map(str::to_owned),
        missing: Missing::Error,
        declared_before: BTreeSet::new(),
    };
    let manifests = Manifests::load(std::slice::from_ref(folder), &options)?;
    refuse_invalid(&manifests, folder, context)?;
    let may_lose = limits::named(&args.allow_loss, &manifests)?;

    let state = StateFolder::lock(folder)?;
    let recent = Recent::start(state.path())?;
    let signals = tidemill_worker_runtime::shutdown::on_signals()
        .map_err(|error| CliError::failed(format!("signals can't be listened to: {error}")))?;
    // Watched before the first look is over, so that no change is missed.
    let watch = Watch::start(folder)?;
    let ours = match context.given_address() {
        Some(_) => None,
        None => tokio::select! {
            began = begin(&args, &state) => Some(began?),
            // A server that isn't there yet has nothing of anybody's; it ends as it is dropped.
            () = signals.cancelled() => return context.output.line("stopped before NATS was there"),
        },
    };
    let (_lock, server) = ours.unzip();
    let address = server
        .as_ref()
        .map_or_else(|| context.given_address().unwrap_or_default(), Server::url)
        .to_owned();
    let connection = context.connection(&address);
    let session = Session {
        args: &args,
        context,
        options,
        may_lose,
        state: &state,
        connection,
        address,
        recent,
        server: server.as_ref().map(Server::version).map(str::to_owned),
    };
    let ended = session.run(manifests, watch, &signals, server).await;
    state.untell();
    ended
}

/// A server of ours, and the lock of its store.
async fn begin(args: &Args, state: &StateFolder) -> Result<(StoreLock, Server)> {
    let lock = StoreLock::take(state.path()).await?;
    let begin = Begin::look(args.port).await?;
    // Nothing is given up for a server that can't be had.
    if args.fresh {
        state.empty_store()?;
    }
    let server = Server::start(begin, state.path(), &state.store(), &lock).await?;
    Ok((lock, server))
}

/// Nothing is started for manifests that are wrong from the start.
fn refuse_invalid(manifests: &Manifests, folder: &Path, context: &Context) -> Result<()> {
    for finding in &manifests.findings {
        context.output.line(finding.to_string())?;
    }
    let errors = manifests.errors();
    if errors > 0 {
        let what = format!(
            "{} in the manifests of {}",
            count(errors as u64, "error"),
            folder.display()
        );
        return Err(CliError::failed(what).remedy("nothing was started; mend them and start again"));
    }
    if manifests.resources.is_empty() {
        return Err(lint::nothing(&[folder.to_owned()]));
    }
    Ok(())
}

struct Session<'a> {
    args: &'a Args,
    context: &'a Context,
    options: Options,
    /// EventStreams whose limits may delete events that are there.
    may_lose: BTreeSet<StreamRef>,
    state: &'a StateFolder,
    connection: Connection,
    address: String,
    recent: Recent,
    /// Version of our own server.
    server: Option<String>,
}

impl Session<'_> {
    async fn run(
        self,
        manifests: Manifests,
        mut watch: Watch,
        signals: &CancellationToken,
        mut server: Option<Server>,
    ) -> Result<()> {
        let live = self.context.output.is_terminal() && !self.args.plain;
        let mut screen = Screen::new(&self.context.output, live);
        let mut workers = Workers::default();
        for finding in &manifests.findings {
            // Said before anything was started.
            workers.is_news(&finding.to_string());
        }
        // Whatever else is under way waits for answers that don't come when the server has ended.
        let ended = tokio::select! {
            error = ended(server.as_mut()) => Err((error, true)),
            // A server that is frozen answers nothing.
            () = overdue(signals) => Ok(()),
            ended = self.follow(&manifests, &mut watch, signals, &mut workers, &mut screen) => ended.map_err(|error| (error, false)),
        };
        screen.end();
        let ended = match ended {
            Err((error, true)) => {
                workers.cut_off();
                if let Some(server) = server {
                    server.stop().await;
                }
                return Err(error);
            }
            ended => ended.map_err(|(error, _)| error),
        };
        if ended.is_ok() {
            screen.line("stopping: workers finish what is in flight")?;
        }
        workers.stop().await;
        if let Some(server) = server {
            server.stop().await;
        }
        if ended.is_ok() {
            screen.line("stopped; the next run goes on from here")?;
        }
        ended
    }

    async fn follow(
        &self,
        manifests: &Manifests,
        watch: &mut Watch,
        signals: &CancellationToken,
        workers: &mut Workers,
        screen: &mut Screen<'_>,
    ) -> Result<()> {
        let nats = Nats::connect(&self.connection, "tidemill dev")
            .await
            .map_err(|error| not_connected(&error))?;
        let mut applied = self.take_over(&nats, manifests, workers, screen).await?;
        let mut declared_before = manifests.declaring();
        self.first_screen(manifests, &applied, nats.servers(), screen)?;
        let observer = Observer::start(&nats);
        let mut invalid = Vec::new();
        let mut tick = tokio::time::interval(LOOK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = signals.cancelled() => return Ok(()),
                () = watch.changed() => match self.reload(&nats, &declared_before, workers, screen).await {
                    Ok((now, declaring)) => (applied, declared_before, invalid) = (now, declaring, Vec::new()),
                    Err(findings) => invalid = findings,
                },
                _ = tick.tick() => {}
            }
            let streams = observer.streams(&applied.streams).await;
            let mut board = Board {
                problems: invalid.clone(),
                ..Board::default()
            };
            for binding in &applied.streams {
                if let Some(figures) = streams.get(&binding.stream.to_string()) {
                    board.streams.insert(binding.stream.clone(), *figures);
                }
            }
            for (resource, state) in workers.states() {
                let figures = observer.figures(&resource);
                board.workers.insert(resource, (state, figures));
            }
            board.problems.extend(
                applied
                    .refused
                    .iter()
                    .map(|(resource, why)| format!("{resource} can't run: {why}")),
            );
            board.problems.extend(applied.held.iter().cloned());
            screen.show(board, self.recent.take())?;
        }
    }

    /// What is in force now and the files that declare it, or what is wrong with the changed manifests; nothing was touched then.
    async fn reload(
        &self,
        nats: &Nats,
        declared_before: &BTreeSet<PathBuf>,
        workers: &mut Workers,
        screen: &mut Screen<'_>,
    ) -> std::result::Result<(Applied, BTreeSet<PathBuf>), Vec<String>> {
        let folder = &self.args.folder;
        let goes_on = |reason: String| {
            vec![
                reason,
                "the manifests were not taken over; what ran before goes on".to_owned(),
            ]
        };
        let options = Options {
            run_here: true,
            declared_before: declared_before.clone(),
            ..self.options.clone()
        };
        let manifests = Manifests::load(std::slice::from_ref(folder), &options)
            .map_err(|error| goes_on(error.to_string()))?;
        if manifests.errors() > 0 {
            let errors = manifests
                .findings
                .iter()
                .filter(|finding| finding.severity == Severity::Error);
            let mut lines: Vec<String> = errors.map(ToString::to_string).collect();
            lines.push("the manifests were not taken over; what ran before goes on".to_owned());
            return Err(lines);
        }
        for finding in &manifests.findings {
            let warning = finding.to_string();
            if workers.is_news(&warning)
                && let Err(error) = screen.line(&warning)
            {
                return Err(goes_on(error.to_string()));
            }
        }
        let applied = self.take_over(nats, &manifests, workers, screen).await;
        let applied = applied.map_err(|error| goes_on(error.to_string()))?;
        Ok((applied, manifests.declaring()))
    }

    /// Makes streams and buckets, tells other commands, and lets workers run what they shall.
    async fn take_over(
        &self,
        nats: &Nats,
        manifests: &Manifests,
        workers: &mut Workers,
        screen: &mut Screen<'_>,
    ) -> Result<Applied> {
        let applied = apply(nats, &self.connection, manifests, &self.may_lose).await?;
        let mut dev = DevFile::new(&self.address, &self.namespace(manifests));
        dev.streams.clone_from(&applied.streams);
        dev.resources = applied.contracts.keys().cloned().collect();
        self.state.tell(&dev)?;
        let mut done = applied.done.clone();
        if !self.args.no_workers {
            let mut wanted = applied.contracts.clone();
            for other in replicas::other_than_one(manifests) {
                if other.replicas == 0 {
                    wanted.remove(&other.resource);
                }
                if workers.is_news(&other.warning) {
                    tracing::warn!("{}", other.warning);
                }
            }
            done.extend(workers.become_these(&wanted).await);
        }
        if self.args.plain || !self.context.output.is_terminal() {
            for line in done {
                screen.line(&line)?;
            }
        }
        Ok(applied)
    }

    /// The namespace of resources that are named without one: what was given, else the only one there is.
    fn namespace(&self, manifests: &Manifests) -> String {
        if let Some(given) = self.context.given_namespace() {
            return given.to_owned();
        }
        let namespaces: BTreeSet<&str> = manifests
            .resources
            .iter()
            .map(|declared| declared.namespace.as_str())
            .collect();
        match namespaces.into_iter().collect::<Vec<_>>().as_slice() {
            [only] => (*only).to_owned(),
            _ => tidemill_crds::compile::DEFAULT_NAMESPACE.to_owned(),
        }
    }

    fn first_screen(
        &self,
        manifests: &Manifests,
        applied: &Applied,
        address: &str,
        screen: &mut Screen<'_>,
    ) -> Result<()> {
        let kept = match &self.server {
            Some(version) => format!(
                "nats-server {version}, its store is {}",
                self.state.store().display()
            ),
            None => "not ours, and left as it is at the end".to_owned(),
        };
        screen.line(&format!("NATS: {address} ({kept})"))?;
        screen.line(&format!(
            "{} of {}",
            count(manifests.resources.len() as u64, "resource"),
            self.args.folder.display()
        ))?;
        screen.line("")?;
        screen.line("Next, in another terminal:")?;
        let namespace = self.namespace(manifests);
        let events = events_file(&self.args.folder);
        for command in next_commands(applied, &namespace, events.as_deref()) {
            screen.line(&format!("  {command}"))?;
        }
        Ok(())
    }
}

/// Some time after the signal to stop: what is being made has had its chance.
async fn overdue(signals: &CancellationToken) {
    signals.cancelled().await;
    tokio::time::sleep(FINISH_MAX).await;
}

/// Never, without a server of ours.
async fn ended(server: Option<&mut Server>) -> CliError {
    match server {
        Some(server) => server.ended().await,
        None => std::future::pending().await,
    }
}
