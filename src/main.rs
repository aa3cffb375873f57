//! The front door: arguments, runtime, exit code.

use std::process::ExitCode;

use clap::Parser;
use tacho::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(cli::Arguments::parse()).await
}
