//! The command line: what it says, and what the process ends with.

mod backend;
mod batch;
mod call_file;
mod check;
mod config;
mod document;
mod inspect;
mod interrupt;
mod key_file;
mod package;
mod policy;
mod progress;
mod queue;
mod reload;
mod run;
mod start;
mod yaml;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use config::Config;
use etcetera::BaseStrategy;
use hops_k8s::plugin::{EMBEDDED, Limits, LoadError, Loader, Plugin};
use hops_k8s::pods::kube::KubeOptions;
use std::borrow::Cow;
use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
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
  0    all calls completed
  1    a call errored; its result is printed all the same
  2    wrong usage, file or configuration
  3    no cluster, no queue
  130  interrupted; pods are deleted first";

/// Where the cluster is, and how much to tell. What neither flags nor environment say is taken from the configuration.
#[derive(Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Configuration file [default: ~/.hops/config.yaml]
    #[arg(short, long, global = true, value_name = "FILE", env = "HOPS_CONFIG", hide_env = true)]
    config: Option<PathBuf>,
    /// Key file of the hops account [default: ~/.hops/hiphops.key]
    #[arg(long, global = true, value_name = "FILE", env = "HOPS_KEYFILE", hide_env = true)]
    keyfile: Option<PathBuf>,
    /// Policy: what calls may ask for
    #[arg(long, global = true, value_name = "FILE", env = "HOPS_POLICY", hide_env = true)]
    policy: Option<PathBuf>,
    /// Plugin [default: the one in this program]
    #[arg(long, global = true, value_name = "FILE", env = "HOPS_PLUGIN", hide_env = true)]
    plugin: Option<PathBuf>,
    /// Kubeconfig [default: KUBECONFIG, ~/.kube/config, service account]
    #[arg(long, global = true, value_name = "FILE", env = "HOPS_KUBECONFIG", hide_env = true)]
    kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig [default: its current one]
    #[arg(long, global = true, value_name = "NAME", env = "HOPS_CONTEXT", hide_env = true)]
    context: Option<String>,
    /// Reach pods through the API server, also from inside the cluster
    #[arg(
        long,
        global = true,
        env = "HOPS_PORT_FORWARD",
        hide_env = true,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        hide_possible_values = true,
    )]
    port_forward: Option<bool>,
    /// Print results and errors only: no progress, no warnings
    #[arg(short, long, global = true, env = "HOPS_QUIET", hide_env = true)]
    quiet: bool,
    /// Tell on standard error what happens
    #[arg(
        long,
        global = true,
        env = "HOPS_DEBUG",
        hide_env = true,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        hide_possible_values = true,
    )]
    debug: Option<bool>,
}

impl Global {
    /// Fills in what the configuration says and nothing else has said, and returns the configuration.
    fn complete(&mut self) -> Result<Config, Failure> {
        let config = Config::load(self.config.as_deref())?;
        self.kubeconfig = self.kubeconfig.take().or_else(|| config.kubeconfig.clone());
        self.policy = self.policy.take().or_else(|| config.policy.clone());
        self.plugin = self.plugin.take().or_else(|| config.plugin.clone());
        self.context = self.context.take().or_else(|| config.context.clone());
        self.port_forward = self.port_forward.or(config.port_forward);
        self.debug = self.debug.or(config.debug);
        Ok(config)
    }

    fn kube_options(&self) -> KubeOptions {
        let mut options = KubeOptions::default();
        options.kubeconfig.clone_from(&self.kubeconfig);
        options.context.clone_from(&self.context);
        options.port_forward = self.port_forward.unwrap_or_default();
        options
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run the calls in a file and print their results
    #[command(after_help = RUN_EXAMPLES)]
    Run(run::Arguments),
    /// Serve a hops installation
    #[command(subcommand)]
    Start(StartCommand),
    /// Check what calls need of the cluster, and say how to mend what is missing
    #[command(after_help = CHECK_STATUS)]
    Check(check::Arguments),
    /// Look at plugins
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
  hops run -o body --set tag=1.2 build.hops  with a variable; print the result alone
  hops run --batch in.jsonl --out out.jsonl  a call for each line";

const CHECK_STATUS: &str = "\
Checks the kubeconfig, the cluster, each right that calls need, and a pod: one is
run from the result server's image, read from and deleted. Where rights are
missing, the Role that grants them is printed.

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
  POST /v1/call/k8s/run  inputs as JSON in, result document out; with the header
                         Prefer: respond-async it answers at once with a Location
  GET  /v1/call/ID       the result of such a call, for an hour

HOPS_TOKEN or --token-file sets the token that requests below /v1 then have to
carry: Authorization: Bearer TOKEN. On other addresses than this machine's own,
there has to be one.

The first SIGTERM or SIGINT lets calls end, the second ends at once. SIGHUP has the
policy and the plugin read again, for the calls that begin afterwards.";

#[derive(Subcommand)]
enum PluginCommand {
    /// Show what a plugin exports and imports, its handlers and their inputs, its size and hash
    Inspect(inspect::Arguments),
}

/// How a result is printed.
#[derive(Clone, Copy, Default, ValueEnum)]
enum Output {
    #[default]
    Json,
    Body,
}

/// What the process ends with, beside success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    Completed = 0,
    Errored = 1,
    Usage = 2,
    Unavailable = 3,
    Interrupted = 130,
}

/// Why a command ends before it has a result.
#[derive(Debug)]
struct Failure {
    status: Status,
    /// Sentences, a line each.
    message: String,
}

impl Failure {
    fn usage(message: impl fmt::Display) -> Self {
        Failure { status: Status::Usage, message: message.to_string() }
    }

