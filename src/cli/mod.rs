//! The verbs of the command line. Exit codes: 0 ok, 1 a problem was found, 2 wrong use.

mod accounts;
mod actor;
mod audit;
mod dead_letters;
mod explain;
mod export;
mod healthcheck;
mod limits;
mod manual;
mod prices;
mod rebuild;
mod report;
mod setup;
mod token;
mod verify;

use std::io::Write;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app;
use crate::config::{Config, ConfigError};
use crate::remote::redact;
use crate::rights;
use crate::telemetry;

/// A tachograph for LLM bots: OpenTelemetry spans in, one true usage record per bot request out.
#[derive(Parser)]
#[command(version)]
pub struct Arguments {
    /// Configuration file; `tacho.toml` in this folder is read if it is there.
    #[arg(long, global = true, env = "TACHO_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Take spans and write records (the default).
    Run,
    /// Show what was used.
    Report(report::ReportArguments),
    /// Prove that accounts are the sum of their records and records the sum of their calls.
    Verify(verify::VerifyArguments),
    /// Mend accounts that are not the sum of their records.
    Rebuild(rebuild::RebuildArguments),
    /// What the limits say, and how they stand.
    Limits(limits::LimitsArguments),
    /// Which price a call would get, or why it has none.
    Prices(prices::PricesArguments),
    /// What each span of a trace was taken for, and why.
    Explain(explain::ExplainArguments),
    /// Look at accounts, reset them, put them on another plan.
    Accounts(accounts::AccountsArguments),
    /// How far the sinks are, and sending again.
    Export(export::ExportArguments),
    /// What sinks would never take.
    DeadLetters(dead_letters::DeadLettersArguments),
    /// Install in a sink what it must know of our documents.
    Setup(setup::SetupArguments),
    /// Hand out tokens and take them back.
    Token(token::TokenArguments),
    /// What people did by hand: who, what, before and after.
    Audit(audit::AuditArguments),
    /// Read the configuration and say what is wrong with it.
    CheckConfig,
    /// Ask the Tacho that runs here whether it is ready: exit code 0 if it is, 1 if not.
    Healthcheck,
    /// Print a script that completes commands in a shell.
    Completions(manual::CompletionsArguments),
    /// Write the manual pages.
    #[command(hide = true)]
    Man(manual::ManArguments),
}

impl Verb {
    /// A broken file must not break a shell that starts.
    fn reads_no_config(&self) -> bool {
        matches!(self, Self::Completions(_) | Self::Man(_))
    }
}

/// Exit code of a verb that found or met a problem.
pub const PROBLEM: u8 = 1;
const WRONG_USE: u8 = 2;

/// Runs the verb; whatever goes wrong is said on standard error.
pub async fn run(arguments: Arguments) -> ExitCode {
    telemetry::redact_panics();
    rights::keep_private();
    let path = arguments.config.clone();
    let verb = arguments.verb.unwrap_or(Verb::Run);
    let config = match if verb.reads_no_config() { Ok(Config::default()) } else { load(arguments.config) } {
        Ok(config) => config,
        Err(error) => return complain(&error, WRONG_USE),
    };
    match verb {
        Verb::Run => serve(config, path).await,
        Verb::Report(arguments) => match report::report(&config, &arguments, app::now()).await {
            Ok(text) => {
                say(text.trim_end());
                ExitCode::SUCCESS
            }
            Err(error @ report::ReportError::Time(_)) => complain(&error, WRONG_USE),
            Err(error) => complain(&error, PROBLEM),
        },
        Verb::Verify(arguments) => match verify::verify(&config, &arguments).await {
            Ok(verdict) => {
                say(&verdict.text);
                if verdict.clean { ExitCode::SUCCESS } else { ExitCode::from(PROBLEM) }
            }
            Err(error) => complain(&error, PROBLEM),
        },
        Verb::Rebuild(arguments) => told(rebuild::rebuild(&config, &arguments, app::now()).await),
        Verb::Limits(arguments) => told(limits::limits(&config, &arguments, app::now()).await),
        Verb::Prices(arguments) => priced(prices::prices(&config, &arguments, app::now())),
        Verb::Explain(arguments) => match explain::explain(&config, &arguments, app::now()).await {
            Err(error @ explain::ExplainError::NoId(_)) => complain(&error, WRONG_USE),
            said => told(said),
        },
        Verb::Accounts(arguments) => match accounts::accounts(&config, &arguments, app::now()).await {
            Ok(text) => {
                say(&text);
                ExitCode::SUCCESS
            }
            Err(error @ accounts::AccountsError::NoPlan { .. }) => complain(&error, WRONG_USE),
            Err(error) => complain(&error, PROBLEM),
        },
        Verb::Export(arguments) => answer(export::export(&config, &arguments, app::now()).await),
        Verb::DeadLetters(arguments) => answer(dead_letters::dead_letters(&config, &arguments, app::now()).await),
        Verb::Setup(arguments) => answer(setup::setup(&config, &arguments).await),
        Verb::Token(arguments) => told(token::token(&config, &arguments, app::now()).await),
        Verb::Audit(arguments) => match audit::audit(&config, &arguments, app::now()).await {
            Ok(text) => {
                say(&text);
                ExitCode::SUCCESS
            }
            Err(error @ audit::AuditError::Time(_)) => complain(&error, WRONG_USE),
            Err(error) => complain(&error, PROBLEM),
        },
        Verb::CheckConfig => match app::check(&config) {
            Ok(()) => {
                say(&format!("configuration is valid; database {}", kind(&config)));
                ExitCode::SUCCESS
            }
            Err(error) => complain(&error, WRONG_USE),
        },
        Verb::Healthcheck => told(healthcheck::healthcheck(&config).await),
        Verb::Completions(arguments) => told(manual::completions(&arguments)),
        Verb::Man(arguments) => told(manual::man(&arguments)),
    }
}

