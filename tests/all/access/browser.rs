//! A page in a real Chromium that makes requests to a Tacho on the same machine: from its own site (CSRF), and after it
//! has made its own name lead to Tacho (DNS rebinding). It reads nothing and changes nothing. Each time the same page is
//! first shown to a server that permits everything, where it must succeed: else it would prove nothing.

mod detour;
mod site;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::chromium::{Chromium, version};
use crate::support::client::JSON;
use detour::Detour;
use site::{Arrival, Attacker, Permissive, decoded};
use target::{READS, Refusals, Target, Write};

const EVIL: &str = "evil.example";
const ATTEMPT: &str = include_str!("browser/attempt.js");
const CSRF: &str = include_str!("browser/csrf.js");
const REBINDING: &str = include_str!("browser/rebinding.js");

/// Far beyond what a page takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a page reports of one attempt.
#[derive(Debug, Deserialize)]
struct Attempt {
    kind: String,
    way: String,
    place: String,
    path: String,
    /// What it could read.
    read: Option<String>,
    /// What the browser told it.
    said: String,
}

/// All attempts of the page that is shown.
async fn attempts(attacker: &mut Attacker, chromium: &Chromium) -> Vec<Attempt> {
    let mut all = Vec::new();
    loop {
        let mut report = heard(attacker, chromium, &all).await;
        if report["done"] == true {
            return all;
        }
        assert!(report["broken"].is_null(), "{report}");
        all.extend(serde_json::from_value::<Vec<Attempt>>(report["attempts"].take()).unwrap());
    }
}

async fn heard(attacker: &mut Attacker, chromium: &Chromium, so_far: &[Attempt]) -> Value {
    let report = tokio::time::timeout(PATIENCE, attacker.reports.recv()).await;
    let last = so_far.last();
    report.unwrap_or_else(|_| panic!("the page is silent after {last:?}; the browser: {}", chromium.log())).unwrap()
}

/// Waits until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Lines are what is compared, and what is shown of a difference.
fn assert_same(before: &str, after: &str) {
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let lost: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(before == after, "what was {lost:#?} is {new:#?}");
}

/// Prints what the browser told of each way, and how often.
fn print(title: &str, attempts: &[Attempt]) {
    let mut told = BTreeMap::<_, BTreeMap<_, u32>>::new();
    for attempt in attempts {
        let read = attempt.read.as_ref().map(|read| format!(", read {:?}", read.chars().take(12).collect::<String>()));
        let outcome = format!("{}{}", attempt.said, read.unwrap_or_default());
        *told.entry((&attempt.kind, &attempt.way)).or_default().entry(outcome).or_default() += 1;
    }
    println!("{title}, {}:", version());
    for ((kind, way), outcomes) in told {
        let outcomes: Vec<String> = outcomes.iter().map(|(outcome, times)| format!("{times} × {outcome}")).collect();
        println!("  {kind:5} {way:32} {}", outcomes.join("; "));
    }
}

// --- CSRF ---

/// The names by which a page can call a server on this machine.
const PLACES: [&str; 4] = ["127.0.0.1", "localhost", "[::1]", "0.0.0.0"];

/// Where the listeners are, by each name.
fn places([http, otlp_http, otlp_grpc]: [SocketAddr; 3]) -> Value {
    let place = |name: &&str| {
        let at = |address: SocketAddr| format!("http://{name}:{}", address.port());
        json!({"name": name, "http": at(http), "otlp_http": at(otlp_http), "otlp_grpc": at(otlp_grpc)})
    };
    PLACES.iter().map(place).collect()
}

async fn over_ipv6(server: SocketAddr) -> Detour {
    Detour::open((Ipv6Addr::LOCALHOST, server.port()).into(), server).await
}

/// What the page at this host reports of its attempts.
async fn page_of(host: &str, marked: bool, places: Value, target: &Target) -> Vec<Attempt> {
    let reads: Vec<Value> = READS.iter().map(|path| json!({"listener": "http", "path": path})).collect();
    let setup = json!({
        "places": places, "marked": marked, "writes": target.writes(), "reads": reads, "token": target.token(),
    });
    let mut attacker = Attacker::start(&[ATTEMPT, CSRF], |_| setup).await;
    let url = format!("http://{host}:{}/", attacker.address.port());
    let chromium = Chromium::show(&url, EVIL, "127.0.0.1");
    attempts(&mut attacker, &chromium).await
}

/// An attempt as its arrival shows it: way, host and path.
type Mark = (String, String, String);

