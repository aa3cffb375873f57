//! The front door: arguments, runtime, exit code.

use std::process::ExitCode;

use clap::Parser;
use tacho::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return cli::complain(&error, cli::PROBLEM),
    };
    let code = runtime.block_on(cli::run(arguments));
    // What is still running was told to stop, or the person at the keyboard does not want to wait for it.
    runtime.shutdown_background();
    code
}
