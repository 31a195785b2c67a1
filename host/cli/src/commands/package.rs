//! `hops completions` and `hops man`: files that packages install beside the command.

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use std::io::{self, Write};

/// Which shell.
#[derive(clap::Args)]
pub(crate) struct Completions {
    /// The shell that reads them
    shell: Shell,
}

/// Prints the completions.
pub(crate) fn completions(arguments: &Completions, mut command: Command) {
    let mut script = vec![];
    clap_complete::generate(arguments.shell, &mut command, "hops", &mut script);
    print(&script);
}

/// Prints the manual: a page for the command and one for each subcommand, in one file.
pub(crate) fn man(command: Command) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
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
    // A reader that has seen enough, such as `head`, is not an error.
    let _ = io::stdout().write_all(text);
}