/// What is said of a price; to have none is a problem.
fn priced(said: Result<prices::Shown, prices::PricesError>) -> ExitCode {
    match said {
        Ok(shown) => {
            say(&shown.text);
            if shown.is_priced { ExitCode::SUCCESS } else { ExitCode::from(PROBLEM) }
        }
        Err(error @ prices::PricesError::Json(_)) => complain(&error, PROBLEM),
        Err(error) => complain(&error, WRONG_USE),
    }
}

/// What a verb has to say, whose only fault is a problem.
fn told(said: Result<String, impl std::error::Error>) -> ExitCode {
    match said {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => complain(&error, PROBLEM),
    }
}

/// What a verb of the sinks has to say.
fn answer(said: Result<String, export::ExportError>) -> ExitCode {
    match said {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(error @ (export::ExportError::Time(_) | export::ExportError::NotConfigured(_))) => {
            complain(&error, WRONG_USE)
        }
        Err(error) => complain(&error, PROBLEM),
    }
}

fn load(path: Option<PathBuf>) -> Result<Config, ConfigError> {
    let in_this_folder = PathBuf::from("tacho.toml");
    let path = path.or_else(|| in_this_folder.exists().then_some(in_this_folder));
    Config::load(path.as_deref(), std::env::vars_os())
}

async fn serve(config: Config, path: Option<PathBuf>) -> ExitCode {
    let filter = match telemetry::start(&config.telemetry) {
        Ok(filter) => filter,
        Err(problem) => {
            say_error(&problem);
            return ExitCode::from(WRONG_USE);
        }
    };
    if !config.passed_over.is_empty() {
        let variables = config.passed_over.join(" ");
        tracing::info!(variables, "these are no settings of Tacho: Kubernetes or a client's configuration made them");
    }
    raise_file_limit();
    let caught = |kind| signal(kind);
    let (Ok(mut term), Ok(mut interrupt), Ok(mut hangup)) =
        (caught(SignalKind::terminate()), caught(SignalKind::interrupt()), caught(SignalKind::hangup()))
    else {
        say_error("signals cannot be caught");
        return ExitCode::from(PROBLEM);
    };
    let stop = CancellationToken::new();
    // One that waits is enough: it reads the file as it is then.
    let (reload, reloads) = mpsc::channel(1);
    let orders = app::Orders { stop: stop.clone().cancelled_owned(), reloads, filter: Some(filter) };
    let mut running = pin!(app::run(config, orders));
    loop {
        let ended = tokio::select! {
            ended = &mut running => Some(ended),
            _ = term.recv() => None,
            _ = interrupt.recv() => None,
            _ = hangup.recv() => {
                let again = load(path.clone()).map_err(|error| error.to_string());
                drop(reload.try_send(again));
                continue;
            }
        };
        match ended {
            Some(Ok(())) => return ExitCode::SUCCESS,
            Some(Err(error)) => return complain(&error, PROBLEM),
            None if stop.is_cancelled() => {
                tracing::warn!("second signal: leaving at once; what is not in the database is in the journal");
                return ExitCode::SUCCESS;
            }
            None => stop.cancel(),
        }
    }
}

/// As many files and connections as the system lets us have: what shells give by default is for programs that wait in
/// `select`.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        tracing::debug!(%error, "limit of open files not raised");
    }
}

fn kind(config: &Config) -> &'static str {
    if config.database().is_sqlite() { "sqlite" } else { "postgres" }
}

pub fn complain(error: &dyn std::error::Error, code: u8) -> ExitCode {
    say_error(&telemetry::chain(error));
    ExitCode::from(code)
}

/// What a person asked for. Who has read enough closes the pipe, as `head` does.
fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

#[expect(clippy::print_stderr, reason = "what a person must know")]
fn say_error(text: &str) {
    eprintln!("tacho: {}", redact(text));
}
