//! `tacho setup`: what a sink needs to know of our documents, installed because somebody asked for it.

use clap::{Args, Subcommand};

use super::export::{ExportError, sink};
use crate::config::Config;

#[derive(Args)]
pub(super) struct SetupArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Component and index templates for Elasticsearch or OpenSearch. No lifecycle: examples are in
    /// deploy/elasticsearch.
    Elasticsearch,
}

pub(super) async fn setup(config: &Config, arguments: &SetupArguments) -> Result<String, ExportError> {
    match arguments.what {
        What::Elasticsearch => Ok(sink(config, "elasticsearch")?.set_up().await?.to_string()),
    }
}
