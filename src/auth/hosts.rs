//! By which names Tacho may be called. A page in a browser can make its own name point at any address (DNS rebinding),
//! but it cannot say another name than its own.

use std::net::{IpAddr, Ipv6Addr};

use http::uri::Authority;
use http::{HeaderMap, Uri, header};
use serde::Deserialize;

/// A host name, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Host(String);

impl TryFrom<String> for Host {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let name = text.to_ascii_lowercase();
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if name.is_empty() || !name.chars().all(is_name) {
            return Err("must be a host name, without scheme and port".to_owned());
        }
        Ok(Self(name))
    }
}

/// Whether all places that name a host name one of ours. None at all is no browser.
pub(super) fn is_ours(uri: &Uri, headers: &HeaderMap, ours: &[Host]) -> bool {
    let mut named = headers.get_all(header::HOST).iter();
    let told = named.next();
    if named.next().is_some() {
        return false;
    }
    let told = told.map(|told| told.to_str().ok().and_then(|told| told.parse::<Authority>().ok()));
    told.is_none_or(|told| told.is_some_and(|told| may_be(&told, ours)))
        && uri.authority().is_none_or(|told| may_be(told, ours))
}

fn may_be(authority: &Authority, ours: &[Host]) -> bool {
    // Someone else's name before an `@` is no part of the host, and no client sends it.
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host().to_ascii_lowercase();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_address = match bare {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<IpAddr>().is_ok(),
    };
    // One dot at the end means the same name.
    let name = host.strip_suffix('.').unwrap_or(&host);
    is_address || name == "localhost" || ours.iter().any(|ours| ours.0 == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_ours_by_address_or_by_name() {
        let ours = [Host::try_from("Tacho.bots.svc".to_owned()).unwrap()];
        for (host, is_one) in [
            ("127.0.0.1:9464", true),
            ("[::1]:9464", true),
            ("10.1.2.3", true),
            ("localhost:9464", true),
            ("LOCALHOST.", true),
            ("tacho.bots.svc", true),
            ("TACHO.bots.svc.:9464", true),
            ("evil.example", false),
            ("evil.example:9464", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1@evil.example", false),
            ("evil.example@127.0.0.1", false),
            ("bots.svc", false),
            ("", false),
            ("[::1", false),
            ("a b", false),
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
            assert_eq!(is_ours(&"/".parse().unwrap(), &headers, &ours), is_one, "{host}");
        }
        assert!(is_ours(&"/".parse().unwrap(), &HeaderMap::new(), &[]));
        assert!(!is_ours(&"http://evil.example/".parse().unwrap(), &HeaderMap::new(), &[]));
        let mut twice = HeaderMap::new();
        twice.append(header::HOST, "127.0.0.1".parse().unwrap());
        twice.append(header::HOST, "127.0.0.1".parse().unwrap());
        assert!(!is_ours(&"/".parse().unwrap(), &twice, &[]));
    }

    #[test]
    fn what_is_no_host_name_is_none() {
        for text in ["", "http://tacho", "tacho:9464", "*"] {
            assert!(Host::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
