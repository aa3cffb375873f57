//! The price list: read from text, joined with an operator's own, searched by name. It opens no file.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::charge::PriceLine;
use super::hosts::Hosts;
use super::matcher::{Clause, FirstMatch, lower, with_long_dates};
use super::names::{Led, led};
use crate::domain::hash::stable;

/// Everything that can be priced. Providers keep their place, so that a place can stand for a provider.
#[derive(Debug, Default)]
pub struct PriceBook {
    pub(super) providers: Vec<Provider>,
    /// Folded id or other name → place of the provider.
    names: FxHashMap<String, usize>,
    /// Folded starts of names that are not cut at their first dot.
    whole_names: Vec<String>,
    /// Folded names of providers that exist, but not in this list.
    elsewhere: FxHashSet<String>,
    pub(super) hosts: Hosts,
}

#[derive(Debug)]
pub(super) struct Provider {
    pub id: Box<str>,
    /// Its place in the list.
    place: usize,
    /// Models that are this provider's when a call names no provider.
    model_match: Option<Clause>,
    /// Places of the providers whose models this one sells too, at their prices.
    fallback: Vec<usize>,
    models: Vec<Model>,
    index: FirstMatch,
}

#[derive(Debug)]
pub(super) struct Model {
    pub id: Box<str>,
    pub edition: Edition,
    matcher: Clause,
    pub prices: Vec<PriceLine>,
    pub variants: Vec<PriceLine>,
}

/// The list that an entry is from.
#[derive(Debug, Clone)]
pub(super) struct Edition {
    /// The name of the list, and the start of a hash of its content.
    pub version: Arc<str>,
    /// It is the operator's own.
    pub is_own: bool,
}

/// What a name of a provider says.
pub(super) enum Named<'b> {
    Provider(&'b Provider),
    /// It is one that this list does not have, whose models are not for others to price.
    Elsewhere,
    /// Nothing: there is none, or it is that of a framework.
    Nobody,
}