/// Nothing for what a browser asks by itself, as for an icon.
fn mark(arrival: &Arrival) -> Option<Mark> {
    let (way, path) = arrival.uri.path().strip_prefix('/')?.split_once('/')?;
    let host = arrival.header("host").rsplit_once(':')?.0;
    Some((decoded(way), host.to_owned(), format!("/{path}")))
}

/// A browser says of what a page does that another site does it. It says less to `0.0.0.0`, which it holds for far away.
fn is_told_of(arrival: &Arrival) -> bool {
    !arrival.header("origin").is_empty() || ["cross-site", "same-site"].contains(&arrival.header("sec-fetch-site"))
}

/// Ways to get an answer that a server can permit. All others a browser does without showing the page what came.
const SHOWN: [&str; 20] = [
    "EventSource",
    "WebSocket",
    "XMLHttpRequest",
    "XMLHttpRequest JSON",
    "XMLHttpRequest text/plain",
    "fetch PUT",
    "fetch cors",
    "fetch cors JSON",
    "fetch cors JSON authorization",
    "fetch cors authorization",
    "fetch cors redirected",
    "fetch cors text/plain",
    "fetch redirected",
    "img",
    "img without referrer",
    "import()",
    "importScripts",
    "link stylesheet cors",
    "script",
    "script module",
];

/// Ways that send the body in another shape, or another one.
const RESHAPED: [&str; 6] = [
    "form multipart",
    "form urlencoded",
    "form with a JSON file",
    "ping of a link",
    "report of a policy",
    "sendBeacon urlencoded",
];

/// Shows the page to a server that permits everything: all arrives, and what can be shown is. Tells what a Tacho must
/// refuse of it.
async fn the_page_works(host: &str, target: &Target) -> Refusals {
    let permissive = Permissive::start().await;
    let _ipv6 = over_ipv6(permissive.address).await;
    let attempts = page_of(host, true, places([permissive.address; 3]), target).await;
    print(&format!("a page of {host}, before a server that permits everything"), &attempts);
    for attempt in &attempts {
        assert_eq!(attempt.read.is_some(), SHOWN.contains(&attempt.way.as_str()), "{attempt:?}");
    }
    let marks = attempts.iter().map(|Attempt { way, place, path, .. }| {
        let path = path.split('?').next().unwrap();
        (way.clone(), place.clone(), path.to_owned())
    });
    let marks: BTreeSet<Mark> = marks.collect();
    let mut arrivals = BTreeMap::<Mark, Vec<Arrival>>::new();
    until("not all attempts arrive", async || {
        arrivals = BTreeMap::new();
        for arrival in permissive.arrivals() {
            if let Some(mark) = mark(&arrival) {
                arrivals.entry(mark).or_default().push(arrival);
            }
        }
        marks.iter().all(|mark| arrivals.contains_key(mark))
    })
    .await;
    let writes = target.writes();
    let mut refusals = Refusals::new();
    for ((way, place, path), arrivals) in &arrivals {
        let write = writes.iter().find(|write| write.path == path);
        if let Some(write) = write.filter(|_| !RESHAPED.contains(&way.as_str())) {
            let body = String::from_utf8_lossy(&arrivals.last().unwrap().body);
            // A form of one field without value ends with an equals sign.
            let body = body.trim_end();
            assert!(body == write.body || body == format!("{}=", write.body), "{way} {place} {path}: {body}");
        }
        let listener = write.map_or("http", |write| write.listener);
        let reason = if is_told_of(&arrivals[0]) { "cross_site" } else { "no_token" };
        let is_open = ["/metrics", "/livez"].contains(&path.as_str()) && reason == "no_token";
        if listener != "otlp_grpc" && !is_open {
            *refusals.entry((listener.to_owned(), reason.to_owned())).or_default() += 1;
        }
    }
    refusals
}

async fn a_page_gets_nothing(host: &str) {
    let target = Target::start().await;
    let refusals = the_page_works(host, &target).await;
    let tacho = &target.tacho;
    let _ipv6 = [over_ipv6(tacho.http).await, over_ipv6(tacho.otlp_http).await, over_ipv6(tacho.grpc).await];
    let before = target.state().await;
    let attempts = page_of(host, false, places([tacho.http, tacho.otlp_http, tacho.grpc]), &target).await;
    print(&format!("a page of {host}, before Tacho"), &attempts);
    for attempt in &attempts {
        assert_eq!(attempt.read, None, "{attempt:?}");
    }
    until("not all attempts are refused", async || {
        let refused = target.refused().await;
        refusals.iter().all(|(labels, count)| refused.get(labels) >= Some(count))
    })
    .await;
    assert_eq!(target.refused().await, refusals);
    assert_same(&before, &target.state().await);
    target.programs_can().await;
    target.tacho.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_gets_nothing() {
    a_page_gets_nothing(EVIL).await;
}

/// What runs on another port of this machine is of the same site, yet not of the same origin.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_port_gets_nothing() {
    a_page_gets_nothing("localhost").await;
}

