//! `tacho completions` and `tacho man`: what a shell and a reader of manual pages get of the command line, made from
//! the command line itself. They read no configuration.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Arguments;

#[derive(Args)]
pub(super) struct CompletionsArguments {
    shell: Shell,
}

#[derive(Args)]
pub(super) struct ManArguments {
    /// Folder for the pages: tacho.1, and one for each verb.
    folder: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("pages cannot be written into {folder}")]
pub(super) struct NotWritten {
    folder: PathBuf,
    source: std::io::Error,
}

/// A script that the shell reads.
pub(super) fn completions(arguments: &CompletionsArguments) -> Result<String, Infallible> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "tacho", &mut script);
    Ok(String::from_utf8_lossy(&script).trim_end().to_owned())
}

/// Writes a page for each verb and says where.
pub(super) fn man(arguments: &ManArguments) -> Result<String, NotWritten> {
    let folder: &Path = &arguments.folder;
    let write = || {
        std::fs::create_dir_all(folder)?;
        clap_mangen::generate_to(Arguments::command(), folder)
    };
    write().map_err(|source| NotWritten { folder: folder.to_owned(), source })?;
    Ok(format!("manual pages are in {}", folder.display()))
}
