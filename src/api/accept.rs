//! In which of the two formats a scrape wants the registry: by `Accept`, as RFC 9110 reads it.

use http::{HeaderMap, header};

/// Whether OpenMetrics 1.0 is wanted at least as much as Prometheus' own format.
pub(super) fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let given = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<Range<'_>> = given.flat_map(|value| value.split(',')).map(Range::read).collect();
    let openmetrics = ranges.iter().filter(|range| range.is_openmetrics()).map(|range| range.weight).max();
    let text =
        ranges.iter().filter(|range| range.kind.eq_ignore_ascii_case("text/plain")).map(|range| range.weight).max();
    openmetrics.is_some_and(|weight| weight > 0 && weight >= text.unwrap_or(0))
}

pub(super) fn content_type(openmetrics: bool) -> &'static str {
    if openmetrics {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    }
}

/// One of the media ranges of `Accept`.
struct Range<'a> {
    kind: &'a str,
    version: Option<&'a str>,
    /// In thousandths, which is as fine as it can be said.
    weight: u16,
}

impl<'a> Range<'a> {
    fn read(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let mut range = Self { kind: parts.next().unwrap_or_default(), version: None, weight: 1_000 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            if name.eq_ignore_ascii_case("version") {
                range.version = Some(value.trim_matches('"'));
            } else if name.eq_ignore_ascii_case("q") {
                range.weight = thousandths(value);
            }
        }
        range
    }

    /// In the version that we speak, or in any.
    fn is_openmetrics(&self) -> bool {
        self.kind.eq_ignore_ascii_case("application/openmetrics-text")
            && self.version.is_none_or(|version| version == "1.0.0")
    }
}

/// `0.75`; what is no weight weighs nothing.
fn thousandths(weight: &str) -> u16 {
    let (whole, part) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = format!("{part:0<3}");
    match (whole, digits.parse::<u16>()) {
        ("1", Ok(0)) => 1_000,
        ("0", Ok(part)) if digits.len() == 3 => part,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_what_accept_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, openmetrics) in [
            (prometheus, true),
            ("application/openmetrics-text", true),
            ("application/OpenMetrics-Text; version=\"1.0.0\"; charset=utf-8", true),
            ("application/openmetrics-text;version=0.0.1", false),
            ("text/plain;version=0.0.4,application/openmetrics-text;q=0.5", false),
            ("application/openmetrics-text;q=0.5, text/plain;q=0.25", true),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;q=2", false),
            ("application/openmetrics-text;q=0.0001", false),
            ("*/*", false),
            ("", false),
            (",;=;,q=", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(wants_openmetrics(&headers), openmetrics, "{accept}");
        }
        assert!(!wants_openmetrics(&HeaderMap::new()));
    }
}
