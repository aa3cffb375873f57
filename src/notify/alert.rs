//! What Alertmanager is told of a budget.

use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};

use super::board::Budget;
use tacho_core::domain::money::NanoUsd;
use tacho_core::domain::time::Timestamp;

const NAME: &str = "TachoQuotaUsedUp";
const RUNBOOK: &str = "https://github.com/tacho/tacho/blob/main/docs/runbook.md#tachoquotausedup";

/// How a budget stands, in whole units or nano-dollars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stand {
    pub limit: i64,
    /// By the records.
    pub used: i64,
    /// Set aside for requests that are not recorded yet.
    pub held: i64,
    pub unit: Unit,
    /// Requests over it are refused; otherwise they go on and are only warned.
    pub refuses: bool,
    /// When all of it is there again; `None` for never.
    pub ends: Option<Timestamp>,
}

/// What amounts are given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Usd,
    Whole(&'static str),
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Usd => "USD",
            Self::Whole(name) => name,
        }
    }

    fn show(self, amount: i64) -> String {
        match self {
            Self::Usd => NanoUsd(amount).to_string(),
            Self::Whole(_) => amount.to_string(),
        }
    }
}

/// A notice as it is sent. Its labels say which it is, also to other instances: they make the same of the same budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alert {
    pub budget: Budget,
    pub stand: Stand,
    pub starts: Timestamp,
    /// In the future while it lasts: it ends by itself where nobody says it again.
    pub ends: Timestamp,
}

impl Alert {
    fn summary(&self) -> String {
        format!("Quota {} of {} is used up", self.budget.limit, self.budget.subject)
    }

    fn description(&self) -> String {
        let Stand { limit, used, held, unit, refuses, ends } = &self.stand;
        let [limit, used_text, held_text] = [limit, used, held].map(|amount| unit.show(*amount));
        let held =
            if *held > 0 { format!(", {held_text} more are held for requests under way") } else { String::new() };
        let until = match (refuses, ends) {
            (true, Some(ends)) => format!("Requests that do not fit are refused until {}.", shown(*ends)),
            (true, None) => {
                "Requests that do not fit are refused until the limit is raised: it never resets.".to_owned()
            }
            (false, Some(ends)) => format!("It only warns, so requests go on; it resets at {}.", shown(*ends)),
            (false, None) => "It only warns, so requests go on; it never resets.".to_owned(),
        };
        format!("{} has used {used_text} of {limit} {}{held}. {until}", self.budget.subject, unit.name())
    }
}

/// Whole seconds where it is on one, as periods are.
fn shown(time: Timestamp) -> String {
    time.to_string().replace(".000000Z", "Z")
}

/// As API v2 of Alertmanager takes it.
impl Serialize for Alert {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Stand { limit, used, unit, ends, .. } = &self.stand;
        let labels = [
            ("alertname", NAME),
            ("severity", "critical"),
            ("limit", &self.budget.limit),
            ("subject", &self.budget.subject),
        ];
        let annotations = [
            ("summary", self.summary()),
            ("description", self.description()),
            ("runbook_url", RUNBOOK.to_owned()),
            ("limit_amount", unit.show(*limit)),
            ("used", unit.show(*used)),
            ("unit", unit.name().to_owned()),
            ("reset", ends.map_or_else(|| "never".to_owned(), shown)),
        ];
        let mut alert = serializer.serialize_struct("alert", 4)?;
        alert.serialize_field("labels", &Pairs(&labels))?;
        alert.serialize_field("annotations", &Pairs(&annotations))?;
        alert.serialize_field("startsAt", &self.starts.to_string())?;
        alert.serialize_field("endsAt", &self.ends.to_string())?;
        alert.end()
    }
}

struct Pairs<'a, V>(&'a [(&'static str, V)]);

impl<V: AsRef<str>> Serialize for Pairs<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value.as_ref())?;
        }
        map.end()
    }
}