// --- DNS rebinding ---

/// Shows a page of `evil.example` at the port of `server`, and makes that name lead to `server` once the page is loaded.
async fn rebound(server: SocketAddr, target: &Target) -> Vec<Attempt> {
    let reads: Vec<Value> = READS.iter().map(|path| json!({"listener": "http", "path": path})).collect();
    let setup = json!({"writes": target.writes(), "reads": reads, "token": target.token()});
    let mut attacker = Attacker::start(&[ATTEMPT, REBINDING], |_| setup).await;
    let elsewhere = SocketAddr::from((ELSEWHERE, server.port()));
    let name = Detour::open(elsewhere, attacker.address).await;
    let url = format!("http://{EVIL}:{}/", server.port());
    let chromium = Chromium::show(&url, EVIL, &ELSEWHERE.to_string());
    assert_eq!(heard(&mut attacker, &chromium, &[]).await, "loaded");
    name.lead_to(server);
    attempts(&mut attacker, &chromium).await
}

/// Where the name leads to: this machine too, as nothing else may be reached.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_name_leads_to_tacho_gets_nothing() {
    let target = Target::start().await;
    let permissive = Permissive::start().await;
    let attempts = rebound(permissive.address, &target).await;
    print("a page whose name leads to a server that permits everything", &attempts);
    for attempt in &attempts {
        assert!(attempt.read.is_some(), "{attempt:?}");
    }
    // As the page's own server: a body of JSON comes without a question before it.
    let arrivals = permissive.arrivals();
    assert!(arrivals.iter().all(|arrival| arrival.method != Method::OPTIONS));
    for Write { path, body, .. } in target.writes() {
        let is_it = |arrival: &&Arrival| arrival.uri.path() == path && arrival.header("content-type") == JSON;
        let taken: Vec<&Arrival> = arrivals.iter().filter(is_it).collect();
        assert_eq!(taken.len(), 3, "{path}");
        assert!(taken.iter().all(|arrival| arrival.body == body), "{path}");
    }
    let tacho = &target.tacho;
    let before = target.state().await;
    for (listener, address) in [("http", tacho.http), ("otlp_http", tacho.otlp_http), ("otlp_grpc", tacho.grpc)] {
        let known = target.refused().await;
        let attempts = rebound(address, &target).await;
        print(&format!("a page whose name leads to Tacho's {listener}"), &attempts);
        for attempt in &attempts {
            assert!(tells_nothing(attempt, listener), "{attempt:?}");
        }
        let mut refused = target.refused().await;
        refused.retain(|labels, count| known.get(labels) != Some(count));
        // What is not HTTP/2 is cut off as that.
        let reasons: Vec<(&str, &str)> =
            refused.keys().map(|(name, reason)| (name.as_str(), reason.as_str())).collect();
        let expected = if listener == "otlp_grpc" { vec![] } else { vec![(listener, "host")] };
        assert_eq!(reasons, expected);
        assert!(refused.values().all(|count| *count >= attempts.len()), "{refused:?}, {} attempts", attempts.len());
    }
    assert_same(&before, &target.state().await);
    target.programs_can().await;
    target.tacho.stop();
}

/// The refusal was all that could be read.
fn tells_nothing(attempt: &Attempt, listener: &str) -> bool {
    const DETAIL: &str =
        "the host that the request names is none of this Tacho's: use its address, or add the name to auth.hosts";
    let problem = json!({"type": "about:blank", "title": "Misdirected Request", "status": 421, "detail": DETAIL});
    match (&attempt.read, attempt.way.as_str()) {
        (None, _) => listener == "otlp_grpc" || ["EventSource", "WebSocket", "script"].contains(&attempt.way.as_str()),
        // gRPC has its status in the headers.
        (Some(read), "fetch gRPC") => read == "200 ",
        (Some(read), "iframe" | "form GET" | "form text/plain" | "window.open") => read.contains(&problem.to_string()),
        (Some(read), _) => *read == format!("421 {problem}"),
    }
}
