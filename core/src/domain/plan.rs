//! Plans: what an account may use for nothing, and the periods in which the rest of it is counted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::period::{Anchor, Cycle, Schedule, Zone};
use super::time::Timestamp;

/// The plan of an account where no plan says that it is the default: nothing for nothing, calendar months in UTC.
pub const BUILT_IN: &str = "default";

/// A section `[plans.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub name: Arc<str>,
    /// Used up before anything counts in a period, once in the life of an account.
    pub free_requests: u32,
    pub overage: Overage,
    pub terms: Terms,
}

/// What a plan says about periods; with an account's first request it becomes a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    pub cycle: Cycle,
    pub origin: Origin,
    pub zone: Zone,
}

/// Where the periods of an account begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    #[default]
    Calendar,
    /// Of its first request.
    Anniversary,
}

/// What becomes of requests when the free ones are used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overage {
    #[default]
    Allow,
    Deny,
}

/// All plans by name. There is always one called `default`, and always one that a new account gets. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plans {
    by_name: Arc<BTreeMap<Arc<str>, Arc<Plan>>>,
    default: Arc<Plan>,
    configured: bool,
}

impl Terms {
    pub fn schedule(&self, first_request: Timestamp) -> Schedule {
        let anchor = match self.origin {
            Origin::Calendar => Anchor::Calendar,
            Origin::Anniversary => Anchor::Anniversary(first_request),
        };
        Schedule { cycle: self.cycle, anchor, zone: self.zone.clone() }
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self { cycle: Cycle::Month, origin: Origin::Calendar, zone: Zone::UTC }
    }
}

impl Origin {
    pub fn label(self) -> &'static str {
        match self {
            Self::Calendar => "calendar",
            Self::Anniversary => "anniversary",
        }
    }

    /// Reads a label.
    pub fn parse(label: &str) -> Option<Self> {
        [Self::Calendar, Self::Anniversary].into_iter().find(|origin| origin.label() == label)
    }
}

impl Plans {
    pub fn get(&self, name: &str) -> Option<&Arc<Plan>> {
        self.by_name.get(name)
    }

    /// That of a new account.
    pub fn default_plan(&self) -> &Arc<Plan> {
        &self.default
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Plan>> {
        self.by_name.values()
    }

    /// Whether there are any beside the one that is built in.
    pub fn are_configured(&self) -> bool {
        self.configured
    }

    fn of(mut by_name: BTreeMap<Arc<str>, Arc<Plan>>, default: Option<Arc<Plan>>) -> Self {
        let configured = !by_name.is_empty();
        let built_in = || {
            let terms = Terms::default();
            Arc::new(Plan { name: BUILT_IN.into(), free_requests: 0, overage: Overage::Allow, terms })
        };
        let called_default = by_name.entry(BUILT_IN.into()).or_insert_with(built_in).clone();
        Self { by_name: Arc::new(by_name), default: default.unwrap_or(called_default), configured }
    }
}

impl Default for Plans {
    fn default() -> Self {
        Self::of(BTreeMap::new(), None)
    }
}

/// The keys of a section.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PlanKeys {
    default: bool,
    free_requests: u32,
    overage: Overage,
    period: Cycle,
    anchor: Origin,
    timezone: Zone,
}

impl Default for PlanKeys {
    fn default() -> Self {
        let Terms { cycle, origin, zone } = Terms::default();
        Self {
            default: false,
            free_requests: 0,
            overage: Overage::Allow,
            period: cycle,
            anchor: origin,
            timezone: zone,
        }
    }
}

impl<'de> Deserialize<'de> for Plans {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reading::default())
    }
}

/// What was read of the plans so far.
#[derive(Default)]
struct Reading {
    by_name: BTreeMap<Arc<str>, Arc<Plan>>,
    default: Option<Arc<Plan>>,
}

impl<'de> Visitor<'de> for Reading {
    type Value = Plans;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plans by name")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut plans: A) -> Result<Plans, A::Error> {
        while let Some(name) = plans.next_key::<String>()? {
            plans.next_value_seed(Named { name, plans: &mut self })?;
        }
        Ok(Plans::of(self.by_name, self.default))
    }
}

