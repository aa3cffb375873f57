//! The bulk API: reads a body as strictly as the servers do, and writes its items.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::answers::{conflict, done, error, failed, item_error, matches};
use super::faults::{Faults, ItemFault};
use super::product::{Product, Refused};

const MAX_ID_BYTES: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Index,
    Create,
}

impl Action {
    pub fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Create => "create",
        }
    }
}

/// One action with its document.
#[derive(Clone, Debug)]
pub struct Item {
    pub action: Action,
    pub index: String,
    pub id: Option<String>,
    /// Given only where versions are external.
    pub version: Option<u64>,
    /// Null where it is no JSON.
    pub source: Value,
}

/// A document as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub version: u64,
    pub source: Value,
}

/// All documents by index, or stream, and id.
pub(super) type Documents = BTreeMap<String, BTreeMap<String, Document>>;

fn refused(kind: &str, reason: &str) -> Refused {
    Refused { status: 400, body: error(400, kind, reason) }
}

fn illegal(reason: &str) -> Refused {
    refused("illegal_argument_exception", reason)
}

/// All items, or why nothing of the body is done. One bad action spoils the whole body, one bad document only itself.
pub(super) fn parse(product: Product, body: &[u8], path_index: Option<&str>) -> Result<Vec<Item>, Refused> {
    if body.is_empty() {
        return Err(refused("parse_exception", "request body is required"));
    }
    let Some(body) = body.strip_suffix(b"\n") else {
        return Err(illegal("The bulk request must be terminated by a newline [\\n]"));
    };
    let mut lines = body.split(|byte| *byte == b'\n').enumerate();
    let (mut items, mut faults) = (Vec::new(), Vec::new());
    while let Some((number, line)) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let head = Head::parse(product, number + 1, line, path_index)?;
        // The servers leave out a last action without a document.
        let Some((_, source)) = lines.next() else { break };
        faults.extend(head.faults());
        items.push(head.with(serde_json::from_slice(source).unwrap_or(Value::Null)));
    }
    if items.is_empty() {
        faults.push("no requests added".to_owned());
    }
    if faults.is_empty() {
        return Ok(items);
    }
    let numbered = faults.iter().enumerate().map(|(place, fault)| format!(" {}: {fault};", place + 1));
    let reason = format!("Validation Failed:{}", numbered.collect::<String>());
    Err(refused("action_request_validation_exception", &reason))
}

/// A line of action and metadata.
struct Head {
    action: Action,
    index: Option<String>,
    id: Option<String>,
    version: Option<i64>,
    is_external: bool,
}

impl Head {
    fn parse(product: Product, number: usize, line: &[u8], path_index: Option<&str>) -> Result<Self, Refused> {
        let malformed = |found: &str| {
            let reason = "expected one of [create, delete, index, update] but found";
            illegal(&format!("Malformed action/metadata line [{number}], {reason} [{found}]"))
        };
        let line: Value = serde_json::from_slice(line)
            .map_err(|cause| refused("json_parse_exception", &format!("line [{number}]: {cause}")))?;
        let (name, given) = match line.as_object().map(|line| line.iter().collect::<Vec<_>>()).as_deref() {
            Some([(name, Value::Object(given))]) => ((*name).clone(), given.clone()),
            _ => return Err(malformed("no object of one action")),
        };
        let action = match name.as_str() {
            "index" => Action::Index,
            "create" => Action::Create,
            "update" | "delete" => return Err(illegal(&format!("the fake server has no [{name}]"))),
            _ => return Err(malformed(&name)),
        };
        let mut head =
            Self { action, index: path_index.map(str::to_owned), id: None, version: None, is_external: false };
        for (key, value) in given {
            let text = || value.as_str().map(str::to_owned);
            match key.as_str() {
                "_index" => head.index = text(),
                "_id" => head.id = text().or_else(|| value.as_u64().map(|number| number.to_string())),
                "version" => head.version = value.as_i64(),
                "version_type" if value == "external" => head.is_external = true,
                "version_type" => return Err(illegal(&format!("the fake server has no version_type [{value}]"))),
                "routing" | "pipeline" | "require_alias" | "dynamic_templates" => {}
                "_type" if product == Product::Elasticsearch7 => {}
                _ => {
                    let reason = format!("Action/metadata line [{number}] contains an unknown parameter [{key}]");
                    return Err(illegal(&reason));
                }
            }
        }
        Ok(head)
    }

