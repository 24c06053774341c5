//! `tidemill completion`.

use crate::args::Cli;
use crate::context::Context;
use crate::error::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill completion bash > ~/.local/share/bash-completion/completions/tidemill
  tidemill completion zsh > ~/.zfunc/_tidemill
  tidemill completion fish > ~/.config/fish/completions/tidemill.fish";

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    pub(crate) shell: Shell,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tidemill", &mut script);
    context
        .output
        .own(String::from_utf8_lossy(&script).trim_end())
}
