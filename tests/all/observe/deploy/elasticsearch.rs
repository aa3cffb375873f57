//! The files for Elasticsearch and OpenSearch agree with each other: what is composed exists, saved objects find what they refer to, and
//! every field that they or the README name is in the mappings. That servers take them is tried with real ones, by hand.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::read;

const FOLDER: &str = "deploy/elasticsearch";
const SAVED_OBJECTS: [&str; 2] = ["kibana.ndjson", "opensearch-dashboards.ndjson"];

fn file(name: &str) -> Value {
    serde_json::from_str(&read(format!("{FOLDER}/{name}"))).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Whole names with their types, as `tacho.calls.model`: `keyword`.
fn fields(properties: &Value, below: &str, into: &mut BTreeMap<String, String>) {
    for (name, field) in properties.as_object().unwrap() {
        let name = format!("{below}{name}");
        match field.get("properties") {
            Some(inner) => fields(inner, &format!("{name}."), into),
            None => drop(into.insert(name, field["type"].as_str().unwrap().to_owned())),
        }
    }
}

fn mapped(component: &str) -> BTreeMap<String, String> {
    let mappings = file(component)["template"]["mappings"].take();
    assert_eq!(mappings["dynamic"], false, "{component}: what is not listed is not indexed");
    let mut found = BTreeMap::new();
    fields(&mappings["properties"], "", &mut found);
    found
}

/// JSON in a text, as saved objects hold most of what they say.
fn unpacked(text: &Value) -> Value {
    serde_json::from_str(text.as_str().unwrap()).unwrap()
}

fn saved_objects(name: &str) -> Vec<Value> {
    let text = read(format!("{FOLDER}/{name}"));
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}"))).collect()
}

/// The fields that a saved object asks for.
fn fields_asked(object: &Value) -> Vec<String> {
    let attributes = &object["attributes"];
    let owned = |value: &Value| value.as_str().unwrap().to_owned();
    match object["type"].as_str().unwrap() {
        "index-pattern" => {
            let formats = unpacked(&attributes["fieldFormatMap"]);
            let formatted = formats.as_object().unwrap().keys().cloned();
            formatted.chain([owned(&attributes["timeFieldName"])]).collect()
        }
        "visualization" => {
            let state = unpacked(&attributes["visState"]);
            state["aggs"].as_array().unwrap().iter().map(|agg| owned(&agg["params"]["field"])).collect()
        }
        "search" => {
            let columns = attributes["columns"].as_array().unwrap().iter().map(owned);
            let sorted = attributes["sort"].as_array().unwrap().iter().map(|sort| owned(&sort[0]));
            columns.chain(sorted).chain(["tacho.state".to_owned()]).collect()
        }
        "dashboard" => Vec::new(),
        other => panic!("{other}: say which fields it names"),
    }
}

/// The names under which an object's texts expect its references.
fn references_expected(object: &Value) -> BTreeSet<String> {
    let attributes = &object["attributes"];
    let mut names = BTreeSet::new();
    if let Some(search) = attributes["kibanaSavedObjectMeta"].get("searchSourceJSON") {
        names.extend(unpacked(search)["indexRefName"].as_str().map(str::to_owned));
    }
    if attributes.get("panelsJSON").is_some() {
        let panels = unpacked(&attributes["panelsJSON"]);
        names.extend(panels.as_array().unwrap().iter().map(|panel| panel["panelRefName"].as_str().unwrap().to_owned()));
    }
    names
}

#[test]
fn templates_are_composed_of_mappings_that_exist_and_share_no_name() {
    let composed = ["index-template.json", "limits-index-template.json", "limits-index-template-monthly.json"];
    let component = ["tacho-usage-mappings", "tacho-limits-mappings", "tacho-limits-mappings"];
    let pattern = ["tacho-usage-*", "tacho-limits", "tacho-limits-*"];
    for ((name, component), pattern) in composed.into_iter().zip(component).zip(pattern) {
        let template = file(name);
        assert_eq!(template["composed_of"], serde_json::json!([component]), "{name}");
        assert_eq!(template["index_patterns"], serde_json::json!([pattern]), "{name}");
        // Neither shards nor a lifecycle: some servers refuse them, and they are the operator's.
        assert!(template.get("template").is_none(), "{name}");
        assert_eq!(template.get("data_stream").is_some(), name == "limits-index-template.json", "{name}");
    }
    for component in ["component-template.json", "limits-component-template.json"] {
        assert!(file(component)["template"].get("settings").is_none(), "{component}");
        assert!(!mapped(component).is_empty());
    }
}

