//! Which server a fake pretends to be, and which headers that server takes.

use axum::http::HeaderMap;
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// 7.10.2, with data streams
    Elasticsearch7,
    /// 8.19
    Elasticsearch8,
    /// 9.1
    Elasticsearch9,
    /// 2.19.1
    OpenSearch2,
    /// 3.8.0
    OpenSearch3,
}

/// A request that is refused before anybody looks at its body.
pub(super) struct Refused {
    pub status: u16,
    pub body: Value,
}

impl Product {
    pub fn is_elastic(self) -> bool {
        matches!(self, Self::Elasticsearch7 | Self::Elasticsearch8 | Self::Elasticsearch9)
    }

    fn number(self) -> &'static str {
        match self {
            Self::Elasticsearch7 => "7.10.2",
            Self::Elasticsearch8 => "8.19.0",
            Self::Elasticsearch9 => "9.1.0",
            Self::OpenSearch2 => "2.19.1",
            Self::OpenSearch3 => "3.8.0",
        }
    }

    /// The version with which media types may be compatible, and the one before it; none where such types are unknown.
    fn major(self) -> Option<u64> {
        match self {
            Self::Elasticsearch8 => Some(8),
            Self::Elasticsearch9 => Some(9),
            Self::Elasticsearch7 | Self::OpenSearch2 | Self::OpenSearch3 => None,
        }
    }

    /// A header that every answer has, by which clients know the product.
    pub(super) fn header(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Elasticsearch8 | Self::Elasticsearch9 => Some(("x-elastic-product", "Elasticsearch")),
            Self::OpenSearch3 => Some(("x-opensearch-version", "OpenSearch/3.8.0 (opensearch)")),
            // Elasticsearch has it since 7.14.
            Self::Elasticsearch7 | Self::OpenSearch2 => None,
        }
    }

    /// The answer to `GET /`.
    pub(super) fn banner(self) -> Value {
        let mut version = json!({"number": self.number(), "build_snapshot": false});
        let tagline = if self.is_elastic() {
            version["build_flavor"] = "default".into();
            "You Know, for Search"
        } else {
            version["distribution"] = "opensearch".into();
            "The OpenSearch Project: https://opensearch.org/"
        };
        json!({"name": "fake", "cluster_name": "fake", "cluster_uuid": "faked", "version": version, "tagline": tagline})
    }

    /// What a document is called that does not fit the mapping.
    pub(super) fn misfit(self) -> &'static str {
        if self.major().is_some() { "document_parsing_exception" } else { "mapper_parsing_exception" }
    }

    /// Checks the types of a request with a body. OpenSearch, and Elasticsearch before 8, look at no `Accept`.
    pub(super) fn check_types(self, headers: &HeaderMap) -> Result<(), Refused> {
        let content = header(headers, "content-type");
        let (media, content_version) = media(content);
        let is_known = match media.as_str() {
            "application/json" | "application/x-ndjson" => true,
            "application/vnd.elasticsearch+json" | "application/vnd.elasticsearch+x-ndjson" => self.major().is_some(),
            _ => false,
        };
        if !is_known {
            let said = format!("Content-Type header [{content}] is not supported");
            return Err(Refused { status: 406, body: json!({"error": said, "status": 406}) });
        }
        self.major().map_or(Ok(()), |major| {
            let accept = header(headers, "accept");
            check_versions(major, (accept, self::media(accept).1), (content, content_version))
        })
    }

    /// As `check_types`, for a request without a body.
    pub(super) fn check_accept(self, headers: &HeaderMap) -> Result<(), Refused> {
        let accept = header(headers, "accept");
        match (self.major(), media(accept).1) {
            (Some(major), Some(version)) if !(major - 1..=major).contains(&version) => {
                Err(incompatible(&wrong_version("Accept", accept, major, version)))
            }
            _ => Ok(()),
        }
    }
}

type Versioned<'a> = (&'a str, Option<u64>);

/// Both headers ask for the same version, or neither for any.
fn check_versions(major: u64, accept: Versioned, content: Versioned) -> Result<(), Refused> {
    for (name, (text, version)) in [("Accept", accept), ("Content-Type", content)] {
        if let Some(version) = version.filter(|version| !(major - 1..=major).contains(version)) {
            return Err(incompatible(&wrong_version(name, text, major, version)));
        }
    }
    if accept.1 != content.1 {
        return Err(incompatible(&format!(
            "A compatible version is required on both Content-Type and Accept headers if either one has requested a \
             compatible version. Accept={}, Content-Type={}",
            accept.0, content.0
        )));
    }
    Ok(())
}

fn wrong_version(name: &str, text: &str, major: u64, version: u64) -> String {
    format!("{name} version must be either version {major} or {}, but found {version}. {name}={text}", major - 1)
}

fn incompatible(cause: &str) -> Refused {
    let error = json!({
        "type": "media_type_header_exception",
        "reason": "Invalid media-type value on headers [Accept, Content-Type]",
        "caused_by": {"type": "status_exception", "reason": cause},
    });
    Refused { status: 400, body: super::answers::whole(400, error) }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// The type without parameters, in small letters, and the version it asks for.
fn media(text: &str) -> (String, Option<u64>) {
    let mut parts = text.split(';').map(|part| part.trim().to_ascii_lowercase());
    let media = parts.next().unwrap_or_default();
    let version = parts.find_map(|part| part.strip_prefix("compatible-with=")?.parse().ok());
    (media, version)
}
