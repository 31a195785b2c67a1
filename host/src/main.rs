//! The command `hops`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    hops_k8s::pods::process::run_if_helper();
    cli::main()
}
