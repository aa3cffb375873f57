//! What the error of a call says of its price.

/// Whether the provider had begun to answer when a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It surely billed nothing: it was never reached, or refused the call.
    Refused,
    /// It was cut off while it may have answered.
    CutOff,
    /// The error does not say.
    Unclear,
}

/// Statuses by which a provider refuses a call.
const REFUSED_CODES: &[u64] = &[400, 401, 402, 403, 404, 405, 409, 413, 415, 422, 429];

/// Parts of names of classes, in lower case.
const REFUSED: &[&str] = &[
    "ratelimit",
    "rate_limit",
    "throttl",
    "toomanyrequests",
    "quota",
    "authentication",
    "unauthorized",
    "unauthenticated",
    "permission",
    "forbidden",
    "accessdenied",
    "notfound",
    "not_found",
    "badrequest",
    "bad_request",
    "invalidrequest",
    "invalid_request",
    "invalidargument",
    "unprocessable",
    "validation",
    "resourceexhausted",
    "contextwindow",
    "context_length",
    "connectionrefused",
    "connect_error",
    "connecterror",
    "connecttimeout",
    "econnrefused",
    "enotfound",
    "nameresolution",
    "gaierror",
    "pooltimeout",
];

const CUT_OFF: &[&str] = &[
    "cancel",
    "abort",
    "timeout",
    "timedout",
    "deadline",
    "generatorexit",
    "closed",
    "disconnect",
    "interrupt",
    "brokenpipe",
    "connectionreset",
    "econnreset",
    "epipe",
    "incompleteread",
    "readerror",
    "remoteprotocol",
    "chunkedencoding",
    "unexpectedeof",
    "streamerror",
    "terminated",
];

/// By the status that the provider answered with, and the class of the error.
pub fn failure(code: Option<u64>, class: Option<&str>) -> Failure {
    let class = class.unwrap_or_default().to_ascii_lowercase();
    let one_of = |names: &[&str]| names.iter().any(|name| class.contains(name));
    let coded = code.or_else(|| class.parse().ok());
    if coded.is_some_and(|code| REFUSED_CODES.contains(&code)) || one_of(REFUSED) {
        Failure::Refused
    } else if coded == Some(499) || one_of(CUT_OFF) {
        Failure::CutOff
    } else {
        Failure::Unclear
    }
}