#[test]
fn policies_know_the_states_that_they_name() {
    let policy = &file("ism.json")["policy"];
    let states: BTreeSet<&str> =
        policy["states"].as_array().unwrap().iter().map(|state| state["name"].as_str().unwrap()).collect();
    assert!(states.contains(policy["default_state"].as_str().unwrap()));
    for state in policy["states"].as_array().unwrap() {
        for transition in state["transitions"].as_array().unwrap() {
            assert!(states.contains(transition["state_name"].as_str().unwrap()), "{transition}");
        }
    }
    let kept = &policy["states"][0]["transitions"][0]["conditions"]["min_index_age"];
    assert_eq!(&file("ilm.json")["policy"]["phases"]["delete"]["min_age"], kept, "both keep usage equally long");
    assert_eq!(policy["ism_template"][0]["index_patterns"], file("index-template.json")["index_patterns"]);
}

#[test]
fn saved_objects_refer_to_each_other_and_to_fields_that_exist() {
    let mapped = mapped("component-template.json");
    for name in SAVED_OBJECTS {
        let objects = saved_objects(name);
        let known: BTreeSet<(&str, &str)> =
            objects.iter().map(|object| (object["type"].as_str().unwrap(), object["id"].as_str().unwrap())).collect();
        assert_eq!(known.len(), objects.len(), "{name}: two objects with one id");
        for object in &objects {
            let id = &object["id"];
            let references = object["references"].as_array().unwrap();
            for to in references {
                let to = (to["type"].as_str().unwrap(), to["id"].as_str().unwrap());
                assert!(known.contains(&to), "{name}: {id} refers to {to:?}");
            }
            let named: BTreeSet<String> =
                references.iter().map(|reference| reference["name"].as_str().unwrap().to_owned()).collect();
            assert_eq!(named, references_expected(object), "{name}: {id}");
            for field in fields_asked(object) {
                assert!(mapped.contains_key(&field), "{name}: {id} names {field}");
            }
        }
        let pattern = objects.iter().find(|object| object["type"] == "index-pattern").unwrap();
        assert_eq!(pattern["attributes"]["title"], file("index-template.json")["index_patterns"][0], "{name}");
    }
}

/// Kibana and Dashboards differ in few words, so the two files say the same otherwise.
#[test]
fn both_files_of_saved_objects_show_the_same() {
    let [kibana, dashboards] = SAVED_OBJECTS.map(|name| read(format!("{FOLDER}/{name}")));
    let as_kibana = dashboards
        .replace("useNormalizedOpenSearchInterval", "useNormalizedEsInterval")
        .replace(r#"\"version\":\"2.0.0\""#, r#"\"version\":\"7.10.0\""#);
    assert_eq!(kibana, as_kibana);
}

#[test]
fn the_readme_names_each_file_and_only_fields_that_exist() {
    let text = read(format!("{FOLDER}/README.md"));
    for entry in std::fs::read_dir(super::root().join(FOLDER)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || text.contains(&format!("`{name}`")), "the README does not name {name}");
    }
    let mut mapped: BTreeSet<String> = mapped("component-template.json").into_keys().collect();
    // An object, named as a whole.
    mapped.insert("tacho.calls".to_owned());
    let (_, asking) = text.split_once("## Asking").unwrap();
    let words = asking.split(|letter: char| !(letter.is_ascii_alphanumeric() || "._@".contains(letter)));
    for field in words.map(|word| word.trim_end_matches('.')).filter(|word| word.starts_with("tacho.")) {
        assert!(mapped.contains(field), "the README names {field}");
    }
}
