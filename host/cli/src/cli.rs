//! The command line: the commands, their help, and how each is started.

use crate::commands::{check, inspect, package, run, start};
use crate::exit::{CommandError, Status};
use crate::files::config::Config;
use crate::global::Global;
use crate::logging;
use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// Run containers as pipeline steps: the Hiphops Kubernetes app.
#[derive(Parser)]
#[command(name = "hops", version, arg_required_else_help = true, after_help = EXIT_STATUS)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_STATUS: &str = "\
Exit status:
  0    all calls completed
  1    a call errored; its result is printed all the same
  2    wrong usage, file or configuration
  3    no cluster, no engine, no queue
  130  interrupted; pods are deleted first";

#[derive(Subcommand)]
enum Command {
    /// Run the calls in a file and print their results
    #[command(after_help = RUN_EXAMPLES)]
    Run(run::Arguments),
    /// Serve a hops installation
    #[command(subcommand)]
    Start(StartCommand),
    /// Check what calls need of the cluster, and say how to fix what is missing
    #[command(after_help = CHECK_STATUS)]
    Check(check::Arguments),
    /// Inspect plugins
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Print completions for a shell
    #[command(after_help = COMPLETIONS_EXAMPLE)]
    Completions(package::Completions),
    /// Print the manual, as hops.1
    #[command(after_help = MAN_EXAMPLE)]
    Man,
}

const RUN_EXAMPLES: &str = "\
Examples:
  hops run hello.hops                        on the cluster of your kubeconfig
  hops run --local hello.hops                without a cluster
  hops run -o body --set tag=1.2 build.hops  with a variable; prints the result file alone
  hops run --batch in.jsonl --out out.jsonl  a call for each line";

const CHECK_STATUS: &str = "\
Checks the kubeconfig, the cluster, each right that calls need, and a pod: it runs
one from the result server's image, reads from it and deletes it. If rights are
missing, it prints the Role that grants them.

Exit status:
  0    calls will work
  1    something is missing
  2    wrong usage
  3    no cluster
  130  interrupted; the pod is deleted first";

const COMPLETIONS_EXAMPLE: &str = "\
Example:
  $ hops completions bash > ~/.local/share/bash-completion/completions/hops";

const MAN_EXAMPLE: &str = "\
Example:
  $ hops man > ~/.local/share/man/man1/hops.1
  $ man hops";

#[derive(Subcommand)]
enum StartCommand {
    /// Run the k8s worker and the HTTP endpoints
    #[command(after_help = SERVER_ENDPOINTS)]
    Server(start::ServerArguments),
    /// Run the k8s worker alone
    Worker(start::WorkerArguments),
}

const SERVER_ENDPOINTS: &str = "\
Endpoints:
  GET  /healthz          200 while the process lives
  GET  /readyz           200 while queue and cluster answer, else 503
  GET  /metrics          for Prometheus
  POST /v1/call/k8s/run  takes inputs as JSON, answers with the result document; with the
                         header Prefer: respond-async it answers at once with a Location
  GET  /v1/call/ID       the result of such a call, for an hour

HOPS_TOKEN or --token-file sets a token. Requests below /v1 then need the header
Authorization: Bearer TOKEN. An address that other machines reach needs a token.

After the first SIGTERM or SIGINT, calls may end; the second ends the process at
once. On SIGHUP, the policy and the plugin are read again for later calls.";

#[derive(Subcommand)]
enum PluginCommand {
    /// Show what a plugin exports and imports, its handlers and their inputs, its size and hash
    Inspect(inspect::Arguments),
}

/// Runs the command that the process was started with.
pub(crate) fn main() -> ExitCode {
    let mut cli = Cli::parse();
    let config = match cli.command {
        // These need no configuration, so an error in it does not concern them.
        Command::Plugin(_) | Command::Completions(_) | Command::Man => Config::default(),
        _ => match cli.global.complete() {
            Ok(config) => config,
            Err(failure) => return end(failure),
        },
    };
    logging::start(&cli.global, matches!(cli.command, Command::Start(_)));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("hops: cannot start threads: {error}");
            return ExitCode::from(Status::Usage as u8);
        }
    };
    let ended = runtime.block_on(async {
        match cli.command {
            Command::Run(arguments) => run::run(&cli.global, &arguments).await,
            Command::Start(StartCommand::Server(arguments)) => start::server(&cli.global, arguments, config).await,
            Command::Start(StartCommand::Worker(arguments)) => start::worker(&cli.global, arguments, config).await,
            Command::Check(arguments) => check::check(&cli.global, &config, &arguments).await,
            Command::Plugin(PluginCommand::Inspect(arguments)) => inspect::inspect(&cli.global, &arguments).await,
            Command::Completions(arguments) => {
                package::completions(&arguments, Cli::command());
                Ok(Status::Completed)
            }
            Command::Man => package::man(Cli::command()).map(|()| Status::Completed).map_err(CommandError::usage),
        }
    });
    // Tasks that are left, such as a log that nobody reads, are not waited for.
    runtime.shutdown_background();
    match ended {
        Ok(status) => ExitCode::from(status as u8),
        Err(failure) => end(failure),
    }
}

fn end(failure: CommandError) -> ExitCode {
    for line in failure.message.lines() {
        eprintln!("hops: {line}");
    }
    ExitCode::from(failure.status as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::fs;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[rstest]
    #[case::file("port-forward: true\ndebug: true", &[], (true, true))]
    #[case::later_layout("k8s: {portforward: true}", &[], (true, false))]
    #[case::flags("", &["--port-forward", "--debug"], (true, true))]
    #[case::flags_beat_the_file("port-forward: true\ndebug: true", &["--port-forward=false", "--debug=no"], (false, false))]
    #[case::flags_beat_the_later_layout("k8s: {portforward: false}", &["--port-forward"], (true, false))]
    fn a_switch_can_be_set_either_way(#[case] text: &str, #[case] flags: &[&str], #[case] expected: (bool, bool)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(&path, text).unwrap();
        let arguments = ["hops", "check", "--config", path.to_str().unwrap()];
        let mut global = Cli::try_parse_from(arguments.iter().chain(flags)).map(|cli| cli.global).unwrap();
        assert!(global.complete().is_ok());
        assert_eq!((global.kube_options().port_forward, global.debug.unwrap_or_default()), expected);
    }
}
