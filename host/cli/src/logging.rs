//! The log of the library and the command, on standard error.

use crate::global::Global;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts the log: warnings, nothing with `--quiet`, everything with `--debug`. A service logs more, and in JSON unless
/// standard error is a terminal.
pub(crate) fn start(global: &Global, is_service: bool) {
    let debug = global.debug.unwrap_or_default() && !global.quiet;
    let level = match (global.quiet, debug, is_service) {
        (true, _, false) => "off",
        (true, _, true) => "error",
        (false, true, _) => "hops_k8s=debug,hops=debug,kube=debug,async_nats=debug",
        (false, false, false) => "hops_k8s=warn,hops=warn",
        (false, false, true) => "hops_k8s=info,hops=info,async_nats=warn",
    };
    let stderr = std::io::stderr();
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(std::io::stderr)
        .with_ansi(colours(&stderr))
        .with_target(debug);
    match (is_service, debug) {
        (true, _) if !stderr.is_terminal() => log.json().flatten_event(true).with_target(true).init(),
        (true, _) | (_, true) => log.init(),
        (false, false) => log.without_time().init(),
    }
}

/// Whether to write to this stream in colours.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
