//! `hops completions` and `hops man`: what packages install beside the command.

use super::Cli;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::io::{self, Write};

/// Which shell.
#[derive(clap::Args)]
pub(super) struct Completions {
    /// The shell that will read it
    shell: Shell,
}

/// Prints the completions.
pub(super) fn completions(arguments: &Completions) {
    let mut script = vec![];
    clap_complete::generate(arguments.shell, &mut Cli::command(), "hops", &mut script);
    print(&script);
}

/// Prints the manual: a page for the command and one for each subcommand, in one file.
pub(super) fn man() -> io::Result<()> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = vec![];
    page(&command, &mut pages)?;
    print(&pages);
    Ok(())
}

fn page(command: &Command, pages: &mut Vec<u8>) -> io::Result<()> {
    Man::new(command.clone()).render(pages)?;
    command.get_subcommands().try_for_each(|subcommand| page(subcommand, pages))
}

fn print(text: &[u8]) {
    // A reader that has seen enough, such as `head`, is no error.
    let _ = io::stdout().write_all(text);
}
