//! Which provider a host belongs to. It resolves no names: a host is what a span says.

use std::net::IpAddr;

use rustc_hash::FxHashMap;

use super::matcher::lower;

/// Hosts of all providers. What is added later goes before what was there.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// Host → place of its provider.
    whole: FxHashMap<Box<str>, usize>,
    /// Patterns with `*`, the latest last.
    patterns: Vec<(Box<str>, usize)>,
}

/// What the host of a call says about its provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// It is that of the provider at this place.
    Provider(usize),
    /// Nothing: there is none, or it is this machine, where a proxy or a test answers.
    Untold,
    /// Nobody knows this host.
    Nobody,
}

impl Hosts {
    /// `pattern` is a host, in which `*` stands for any text that is not empty. An error says what else it is.
    pub(super) fn add(&mut self, pattern: &str, provider: usize) -> Result<(), String> {
        let is_address = pattern.parse::<IpAddr>().is_ok();
        if pattern.is_empty()
            || pattern.contains(|char: char| char.is_whitespace() || ":/[]".contains(char) && !is_address)
        {
            return Err(format!("`{pattern}` is no host: it is written without scheme, port and path"));
        }
        let pattern: Box<str> = lower(pattern).into();
        if pattern.contains('*') {
            self.patterns.push((pattern, provider));
        } else {
            self.whole.insert(pattern, provider);
        }
        Ok(())
    }

    pub(super) fn owner(&self, host: Option<&str>) -> Owner {
        let Some(host) = host.map(|host| host.trim().trim_end_matches('.')).filter(|host| !host.is_empty()) else {
            return Owner::Untold;
        };
        let host = lower(host);
        if let Some(place) = self.whole.get(&*host) {
            return Owner::Provider(*place);
        }
        if is_loopback(&host) {
            return Owner::Untold;
        }
        let by_pattern = self.patterns.iter().rev().find(|(pattern, _)| fits(pattern, &host));
        by_pattern.map_or(Owner::Nobody, |(_, place)| Owner::Provider(*place))
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => bare == "localhost" || bare.ends_with(".localhost"),
    }
}

fn fits(pattern: &str, host: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == host };
    let Some(tail) = host.strip_prefix(start) else { return false };
    if !rest.contains('*') {
        return tail.len() > rest.len() && tail.ends_with(rest);
    }
    tail.char_indices().skip(1).any(|(place, _)| fits(rest, &tail[place..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_what_it_says() {
        for host in ["bedrock-runtime.us-east-1.amazonaws.com", "bedrock-runtime.x.amazonaws.com"] {
            assert!(fits("bedrock-runtime.*.amazonaws.com", host), "{host}");
        }
        for host in ["bedrock-runtime..amazonaws.com", "bedrock-runtime.x.amazonaws.com.cn", "s3.x.amazonaws.com"] {
            assert!(!fits("bedrock-runtime.*.amazonaws.com", host), "{host}");
        }
        assert!(fits("api.moonshot.*", "api.moonshot.ai") && !fits("api.moonshot.*", "api.moonshot."));
        assert!(fits("*.a.*.b", "x.a.y.b") && !fits("*.a.*.b", ".a.y.b") && fits("*.é", "ü.é"));
    }

    #[test]
    fn what_is_added_later_goes_first_and_a_whole_name_before_a_pattern() {
        let mut hosts = Hosts::default();
        for (host, place) in [("*.corp", 1), ("LLM.corp", 2), ("*.eu.corp", 3)] {
            hosts.add(host, place).unwrap();
        }
        let owners =
            ["a.corp", "llm.corp", "a.eu.corp", "Llm.Corp.", "corp", "", " "].map(|host| hosts.owner(Some(host)));
        let [one, two, three] = [1, 2, 3].map(Owner::Provider);
        assert_eq!(owners, [one, two, three, two, Owner::Nobody, Owner::Untold, Owner::Untold]);
    }

    #[test]
    fn this_machine_tells_nothing_unless_it_is_named() {
        let mut hosts = Hosts::default();
        for host in
            ["127.0.0.1", "127.9.8.7", "::1", "[::1]", "::ffff:127.0.0.1", "localhost", "LocalHost", "a.localhost"]
        {
            assert_eq!(hosts.owner(Some(host)), Owner::Untold, "{host}");
        }
        for host in ["128.0.0.1", "10.0.0.1", "::2", "localhost.example", "llm"] {
            assert_eq!(hosts.owner(Some(host)), Owner::Nobody, "{host}");
        }
        for host in ["127.0.0.1", "::1"] {
            hosts.add(host, 4).unwrap();
            assert_eq!(hosts.owner(Some(host)), Owner::Provider(4));
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for wrong in ["", "https://llm.corp", "llm.corp:443", "llm.corp/v1", "[::1]", "a b"] {
            assert!(Hosts::default().add(wrong, 0).is_err(), "{wrong}");
        }
    }
}