/// Why an operator's price list was refused. Nothing of it is in force then.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
    #[error("{origin}, line {line}, column {column}: {problem}")]
    Malformed { origin: String, line: usize, column: usize, problem: String },
    #[error("{origin}: {problem}")]
    Inconsistent { origin: String, problem: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileBook {
    source: Option<String>,
    version: Option<String>,
    #[serde(rename = "licence")]
    _licence: Option<IgnoredAny>,
    #[serde(rename = "unit")]
    _unit: Option<IgnoredAny>,
    #[serde(default)]
    whole_names: Vec<String>,
    #[serde(default)]
    elsewhere: Vec<String>,
    providers: Vec<FileProvider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileProvider {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    hosts: Vec<String>,
    model_match: Option<Clause>,
    fallback: Option<Vec<String>>,
    #[serde(default)]
    models: Vec<FileModel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileModel {
    id: Box<str>,
    /// Without it: the id itself, or what the model of this id had before.
    #[serde(rename = "match")]
    matcher: Option<Clause>,
    prices: Vec<PriceLine>,
    #[serde(default)]
    variants: Vec<PriceLine>,
}

impl PriceBook {
    /// The price list that this program came with.
    pub fn shipped() -> Self {
        let text = include_str!("../../../prices/prices.json");
        let file: FileBook = serde_json::from_str(text).expect("the list is part of this program, and a test reads it");
        let name = [file.source.as_deref(), file.version.as_deref()].map(Option::unwrap_or_default).join(" ");
        let edition = Edition { version: version(&name, text), is_own: false };
        Self::default().joined(file, &edition).expect("the list is part of this program, and a test reads it")
    }

    /// This list with an operator's own entries in front of its own. `origin` is where the text came from: it stands in
    /// errors and in the price version of every call that is charged by an entry of it.
    pub fn with_override(self, text: &str, origin: &str) -> Result<Self, OverrideError> {
        let file: FileBook = serde_json::from_str(text).map_err(|error| malformed(&error, origin))?;
        let edition = Edition { version: version(&format!("override:{origin}"), text), is_own: true };
        self.joined(file, &edition)
            .map_err(|problem| OverrideError::Inconsistent { origin: origin.to_owned(), problem })
    }

    fn joined(mut self, file: FileBook, edition: &Edition) -> Result<Self, String> {
        self.whole_names.extend(file.whole_names.iter().map(|start| folded(start)));
        self.elsewhere.extend(file.elsewhere.iter().map(|name| folded(name)));
        let mut fallbacks = Vec::new();
        let mut seen = FxHashSet::default();
        for provider in file.providers {
            let place = self.place_for(&provider.id);
            if !seen.insert(place) {
                return Err(format!("provider `{}` stands there twice", provider.id));
            }
            self.names.extend(provider.names.iter().map(|name| (folded(name), place)));
            provider.hosts.iter().try_for_each(|host| self.hosts.add(host, place))?;
            let target = &mut self.providers[place];
            target.model_match = provider.model_match.or(target.model_match.take());
            target.join_models(provider.models, edition)?;
            fallbacks.extend(provider.fallback.map(|ids| (place, ids)));
        }
        // Last, since a provider may fall back on one that comes after it.
        for (place, ids) in fallbacks {
            let places = ids.iter().map(|id| {
                let found = self.names.get(&folded(id)).copied();
                found.ok_or_else(|| format!("`{}` falls back on an unknown provider `{id}`", self.providers[place].id))
            });
            self.providers[place].fallback = places.collect::<Result<_, _>>()?;
        }
        Ok(self)
    }

    /// The place of the provider with this id or other name; a new one at the end if there is none.
    fn place_for(&mut self, id: &str) -> usize {
        if let Some(place) = self.names.get(&folded(id)) {
            return *place;
        }
        let place = self.providers.len();
        self.providers.push(Provider {
            id: id.into(),
            place,
            model_match: None,
            fallback: Vec::new(),
            models: Vec::new(),
            index: FirstMatch::default(),
        });
        self.names.insert(folded(id), place);
        place
    }

    /// The provider that a span means by this name: the whole name, else the part before its first dot.
    pub(super) fn named(&self, name: Option<&str>) -> Named<'_> {
        let Some(name) = name.map(folded) else { return Named::Nobody };
        let start = name.split_once('.').map(|(start, _)| start);
        let whole = self.whole_names.iter().any(|whole| name.starts_with(whole));
        let cut = || start.filter(|_| !whole).and_then(|start| self.names.get(start));
        match self.names.get(&name).or_else(cut) {
            Some(place) => Named::Provider(&self.providers[*place]),
            None if whole || [Some(&*name), start].iter().flatten().any(|name| self.elsewhere.contains(*name)) => {
                Named::Elsewhere
            }
            None => Named::Nobody,
        }
    }

    /// The provider that leads a model's name: `openrouter/openai/gpt-4o` is OpenRouter's.
    pub(super) fn leading(&self, model: &str) -> Option<Named<'_>> {
        let lead = folded(led(model)?.lead?);
        match self.names.get(&lead) {
            Some(place) => Some(Named::Provider(&self.providers[*place])),
            None => self.elsewhere.contains(&lead).then_some(Named::Elsewhere),
        }
    }

    /// The provider that this model is known to come from, for a call that names none.
    pub(super) fn maker(&self, model: &str) -> Option<&Provider> {
        let model = match led(model) {
            Some(Led { lead: None, model }) => model,
            _ => model,
        };
        let model = lower(model);
        self.providers.iter().find(|provider| provider.model_match.as_ref().is_some_and(|clause| clause.holds(&model)))
    }

    /// The model that a provider means by this name, and whether it is the provider's own (not a fallback's). What leads the
    /// name is left out where the provider does not know it and it tells no other seller.
    pub(super) fn model<'a>(&'a self, provider: &'a Provider, name: &str) -> Option<(&'a Model, bool)> {
        let name = lower(name);
        let dated = || self.model_as_written(provider, &with_long_dates(&name)?);
        let found = self.model_as_written(provider, &name).or_else(dated);
        found.or_else(|| self.model(provider, self.without_lead(provider, &name)?))
    }

    /// A lead says nothing new that is the path of an API, the provider itself, or whoever made the model.
    fn without_lead<'n>(&self, provider: &Provider, name: &'n str) -> Option<&'n str> {
        let led = led(name)?;
        let says_nothing = led.lead.is_none_or(|lead| {
            let lead = self.names.get(&folded(lead));
            let maker = || self.maker(led.model).map(|maker| maker.place);
            lead.is_some_and(|lead| {
                *lead == provider.place || provider.fallback.contains(lead) || maker() == Some(*lead)
            })
        });
        says_nothing.then_some(led.model)
    }

    fn model_as_written<'a>(&'a self, provider: &'a Provider, name: &str) -> Option<(&'a Model, bool)> {
        let own = provider.own_model(name).map(|model| (model, true));
        // One step only: a fallback's fallback sells nothing here.
        let lent = || provider.fallback.iter().find_map(|place| self.providers[*place].own_model(name));
        own.or_else(|| lent().map(|model| (model, false)))
    }
}

