//! The command line.

use crate::commands::{
    completion, dev, event, lint, orphans, parked, permissions, projection, query, rollout, saga,
};
use crate::output::Format;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use std::ffi::OsStr;
use std::path::Path;

const EXIT_CODES: &str = "\
Examples:
  tidemill dev manifests/
  tidemill lint manifests/*.yaml
  tidemill event publish orders --file events.jsonl
  tidemill saga list --context staging --namespace shop

Where NATS is: --nats, else TIDEMILL_NATS, else .tidemill/dev.json (which `tidemill dev` writes) in this folder or above it, else \
the NATS of Tidemill's chart in the cluster of the kubeconfig, through a forwarded port. With --context or --kubeconfig it is the \
cluster's, whatever runs here.

Exit codes: 0 done; 1 failed, or what was looked at is invalid; 2 the command line is wrong; 3 not found; \
4 NATS, a worker or the cluster can't be reached; 5 refused by the state of things or by permissions.";

/// Event streams, projections and sagas on NATS JetStream, as resources.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, max_term_width = 120, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub(crate) global: Global,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// By this name `kubectl` finds its command `tidemill`.
const PLUGIN: &str = "kubectl-tidemill";

impl Cli {
    /// The command line of this process; wrong ones end it.
    pub(crate) fn of_process() -> Cli {
        let mut words = std::env::args_os();
        let program = words.next().unwrap_or_default();
        if Path::new(&program).file_name() != Some(OsStr::new(PLUGIN)) {
            return Cli::parse();
        }
        let matches = plugin(Cli::command().bin_name("kubectl tidemill")).get_matches();
        Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// The command as its users call it who come by kubectl: help names it so.
fn plugin(command: clap::Command) -> clap::Command {
    let help = command.get_after_help().map(ToString::to_string);
    let command = command.mut_subcommands(plugin);
    match help {
        None => command,
        Some(help) => command.after_help(
            help.replace("  tidemill ", "  kubectl tidemill ")
                .replace("`tidemill ", "`kubectl tidemill "),
        ),
    }
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// How results are written
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub(crate) output: Written,
    /// Address of a NATS server, such as nats://127.0.0.1:4222
    #[arg(
        long,
        global = true,
        env = "TIDEMILL_NATS",
        hide_env_values = true,
        value_name = "URL",
        value_parser = addresses
    )]
    pub(crate) nats: Option<String>,
    /// File with NATS credentials (.creds, or user and password)
    #[arg(
        long,
        global = true,
        env = "TIDEMILL_CREDS",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) creds: Option<String>,
    /// Namespace of the resources [default: that of `tidemill dev`, else that of the context, else default; lists: all]
    #[arg(
        short,
        long,
        global = true,
        env = "TIDEMILL_NAMESPACE",
        hide_env_values = true,
        value_name = "NAME",
        value_parser = namespace
    )]
    pub(crate) namespace: Option<String>,
    /// The kubeconfig [default: as of kubectl: KUBECONFIG, else ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<String>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Namespace where Tidemill's chart is installed [default: it is looked for]
    #[arg(long, global = true, value_name = "NAME", value_parser = namespace)]
    pub(crate) tidemill_namespace: Option<String>,
}

impl Global {
    /// Whether the command line names a cluster.
    pub(crate) fn names_cluster(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }
}

/// What `-o` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Written {
    /// For people.
    #[default]
    Table,
    /// One JSON document; one per line where results come as a stream.
    Json,
    /// One YAML document.
    Yaml,
    /// Configuration of nats-server; of `tidemill permissions` only.
    #[value(hide = true)]
    Nats,
}

impl Written {
    /// The form of a document, which a configuration is none of.
    pub(crate) fn format(self) -> Option<Format> {
        match self {
            Written::Table => Some(Format::Table),
            Written::Json => Some(Format::Json),
            Written::Yaml => Some(Format::Yaml),
            Written::Nats => None,
        }
    }
}

/// The client would take an empty address for one of its own machine.
fn addresses(text: &str) -> Result<String, String> {
    if text.split(',').any(|address| address.trim().is_empty()) {
        return Err("an address is empty; write nats://HOST:4222".to_owned());
    }
    Ok(text.to_owned())
}

fn namespace(text: &str) -> Result<String, String> {
    if !crate::catalog::is_name(text) {
        let rule =
            "names have lower-case letters, digits and `-`, at most 63, and no `-` at an end";
        return Err(rule.to_owned());
    }
    Ok(text.to_owned())
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check manifests
    #[command(after_help = lint::EXAMPLES)]
    Lint(lint::Args),
    /// Run manifests on this machine, without Kubernetes
    #[command(after_help = dev::EXAMPLES)]
    Dev(dev::Args),
    /// Publish and read events
    #[command(subcommand, after_help = event::EXAMPLES)]
    Event(event::Command),
    /// List, show, start and cancel instances of sagas
    #[command(subcommand, after_help = saga::EXAMPLES)]
    Saga(saga::Command),
    /// List and rebuild projections
    #[command(subcommand, after_help = projection::EXAMPLES)]
    Projection(projection::Command),
    /// Show rows of a projection
    #[command(after_help = query::EXAMPLES)]
    Query(query::Args),
    /// List what waits for a decision, and decide
    #[command(subcommand, after_help = parked::EXAMPLES)]
    Parked(parked::Command),
    /// List the NATS permissions that workers and participants need
    #[command(after_help = permissions::EXAMPLES)]
    Permissions(permissions::Args),
    /// On a cluster: move workers to the operator's image
    #[command(after_help = rollout::EXAMPLES)]
    Rollout(rollout::Args),
    /// On a cluster: list and delete what deleted resources left in NATS
    #[command(subcommand, after_help = orphans::EXAMPLES)]
    Orphans(orphans::Command),
    /// Print a completion script for a shell
    #[command(after_help = completion::EXAMPLES)]
    Completion(completion::Args),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command, with the words that lead to it.
    fn commands(command: &clap::Command, words: &str, into: &mut Vec<(String, clap::Command)>) {
        let words = format!("{words} {}", command.get_name()).trim().to_owned();
        for inner in command
            .get_subcommands()
            .filter(|inner| inner.get_name() != "help")
        {
            commands(inner, &words, into);
        }
        into.push((words, command.clone()));
    }

    fn all() -> Vec<(String, clap::Command)> {
        let mut all = Vec::new();
        commands(&Cli::command(), "", &mut all);
        all
    }

    fn examples(command: &clap::Command) -> Vec<String> {
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let begun = help.lines().skip_while(|line| *line != "Examples:").skip(1);
        begun
            .take_while(|line| line.starts_with("  "))
            .map(|line| line.trim().to_owned())
            .collect()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_that_work() {
        let all = all();
        assert!(all.len() > 5, "{}", all.len());
        for (words, command) in &all {
            let examples = examples(command);
            assert!(!examples.is_empty(), "`{words} --help` has no examples");
            for example in examples {
                // What stands before and behind the command in a pipe is another program's.
                let Some(ours) = example
                    .split(" | ")
                    .find(|part| part.starts_with("tidemill "))
                else {
                    panic!("`{example}` runs no tidemill");
                };
                assert!(
                    ours.starts_with(words.as_str()),
                    "`{example}` is an example of another command than `{words}`"
                );
                let ours = ours.split(" > ").next().unwrap_or_default();
                let parsed = Cli::try_parse_from(split(ours));
                assert!(parsed.is_ok(), "`{example}`: {}", parsed.unwrap_err());
            }
        }
    }

    /// The terminal's width decides where lines of text end: two in a row would be broken twice.
    #[test]
    fn texts_of_the_help_are_one_line_a_paragraph() {
        for (words, command) in all() {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let text = |line: &str| !line.is_empty() && !line.starts_with(' ');
            let lines: Vec<&str> = help.lines().collect();
            for pair in lines.windows(2) {
                let broken = text(pair[0]) && text(pair[1]) && !pair[0].ends_with(':');
                assert!(!broken, "{words}: {pair:?}");
            }
        }
    }

    /// What stands in a page as a command: lines that begin so, and code in running text.
    fn documented(page: &str) -> Vec<String> {
        let lines = page.lines().filter(|line| line.starts_with("tidemill "));
        let inline = page.split('`').filter(|code| code.starts_with("tidemill "));
        lines
            .chain(inline)
            .map(|line| {
                line.split(" # ")
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn every_documented_command_is_understood() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut pages = vec![root.join("README.md")];
        for page in std::fs::read_dir(root.join("docs/guide")).unwrap() {
            pages.push(page.unwrap().path());
        }
        let mut understood = 0;
        for page in pages {
            let text = std::fs::read_to_string(&page).unwrap();
            for line in documented(&text) {
                // Only named: `tidemill saga show`, `tidemill dev`.
                let words = split(&line);
                let named = all().iter().any(|(name, _)| *name == line);
                if let Err(error) = Cli::try_parse_from(&words)
                    && !named
                {
                    panic!("{}: `{line}`: {error}", page.display());
                }
                understood += 1;
            }
        }
        assert!(understood > 20, "only {understood} were found");
    }

    #[test]
    fn every_command_and_option_is_explained() {
        for (words, command) in all() {
            assert!(command.get_about().is_some(), "{words}");
            for argument in command
                .get_arguments()
                .filter(|argument| !argument.is_hide_set())
            {
                assert!(
                    argument.get_help().is_some(),
                    "{words}: {}",
                    argument.get_id()
                );
            }
        }
    }

    fn split(line: &str) -> Vec<String> {
        let (mut words, mut quoted) = (vec![String::new()], false);
        for character in line.chars() {
            match character {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                other => words.last_mut().unwrap().push(other),
            }
        }
        words
    }
}
