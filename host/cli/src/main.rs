//! The command `hops`.

mod backend;
mod cli;
mod commands;
mod exit;
mod files;
mod global;
mod interrupt;
mod logging;
mod output;
mod plugins;
mod queue;
mod reload;

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    hops_k8s::pods::process::run_if_helper();
    cli::main()
}