/// Reads one plan. What is wrong with it among the others is found here too, where the error still gets its line.
struct Named<'r> {
    name: String,
    plans: &'r mut Reading,
}

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let keys = PlanKeys::deserialize(deserializer)?;
        let Self { name, plans } = self;
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(D::Error::custom("a plan needs a name of visible characters"));
        }
        if (keys.period, keys.anchor) == (Cycle::Lifetime, Origin::Anniversary) {
            return Err(D::Error::custom("a lifetime has no anniversary"));
        }
        let terms = Terms { cycle: keys.period, origin: keys.anchor, zone: keys.timezone };
        let name: Arc<str> = name.into();
        let plan = Plan { name: name.clone(), free_requests: keys.free_requests, overage: keys.overage, terms };
        let plan = Arc::new(plan);
        if keys.default {
            if let Some(other) = &plans.default {
                let two = format!("`{}` and `{name}` cannot both be the plan of a new account", other.name);
                return Err(D::Error::custom(two));
            }
            plans.default = Some(Arc::clone(&plan));
        }
        plans.by_name.insert(name, plan);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct File {
        plans: Plans,
    }

    fn read(text: &str) -> Result<Plans, String> {
        toml::from_str::<File>(text).map(|file| file.plans).map_err(|error| error.to_string())
    }

    #[test]
    fn there_is_always_a_plan_for_a_new_account() {
        let plans = read("[plans]").unwrap();
        assert_eq!((&plans, plans.are_configured()), (&Plans::default(), false));
        assert_eq!((&*plans.default_plan().name, plans.iter().count()), ("default", 1));
        let plans = read("[plans.pro]\nfree_requests = 3").unwrap();
        assert_eq!((&*plans.default_plan().name, plans.are_configured()), ("default", true));
        assert_eq!(plans.get("pro").unwrap().free_requests, 3);
        let plans = read("[plans.default]\nfree_requests = 3").unwrap();
        assert_eq!(plans.default_plan().free_requests, 3);
        let plans = read("[plans.default]\n[plans.free]\ndefault = true").unwrap();
        assert_eq!((&*plans.default_plan().name, plans.iter().count()), ("free", 2));
    }

    #[test]
    fn a_plan_says_when_its_periods_begin() {
        let text = "[plans.free]\nfree_requests = 5\noverage = \"deny\"\nperiod = \"week\"\nanchor = \"anniversary\"\n\
                    timezone = \"Europe/Berlin\"";
        let plans = read(text).unwrap();
        let plan = plans.get("free").unwrap();
        assert_eq!((plan.free_requests, plan.overage), (5, Overage::Deny));
        let first = Timestamp(7);
        let zone = Zone::parse("Europe/Berlin").unwrap();
        let schedule = Schedule { cycle: Cycle::Week, anchor: Anchor::Anniversary(first), zone };
        assert_eq!(plan.terms.schedule(first), schedule);
        assert_eq!(Terms::default().schedule(first).anchor, Anchor::Calendar);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line, problem) in [
            ("[plans.a]\nfree = 5", 2, "unknown field `free`"),
            ("[plans.a]\ntimezone = \"Berlin\"", 2, "expected the name of a time zone"),
            ("[plans.a]\nperiod = \"fortnight\"", 2, "unknown variant `fortnight`"),
            ("[plans.a]\nfree_requests = -1", 2, "invalid value"),
            ("[plans.a]\noverage = \"charge\"", 2, "unknown variant `charge`"),
            ("[plans.a]\ndefault = true\n[plans.b]\ndefault = true", 3, "`a` and `b` cannot both be the plan"),
            ("[plans.a]\n[plans.b]\nperiod = \"lifetime\"\nanchor = \"anniversary\"", 2, "no anniversary"),
            ("[plans.\"\"]", 1, "visible characters"),
            ("[plans.\"a\\nb\"]", 1, "visible characters"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(&format!("line {line},")) && error.contains(problem), "{text}: {error}");
        }
    }
}
