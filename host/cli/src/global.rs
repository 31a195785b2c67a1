//! The global options, and the configuration that fills in what they leave out.

use crate::exit::CommandError;
use crate::files::config::Config;
use clap::Args;
use clap::builder::BoolishValueParser;
use hops_k8s::pods::kube::KubeOptions;
use std::fmt;
use std::path::PathBuf;

/// The options that all commands have. The configuration fills in what neither flags nor environment say.
#[derive(Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Configuration file [default: ~/.hops/config.yaml]
    #[arg(short, long, global = true, value_name = "FILE", env = "HOPS_CONFIG", hide_env = true)]
    pub(crate) config: Option<PathBuf>,
    /// Key file of the hops account [default: ~/.hops/hiphops.key]
    #[arg(long, global = true, value_name = "FILE", env = "HOPS_KEYFILE", hide_env = true)]
    pub(crate) keyfile: Option<PathBuf>,
    /// Policy file: what calls may ask for
    #[arg(long, global = true, value_name = "FILE", env = "HOPS_POLICY", hide_env = true)]
    pub(crate) policy: Option<PathBuf>,
    /// Plugin file [default: the plugin in this program]
    #[arg(long, global = true, value_name = "FILE", env = "HOPS_PLUGIN", hide_env = true)]
    pub(crate) plugin: Option<PathBuf>,
    /// Kubeconfig [default: KUBECONFIG, ~/.kube/config, service account]
    #[arg(long, global = true, value_name = "FILE", env = "HOPS_KUBECONFIG", hide_env = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig [default: its current one]
    #[arg(long, global = true, value_name = "NAME", env = "HOPS_CONTEXT", hide_env = true)]
    pub(crate) context: Option<String>,
    /// Read from pods through the API server, even inside the cluster
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
    pub(crate) port_forward: Option<bool>,
    /// Print only results and errors: no progress, no warnings
    #[arg(short, long, global = true, env = "HOPS_QUIET", hide_env = true)]
    pub(crate) quiet: bool,
    /// Log details to standard error
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
    pub(crate) debug: Option<bool>,
}

impl Global {
    /// Fills in from the configuration what neither flags nor environment say, and returns the configuration.
    pub(crate) fn complete(&mut self) -> Result<Config, CommandError> {
        let config = Config::load(self.config.as_deref())?;
        self.kubeconfig = self.kubeconfig.take().or_else(|| config.kubeconfig.clone());
        self.policy = self.policy.take().or_else(|| config.policy.clone());
        self.plugin = self.plugin.take().or_else(|| config.plugin.clone());
        self.context = self.context.take().or_else(|| config.context.clone());
        self.port_forward = self.port_forward.or(config.port_forward);
        self.debug = self.debug.or(config.debug);
        Ok(config)
    }

    pub(crate) fn kube_options(&self) -> KubeOptions {
        let mut options = KubeOptions::default();
        options.kubeconfig.clone_from(&self.kubeconfig);
        options.context.clone_from(&self.context);
        options.port_forward = self.port_forward.unwrap_or_default();
        options
    }

    /// Prints a note on standard error, unless `--quiet` is given.
    pub(crate) fn note(&self, what: impl fmt::Display) {
        if !self.quiet {
            eprintln!("hops: {what}");
        }
    }
}