impl Provider {
    fn join_models(&mut self, files: Vec<FileModel>, edition: &Edition) -> Result<(), String> {
        let old_places: FxHashMap<Box<str>, usize> =
            self.models.iter().enumerate().map(|(place, model)| (model.id.clone(), place)).collect();
        let mut front = Vec::new();
        let mut old: Vec<Option<Model>> = std::mem::take(&mut self.models).into_iter().map(Some).collect();
        let mut seen = FxHashSet::default();
        for file in files {
            if !seen.insert(file.id.clone()) {
                return Err(format!("model `{}` of `{}` stands there twice", file.id, self.id));
            }
            let place = old_places.get(&file.id).copied();
            let keeps_place = file.matcher.is_none();
            let replaced = place.and_then(|place| old[place].take());
            let model = file.into_model(replaced.map(|model| model.matcher), edition, &self.id)?;
            match place {
                Some(place) if keeps_place => old[place] = Some(model),
                _ => front.push(model),
            }
        }
        self.models = front.into_iter().chain(old.into_iter().flatten()).collect();
        self.index = FirstMatch::new(self.models.iter().map(|model| &model.matcher));
        Ok(())
    }

    fn own_model(&self, name: &str) -> Option<&Model> {
        let place = self.index.find(name, |place| &self.models[place].matcher)?;
        self.models.get(place)
    }
}

impl FileModel {
    fn into_model(self, inherited: Option<Clause>, edition: &Edition, provider: &str) -> Result<Model, String> {
        if self.prices.iter().any(|line| line.service_tier.is_some()) {
            return Err(format!("model `{}` of `{provider}`: a service tier belongs in `variants`", self.id));
        }
        if self.variants.iter().any(|line| line.service_tier.is_none()) {
            return Err(format!("model `{}` of `{provider}`: a variant needs a service tier", self.id));
        }
        let matcher = self.matcher.or(inherited).unwrap_or_else(|| Clause::equals(&self.id));
        Ok(Model { id: self.id, edition: edition.clone(), matcher, prices: self.prices, variants: self.variants })
    }
}

/// A name that stays the same as long as the text does.
fn version(name: &str, text: &str) -> Arc<str> {
    format!("{name}+{:08x}", stable(text.as_bytes()) >> 32).into()
}

/// Case, spaces, `-` and `_` do not count in a provider's name.
fn folded(name: &str) -> String {
    let kept = name.chars().filter(|char| !char.is_whitespace() && !['-', '_'].contains(char));
    kept.flat_map(char::to_lowercase).collect()
}

fn malformed(error: &serde_json::Error, origin: &str) -> OverrideError {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let problem = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
    OverrideError::Malformed { origin: origin.to_owned(), line, column, problem: problem.to_owned() }
}