    fn unavailable(message: impl fmt::Display) -> Self {
        Failure { status: Status::Unavailable, message: message.to_string() }
    }
}

impl Global {
    /// Says something on standard error that is no error.
    fn tell(&self, what: impl fmt::Display) {
        if !self.quiet {
            eprintln!("hops: {what}");
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Failure::usage(error)
    }
}

/// Runs the command that the process was started with.
pub(crate) fn main() -> ExitCode {
    let mut cli = Cli::parse();
    let config = match cli.command {
        // These need neither the configuration nor what it could say wrongly.
        Command::Plugin(_) | Command::Completions(_) | Command::Man => Config::default(),
        _ => match cli.global.complete() {
            Ok(config) => config,
            Err(failure) => return end(failure),
        },
    };
    tell(&cli.global, matches!(cli.command, Command::Start(_)));
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
            Command::Start(StartCommand::Server(arguments)) => start::server(&cli.global, arguments, config).await,
            Command::Start(StartCommand::Worker(arguments)) => start::worker(&cli.global, arguments, config).await,
            Command::Check(arguments) => check::check(&cli.global, &config, &arguments).await,
            Command::Plugin(PluginCommand::Inspect(arguments)) => inspect::inspect(&cli.global, &arguments).await,
            Command::Completions(arguments) => {
                package::completions(&arguments);
                Ok(Status::Completed)
            }
            Command::Man => package::man().map(|()| Status::Completed).map_err(Failure::usage),
        }
    });
    // What is left, such as a log that nobody reads, is not worth waiting for.
    runtime.shutdown_background();
    match ended {
        Ok(status) => ExitCode::from(status as u8),
        Err(failure) => end(failure),
    }
}

fn end(failure: Failure) -> ExitCode {
    for line in failure.message.lines() {
        eprintln!("hops: {line}");
    }
    ExitCode::from(failure.status as u8)
}

/// Lets the library speak on standard error: of trouble, or as asked of nothing or all that it does. A service tells
/// more, and to anything but a terminal in JSON.
fn tell(global: &Global, is_service: bool) {
    let debug = global.debug.unwrap_or_default() && !global.quiet;
    let level = match (global.quiet, debug, is_service) {
        (true, _, false) => "off",
        (true, _, true) => "error",
        (false, true, _) => "hops_k8s=debug,hops=debug,kube=debug,async_nats=debug",
        (false, false, false) => "hops_k8s=warn,hops=warn",
        (false, false, true) => "hops_k8s=info,hops=info,async_nats=warn",
    };
    let stderr = std::io::stderr();
    let told = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(std::io::stderr)
        .with_ansi(colours(&stderr))
        .with_target(debug);
    match (is_service, debug) {
        (true, _) if !stderr.is_terminal() => told.json().flatten_event(true).with_target(true).init(),
        (true, _) | (_, true) => told.init(),
        (false, false) => told.without_time().init(),
    }
}

/// Whether to write there in colours.
fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The plugin that is asked for, for so many calls at a time.
fn plugin(global: &Global, calls: usize) -> Result<Plugin, Failure> {
    plugin_of(global, &component(global.plugin.as_deref())?, calls)
}

/// The component in this file, or the one in this program.
fn component(path: Option<&Path>) -> Result<Cow<'static, [u8]>, Failure> {
    let Some(path) = path else { return Ok(EMBEDDED.into()) };
    let unreadable = |error| Failure::usage(format!("the plugin {} cannot be read: {error}", path.display()));
    std::fs::read(path).map(Cow::Owned).map_err(unreadable)
}

/// A plugin, compiled at the first run and taken from the cache afterwards.
fn plugin_of(global: &Global, component: &[u8], calls: usize) -> Result<Plugin, Failure> {
    let mut limits = Limits::default();
    limits.calls = u32::try_from(calls).unwrap_or(u32::MAX);
    loader().limits(limits).load(component).map_err(|error| match &global.plugin {
        Some(path) => Failure::usage(format!("{}: {error}; choose another with --plugin", path.display())),
        None => error.into(),
    })
}

fn loader() -> Loader {
    match etcetera::choose_base_strategy() {
        Ok(dirs) => Loader::default().cache(dirs.cache_dir().join("hops")),
        Err(_) => Loader::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
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
    fn a_switch_can_be_turned_either_way(#[case] text: &str, #[case] flags: &[&str], #[case] expected: (bool, bool)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(&path, text).unwrap();
        let arguments = ["hops", "check", "--config", path.to_str().unwrap()];
        let mut global = Cli::try_parse_from(arguments.iter().chain(flags)).map(|cli| cli.global).unwrap();
        assert!(global.complete().is_ok());
        assert_eq!((global.kube_options().port_forward, global.debug.unwrap_or_default()), expected);
    }
}