    /// What the servers find before they write anything.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.index.as_deref().is_none_or(str::is_empty) {
            faults.push("index is missing".to_owned());
        }
        match (self.action, self.is_external, self.version) {
            (Action::Create, true, _) => {
                faults.push("create operations only support internal versioning. use index instead".to_owned());
            }
            (Action::Index, true, Some(0..)) if self.id.is_none() => {
                faults.push("an id must be provided if version type or value are set".to_owned());
            }
            (Action::Index, true, None | Some(..0)) => {
                let version = self.version.unwrap_or(-3);
                faults.push(format!("illegal version value [{version}] for version type [EXTERNAL]"));
            }
            (_, false, Some(_)) => faults.push(
                "internal versioning can not be used for optimistic concurrency control. Please use `if_seq_no` and \
                 `if_primary_term` instead"
                    .to_owned(),
            ),
            _ => {}
        }
        let length = self.id.as_ref().map_or(0, String::len);
        if length > MAX_ID_BYTES {
            let id = self.id.as_deref().unwrap_or_default();
            faults
                .push(format!("id [{id}] is too long, must be no longer than {MAX_ID_BYTES} bytes but was: {length}"));
        }
        faults
    }

    fn with(self, source: Value) -> Item {
        let version = self.version.filter(|_| self.is_external).and_then(|version| u64::try_from(version).ok());
        Item { action: self.action, index: self.index.unwrap_or_default(), id: self.id, version, source }
    }
}

/// What items are written to.
#[derive(Default)]
pub(super) struct Store {
    pub documents: Documents,
    /// What went to the failure store.
    pub failures: Vec<Item>,
    /// Index templates by name.
    pub templates: BTreeMap<String, Value>,
    /// Component templates by name.
    pub components: BTreeMap<String, Value>,
    /// Ids that were made up.
    made: u64,
}

impl Store {
    /// The template that would make this name a data stream.
    pub(super) fn stream_template(&self, index: &str) -> Option<&str> {
        let fits = |template: &Value| {
            let patterns = template["index_patterns"].as_array().into_iter().flatten().filter_map(Value::as_str);
            patterns.into_iter().any(|pattern| matches(pattern, index))
        };
        let fitting = self.templates.iter().filter(|(_, template)| fits(template));
        // The one with the highest priority holds.
        let (name, template) = fitting.max_by_key(|(_, template)| template["priority"].as_u64().unwrap_or(0))?;
        template.get("data_stream").map(|_| name.as_str())
    }

    /// What its item in the answer says, and whether it was written.
    pub(super) fn write(&mut self, product: Product, faults: &mut Faults, item: &Item) -> (Value, bool) {
        if let Some(fault) = faults.of_item(item) {
            if fault == ItemFault::FailureStore {
                self.failures.push(item.clone());
            }
            return (failed(product, item, fault), false);
        }
        if let Some(refused) = self.refuse(product, item) {
            return (refused, false);
        }
        let is_stream = self.stream_template(&item.index).is_some();
        let id = item.id.clone().unwrap_or_else(|| {
            self.made += 1;
            format!("made-up-{}", self.made)
        });
        let shown = Item { id: Some(id.clone()), ..item.clone() };
        let shown = if is_stream { Item { index: backing(&item.index), ..shown } } else { shown };
        let index = self.documents.entry(item.index.clone()).or_default();
        let stored = index.get(&id).map(|document| document.version);
        let version = match (item.action, stored, item.version) {
            (Action::Create, Some(stored), _) => {
                let why = format!("document already exists (current version [{stored}])");
                return (conflict(product, &shown, &id, &why), false);
            }
            (Action::Index, Some(stored), Some(given)) if given <= stored => {
                let why = format!("current version [{stored}] is higher or equal to the one provided [{given}]");
                return (conflict(product, &shown, &id, &why), false);
            }
            (Action::Index, _, Some(given)) => given,
            (_, stored, _) => stored.unwrap_or(0) + 1,
        };
        index.insert(id.clone(), Document { version, source: item.source.clone() });
        (done(product, &shown, &id, version, if stored.is_some() { 200 } else { 201 }), true)
    }

    /// What its index, or stream, does not take.
    fn refuse(&self, product: Product, item: &Item) -> Option<Value> {
        let refused =
            |kind: &str, reason: &str| Some(item_error(product, item, 400, json!({"type": kind, "reason": reason})));
        if item.index.to_lowercase() != item.index {
            let reason = format!("Invalid index name [{}], must be lowercase", item.index);
            return refused("invalid_index_name_exception", &reason);
        }
        let is_stream = self.stream_template(&item.index).is_some();
        if is_stream && item.action != Action::Create {
            let reason = "only write ops with an op_type of create are allowed in data streams";
            return refused("illegal_argument_exception", reason);
        }
        if !item.source.is_object() {
            return refused(product.misfit(), "failed to parse");
        }
        if is_stream && item.source.get("@timestamp").is_none() {
            let reason = "documents must contain a single-valued timestamp field '@timestamp' of date type";
            let cause = json!({"type": "illegal_argument_exception", "reason": reason});
            let error = json!({"type": product.misfit(), "reason": "failed to parse", "caused_by": cause});
            return Some(item_error(product, item, 400, error));
        }
        None
    }
}

/// The index in which a stream keeps its documents.
pub(super) fn backing(stream: &str) -> String {
    format!(".ds-{stream}-000001")
}
