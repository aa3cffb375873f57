//! What the server must know of our documents: component and index templates, installed only when somebody asks for it.

use std::fmt;

use serde_json::{Value, json};

use super::ElasticsearchConfig;
use super::client::{Answer, Client};
use crate::export::pace::Hold;

const MAPPINGS: &str = include_str!("../../../deploy/elasticsearch/component-template.json");
const TEMPLATE: &str = include_str!("../../../deploy/elasticsearch/index-template.json");
const LIMITS_MAPPINGS: &str = include_str!("../../../deploy/elasticsearch/limits-component-template.json");
const LIMITS_STREAM: &str = include_str!("../../../deploy/elasticsearch/limits-index-template.json");
const LIMITS_MONTHLY: &str = include_str!("../../../deploy/elasticsearch/limits-index-template-monthly.json");

#[derive(Debug, thiserror::Error)]
pub enum NotInstalled {
    #[error("the server cannot be asked: {0}")]
    Away(String),
    #[error("the server does not take {what}: {said}")]
    Refused { what: String, said: String },
    #[error("the shipped {0} is no JSON")]
    Shipped(&'static str, #[source] serde_json::Error),
}

/// What was installed.
#[derive(Debug, PartialEq, Eq)]
pub struct Installed {
    pub server: String,
    /// A line for each.
    pub parts: Vec<String>,
    /// What the person should know beside.
    pub remarks: Vec<String>,
}

impl From<Hold> for NotInstalled {
    fn from(hold: Hold) -> Self {
        Self::Away(hold.reason().to_owned())
    }
}

pub(super) async fn set_up(client: &Client, config: &ElasticsearchConfig) -> Result<Installed, NotInstalled> {
    let (index, limits) = (&*config.index, &*config.limits_stream);
    let mut installed = Installed { server: server(client).await?, parts: Vec::new(), remarks: Vec::new() };
    let own = format!("{index}-mappings");
    put(client, &mut installed, "component template", &own, parse("mappings", MAPPINGS)?).await?;
    let template = fitted(parse("index template", TEMPLATE)?, &format!("{index}-*"), &own);
    put(client, &mut installed, "index template", index, template).await?;
    let of_limits = format!("{limits}-mappings");
    put(client, &mut installed, "component template", &of_limits, parse("limits mappings", LIMITS_MAPPINGS)?).await?;
    let stream = fitted(parse("limits index template", LIMITS_STREAM)?, limits, &of_limits);
    match put(client, &mut installed, "index template with a data stream", limits, stream).await {
        Err(NotInstalled::Refused { .. }) => {
            let monthly = parse("monthly limits index template", LIMITS_MONTHLY)?;
            let monthly = fitted(monthly, &format!("{limits}-*"), &of_limits);
            let name = format!("{limits}-monthly");
            put(client, &mut installed, "index template", &name, monthly).await?;
            installed.remarks.push(format!("this server knows no data streams: limit events go to {limits}-YYYY.MM"));
        }
        other => other?,
    }
    let older = older_indexes(client, index).await?;
    if !older.is_empty() {
        installed.remarks.push(format!(
            "made before the template, so their mappings are guessed; delete them and run `tacho export elasticsearch --since …`: {}",
            older.join(", ")
        ));
    }
    Ok(installed)
}

async fn server(client: &Client) -> Result<String, NotInstalled> {
    let answer = client.get("/").await?;
    let root: Value =
        serde_json::from_slice(&accepted("the question for its version", answer)?.body).unwrap_or_default();
    let version = root["version"]["number"].as_str().unwrap_or("of an unknown version");
    let name = match root["version"]["distribution"].as_str() {
        Some("opensearch") => "OpenSearch",
        _ => "Elasticsearch",
    };
    Ok(format!("{name} {version}"))
}

/// Indexes whose mappings still grow by themselves, so the template had no part in them.
async fn older_indexes(client: &Client, index: &str) -> Result<Vec<String>, NotInstalled> {
    let answer = client.get(&format!("/{index}-*/_mapping")).await?;
    let all: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let is_older = |mapping: &Value| mapping["mappings"]["dynamic"] != "false";
    let indexes = all.as_object().filter(|_| answer.status == 200).into_iter().flatten();
    Ok(indexes.filter(|(_, mapping)| is_older(mapping)).map(|(name, _)| name.clone()).collect())
}

fn parse(what: &'static str, text: &str) -> Result<Value, NotInstalled> {
    serde_json::from_str(text).map_err(|error| NotInstalled::Shipped(what, error))
}

/// The template under the names that are configured.
fn fitted(mut template: Value, pattern: &str, component: &str) -> Value {
    template["index_patterns"] = json!([pattern]);
    template["composed_of"] = json!([component]);
    template
}

async fn put(
    client: &Client,
    installed: &mut Installed,
    kind: &str,
    name: &str,
    body: Value,
) -> Result<(), NotInstalled> {
    let path = if kind.starts_with("component") { "_component_template" } else { "_index_template" };
    let what = format!("{kind} {name}");
    let answer = client.put(&format!("/{path}/{name}"), body.to_string().into_bytes()).await?;
    accepted(&what, answer)?;
    installed.parts.push(what);
    Ok(())
}

fn accepted(what: &str, answer: Answer) -> Result<Answer, NotInstalled> {
    if (200..300).contains(&answer.status) {
        return Ok(answer);
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let reason = body["error"]["reason"].as_str().unwrap_or_default();
    let said = format!("status {} {reason}", answer.status).trim_end().to_owned();
    Err(NotInstalled::Refused { what: what.to_owned(), said })
}

impl fmt::Display for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.server)?;
        self.parts.iter().try_for_each(|part| write!(f, "\ninstalled {part}"))?;
        self.remarks.iter().try_for_each(|remark| write!(f, "\nnote: {remark}"))
    }
}
