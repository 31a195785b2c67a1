//! The command line: what it says, and what the process ends with.

mod call_file;
mod document;
mod inspect;
mod progress;
mod run;

use clap::{Args, Parser, Subcommand, ValueEnum};
use hops_k8s::plugin::{EMBEDDED, LoadError, Loader, Plugin};
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

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
  0    the call completed
  1    the call errored; its result is printed all the same
  2    wrong usage, file or configuration
  3    no cluster
  130  interrupted; the pod is deleted first";

/// Where the cluster is, and how much to tell.
#[derive(Args)]
struct Global {
    /// Kubeconfig file [default: KUBECONFIG, ~/.kube/config, then the pod's service account]
    #[arg(long, global = true, value_name = "FILE", env = "HOPS_KUBECONFIG", hide_env = true)]
    kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig [default: its current one]
    #[arg(long, global = true, value_name = "NAME", env = "HOPS_CONTEXT", hide_env = true)]
    context: Option<String>,
    /// Reach pods through the API server, also from inside the cluster
    #[arg(long, global = true, env = "HOPS_PORT_FORWARD", hide_env = true)]
    port_forward: bool,
    /// Tell on standard error what happens
    #[arg(long, global = true, env = "HOPS_DEBUG", hide_env = true)]
    debug: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run the call in a file and print its result
    #[command(after_help = RUN_EXAMPLE)]
    Run(run::Arguments),
    /// Look at plugins
    #[command(subcommand)]
    Plugin(PluginCommand),
}

const RUN_EXAMPLE: &str = r#"Example:
  $ cat hello.hops
  call k8s_run {
    inputs = {
      image   = "bash:5-alpine3.18"
      command = ["bash", "-c", "echo '{\"greeting\": \"Hello world!\"}' > /output/result.json"]
    }
  }
  $ hops run -o body hello.hops
  {"greeting": "Hello world!"}"#;

#[derive(Subcommand)]
enum PluginCommand {
    /// Show what a plugin exports and imports, its handlers and their inputs, its size and hash
    Inspect(inspect::Arguments),
}

/// How a result is printed.
#[derive(Clone, Copy, Default, ValueEnum)]
enum Output {
    /// The whole result document
    #[default]
    Json,
    /// What the result file held, byte for byte
    Body,
}

/// What the process ends with, beside success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Completed = 0,
    Errored = 1,
    Usage = 2,
    Unavailable = 3,
    Interrupted = 130,
}

/// Why a command ends before it has a result.
struct Failure {
    status: Status,
    /// Sentences, a line each.
    message: String,
}

impl Failure {
    fn usage(message: impl fmt::Display) -> Self {
        Failure { status: Status::Usage, message: message.to_string() }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Failure::usage(error)
    }
}

/// Runs the command that the process was started with.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = if cli.global.debug { "hops_k8s=debug,hops=debug,kube=debug" } else { "hops_k8s=warn,hops=warn" };
    tracing_subscriber::fmt().with_env_filter(EnvFilter::new(level)).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("hops: the system gives no threads: {error}");
            return ExitCode::from(Status::Usage as u8);
        }
    };
    let ended = runtime.block_on(async {
        match cli.command {
            Command::Run(arguments) => run::run(&cli.global, &arguments).await,
            Command::Plugin(PluginCommand::Inspect(arguments)) => inspect::inspect(&arguments).await,
        }
    });
    // What is left, such as a log that nobody reads, is not worth waiting for.
    runtime.shutdown_background();
    let status = ended.unwrap_or_else(|failure| {
        for line in failure.message.lines() {
            eprintln!("hops: {line}");
        }
        failure.status
    });
    ExitCode::from(status as u8)
}

/// The plugin of this build, compiled at the first run and taken from the cache afterwards.
fn plugin() -> Result<Plugin, LoadError> {
    loader().load(EMBEDDED)
}

fn loader() -> Loader {
    match directories::BaseDirs::new() {
        Some(dirs) => Loader::default().cache(dirs.cache_dir().join("hops")),
        None => Loader::default(),
    }
}
