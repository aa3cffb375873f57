//! Which spans are requests, and what belongs to them.

use expect_test::expect;

use std::time::Duration;

use super::*;

fn call(id: u64) -> Sketch {
    chat(id).tokens(10, 5)
}

#[test]
fn an_inner_server_is_part_of_the_outer_request() {
    check(
        [server(1), call(2).under(1), server(3).under(2), span(4).under(3), call(5).under(4)],
        expect![[r#"
        #1 POST /chat 200
          #5 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn two_outermost_servers_are_two_records() {
    check(
        [server(1), call(2).under(1), server(3), call(4).under(3)],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=10 out=5 [a]
        #3 POST /chat 200
          #4 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn a_caller_whose_span_never_comes_changes_nothing() {
    check(
        [server(1).under(99), call(2).under(1)],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn a_server_without_http_is_no_request() {
    check(
        [span(1).kind(Kind::Server), server(2).under(1), call(3).under(2)],
        expect![[r#"
        #2 POST /chat 200
          #3 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn http_on_a_client_or_inner_span_makes_no_request() {
    let http = |id, kind| span(id).kind(kind).text(Field::HttpMethod, "POST").text(Field::HttpRoute, "/x");
    check(
        [server(1), http(2, Kind::Client).under(1), http(3, Kind::Internal).under(1)],
        expect![[r#"
        #1 POST /chat 200
    "#]],
    );
}

#[test]
fn a_call_that_is_the_root_is_its_own_request() {
    check(
        [call(1).text(Field::Name, "chat m")],
        expect![[r#"
        #1 CLIENT chat m -
          #1 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn a_failed_root_has_a_status() {
    check(
        [chat(1).failed().text(Field::Name, "chat m").text(Field::ErrorType, "Timeout")],
        expect![[r#"
            #1 CLIENT chat m 500 error=Timeout
              #1 m unknown=missing error=Timeout [a]
        "#]],
    );
}

#[test]
fn a_queue_worker_is_a_request_when_it_calls() {
    let worker = span(1).kind(Kind::Consumer).text(Field::Name, "jobs process").text(Field::User, "ann");
    check(
        [worker, span(2).under(1), call(3).under(2)],
        expect![[r#"
        #1 CONSUMER jobs process - user=ann
          #3 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn a_root_beside_servers_keeps_only_its_own_calls() {
    let root = span(1).text(Field::Name, "cron");
    check(
        [root, call(2).under(1), server(3).under(1), call(4).under(3)],
        expect![[r#"
        #3 POST /chat 200
          #4 m in=10 out=5 [a]
        #1 INTERNAL cron -
          #2 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn a_trace_with_nothing_leaves_nothing() {
    check(
        [],
        expect![[r#"
            nothing yet
        "#]],
    );
    check(
        [span(1), span(2).under(1)],
        expect![[r#"
            nothing yet
        "#]],
    );
    check_expired([span(1), span(2).under(1)], expect![""]);
}

#[test]
fn calls_without_their_request_wait() {
    check(
        [call(2).under(9), call(3).under(8)],
        expect![[r#"
            waiting for #8
            waiting for #9
        "#]],
    );
}

#[test]
fn calls_that_waited_in_vain_get_a_record_for_each_parent() {
    let late = call(2).under(9).at(300, 400).text(Field::User, "bob");
    check_expired(
        [late, call(3).under(8).text(Field::User, "ann").namespace("shop")],
        expect![[r#"
            #8 - - - user=ann tenant=shop
              #3 m in=10 out=5 [a]
            #9 - - - user=bob
              #2 m in=10 out=5 [a]
        "#]],
    );
}

#[test]
fn the_request_adopts_its_calls_when_it_comes() {
    check(
        [call(2).under(9), call(3).under(8), server(9), span(8).under(9)],
        expect![[r#"
        #9 POST /chat 200
          #2 m in=10 out=5 [a]
          #3 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn some_calls_wait_while_a_request_is_here() {
    check(
        [server(1), call(2).under(1), call(3).under(9)],
        expect![[r#"
            #1 POST /chat 200
              #2 m in=10 out=5 [a]
            waiting for #9
        "#]],
    );
    check_expired(
        [server(1), call(2).under(1), call(3).under(9)],
        expect![[r#"
            #1 POST /chat 200
              #2 m in=10 out=5 [a]
            #9 - - -
              #3 m in=10 out=5 [a]
        "#]],
    );
}

#[test]
fn a_call_with_one_twin_at_home_waits_for_nobody() {
    let near = call(2).under(9).scope("com.anthropic.sdk.python").answer(7);
    check(
        [span(1).text(Field::Name, "cron"), call(3).under(1).answer(7), near],
        expect![[r#"
        #1 INTERNAL cron -
          #2 m in=10 out=5 [com.anthropic.sdk.python]
    "#]],
    );
}

#[test]
fn a_ring_below_a_server_is_no_part_of_its_request() {
    let ring = [server(1), span(2).under(3), call(3).under(2)];
    check(
        ring.clone(),
        expect![[r#"
            #1 POST /chat 200
            #3 CLIENT - -
              #3 m in=10 out=5 [a]
        "#]],
    );
    check_expired(
        ring,
        expect![[r#"
            #1 POST /chat 200
            #3 CLIENT - -
              #3 m in=10 out=5 [a]
        "#]],
    );
}

#[test]
fn a_server_in_a_ring_is_a_request() {
    check_expired(
        [server(1).under(3), span(2).under(1), call(3).under(2)],
        expect![[r#"
            #1 POST /chat 200
            #2 INTERNAL - -
              #3 m in=10 out=5 [a]
        "#]],
    );
}

#[test]
fn a_span_that_is_its_own_parent_waits_for_nobody() {
    check(
        [server(1).under(1), call(2).under(1), call(3).under(3)],
        expect![[r#"
            #1 POST /chat 200
              #2 m in=10 out=5 [a]
            #3 CLIENT - -
              #3 m in=10 out=5 [a]
        "#]],
    );
}

fn as_user(span: Sketch, user: &str) -> Sketch {
    span.text(Field::User, user)
}

/// A worker's round: what is above names nobody.
#[test]
fn work_for_several_users_is_a_record_for_each() {
    let round = span(1).text(Field::Name, "nightly digest").at(0, 900);
    let ann = as_user(span(2), "ann").under(1).at(100, 300);
    let bob = as_user(span(4), "bob").under(1).at(400, 800).failed();
    check(
        [round, ann, call(3).under(2).at(110, 290), bob, call(5).under(4).at(410, 500), call(6).under(4).at(510, 600)],
        expect![[r#"
            #1 INTERNAL nightly digest - user=ann
              #3 m in=10 out=5 [a]
            #4 INTERNAL nightly digest 500 user=bob error=500
              #5 m in=10 out=5 [a]
              #6 m in=10 out=5 [a]
        "#]],
    );
}

#[test]
fn the_nearest_name_above_a_call_decides_and_the_root_keeps_what_is_its_own() {
    let ann = as_user(server(1), "ann");
    let bob = as_user(span(2), "bob").under(1).text(Field::Tenant, "acme").text(Field::Agent, "digest");
    let again = as_user(span(4), "ann").under(2).at(120, 180);
    check(
        [ann, bob, call(3).under(2), again, call(5).under(4), call(6).under(1)],
        expect![[r#"
            #1 POST /chat 200 user=ann
              #5 m in=10 out=5 [a]
              #6 m in=10 out=5 [a]
            #2 INTERNAL /chat - user=bob agent=digest tenant=acme
              #3 m in=10 out=5 [a]
        "#]],
    );
}

/// Two spans name the same other user: that is one request of this user, under the first.
#[test]
fn another_user_named_twice_has_one_record() {
    let first = as_user(span(2), "bob").under(1).at(300, 400);
    let second = as_user(span(4), "bob").under(1).at(100, 200);
    check(
        [as_user(server(1), "ann"), first, call(3).under(2), second, call(5).under(4)],
        expect![[r#"
        #1 POST /chat 200 user=ann
        #4 INTERNAL /chat - user=bob
          #3 m in=10 out=5 [a]
          #5 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn users_below_a_parent_that_never_came_are_told_apart_too() {
    let (ann, bob) = (as_user(span(2), "ann").under(9), as_user(span(4), "bob").under(9));
    check_expired(
        [ann, call(3).under(2), bob, call(5).under(4), call(6).under(8)],
        expect![[r#"
        #4 - - - user=bob
          #5 m in=10 out=5 [a]
        #8 - - -
          #6 m in=10 out=5 [a]
        #9 - - - user=ann
          #3 m in=10 out=5 [a]
    "#]],
    );
}

/// Of the spans above a request's own span none is asked: they are another's.
#[test]
fn a_user_named_above_the_request_is_not_its_user() {
    check(
        [as_user(span(1), "proxy"), server(2).under(1), call(3).under(2)],
        expect![[r#"
        #2 POST /chat 200
          #3 m in=10 out=5 [a]
    "#]],
    );
}

fn keys(spans: &[Sketch], stored: &[Key]) -> Vec<Key> {
    let resolver = Resolver::new(&AssembleConfig::default());
    let trace = Trace::default().joined(delivery(spans));
    let requests = resolver.resolve(trace_id(), &trace, look(stored, &Waits::new(), true)).requests;
    requests.iter().map(|request| request.record.key).collect()
}

#[test]
fn a_call_that_is_earlier_and_comes_later_does_not_move_the_record_of_a_parent_that_never_came() {
    let first = [call(3).under(9).at(300, 400)];
    let stored = keys(&first, &[]);
    let later = [first[0].clone(), call(2).under(9).at(100, 200)];
    assert_eq!(keys(&later, &stored), stored);
    assert_ne!(keys(&later, &[]), stored, "else this shows nothing");
}

#[test]
fn a_span_that_names_another_user_earlier_does_not_move_that_users_record() {
    let first = [as_user(server(1), "ann"), as_user(span(4), "bob").under(1).at(300, 400), call(5).under(4)];
    let stored = keys(&first, &[]);
    let earlier = [as_user(span(2), "bob").under(1).at(100, 200), call(3).under(2)];
    let later: Vec<Sketch> = first.iter().chain(&earlier).cloned().collect();
    assert_eq!(keys(&later, &stored), stored);
    assert_ne!(keys(&later, &[]), stored, "else this shows nothing");
}

/// The tenant is no part of the key.
#[test]
fn a_tenant_that_is_told_late_moves_nothing() {
    let first = [server(1), call(2).under(1)];
    let later = [first[0].clone(), first[1].clone(), span(3).under(1).text(Field::Tenant, "acme")];
    assert_eq!(keys(&later, &[]), keys(&first, &[]));
}

/// A trace may be as old as it likes: what is missed for the first time is waited for as long as everything else. A record is made of
/// it no sooner, which its parent would only take back.
#[test]
fn each_parent_is_waited_for_since_it_was_first_missed() {
    let resolver = Resolver::new(&AssembleConfig::default());
    let minute = |number: u64| Timestamp(0).plus(Duration::from_secs(60 * number));
    let seen = |spans: &[Sketch], waits: &Waits, came, now| {
        let look = Look { stored: &[], waits, first_seen: minute(0), came: minute(came), now: minute(now) };
        let Resolution { requests, waits, due } =
            resolver.resolve(trace_id(), &Trace::default().joined(delivery(spans)), look);
        let parents: Vec<String> = requests.iter().map(|request| short(request.record.key.span_id)).collect();
        (parents.join(" "), waits, due)
    };
    let first = call(2).under(8);
    let (recorded, waits, due) = seen(std::slice::from_ref(&first), &Waits::new(), 0, 1);
    assert_eq!((recorded.as_str(), due), ("", Some(minute(10))));
    // In the ninth minute another one is missed, and in the tenth the first wait ends.
    let both = [first, call(3).under(9)];
    let (recorded, waits, due) = seen(&both, &waits, 9, 9);
    assert_eq!((recorded.as_str(), due), ("", Some(minute(10))));
    let (recorded, waits, due) = seen(&both, &waits, 10, 10);
    assert_eq!((recorded.as_str(), due), ("#8", Some(minute(19))));
    let (recorded, waits, due) = seen(&both, &waits, 19, 19);
    assert_eq!((recorded.as_str(), due), ("#8 #9", None));
    // Both stay recorded, whatever comes; and the first is waited for no longer when it is here.
    let [first, second] = both;
    let (recorded, waits, due) = seen(&[first, second, server(8)], &waits, 30, 30);
    assert_eq!((recorded.as_str(), due, waits.len()), ("#8 #9", None, 1));
}

#[test]
fn a_server_that_starts_after_the_one_above_has_ended_is_a_request_of_its_own() {
    let webhook = |id: u64, at: u64| server(id).under(1).at(at, at + 100).text(Field::User, &format!("user-{id}"));
    check(
        [
            server(1).at(0, 1_000).text(Field::User, "ann"),
            webhook(2, 500),
            call(3).under(2),
            webhook(4, 1_001),
            call(5).under(4),
            webhook(6, 5_000),
            call(7).under(6),
        ],
        expect![[r#"
            #1 POST /chat 200 user=ann
            #2 SERVER /chat - user=user-2
              #3 m in=10 out=5 [a]
            #4 POST /chat 200 user=user-4
              #5 m in=10 out=5 [a]
            #6 POST /chat 200 user=user-6
              #7 m in=10 out=5 [a]
        "#]],
    );
}

#[test]
fn below_a_worker_whose_server_has_ended_servers_are_requests_too() {
    let worker = span(2).kind(Kind::Consumer).under(1).at(2_000, 9_000);
    check(
        [server(1).at(0, 1_000), worker, call(3).under(2), server(4).under(2).at(3_000, 4_000), call(5).under(4)],
        expect![[r#"
            #1 POST /chat 200
              #3 m in=10 out=5 [a]
            #4 POST /chat 200
              #5 m in=10 out=5 [a]
        "#]],
    );
}

#[test]
fn above_a_remote_parent_nothing_is_waited_for() {
    let rpc = |id: u64, kind: Kind| span(id).kind(kind).under_remote(900 + id).text(Field::Name, "bot.Chat/Ask");
    check(
        [
            rpc(1, Kind::Server).text(Field::User, "ann"),
            call(2).under(1),
            rpc(3, Kind::Consumer).text(Field::User, "bob"),
            call(4).under(3),
            rpc(5, Kind::Server),
        ],
        expect![[r#"
            #1 SERVER bot.Chat/Ask - user=ann
              #2 m in=10 out=5 [a]
            #3 CONSUMER bot.Chat/Ask - user=bob
              #4 m in=10 out=5 [a]
        "#]],
    );
}

#[test]
fn an_installation_is_a_user_only_where_nobody_else_is_named() {
    let code = |id: u64| call(id).under(1).scope("com.anthropic.claude_code.tracing").text(Field::User, "5f1c0d9e");
    check(
        [server(1).text(Field::User, "otto"), code(2)],
        expect![[r#"
        #1 POST /chat 200 user=otto
          #2 m in=10 out=5 [com.anthropic.claude_code.tracing]
    "#]],
    );
    check(
        [server(1), code(2)],
        expect![[r#"
        #1 POST /chat 200 user=5f1c0d9e
          #2 m in=10 out=5 [com.anthropic.claude_code.tracing]
    "#]],
    );
}
