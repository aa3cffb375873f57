//! Which spans are requests, and what belongs to them.

use expect_test::expect;

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
          #1 m in=0 out=0 error=Timeout [a]
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
        waiting
    "#]],
    );
    check(
        [span(1), span(2).under(1)],
        expect![[r#"
        waiting
    "#]],
    );
    check_last_word([span(1), span(2).under(1)], expect![[""]]);
}

#[test]
fn calls_without_their_request_wait() {
    check(
        [call(2).under(9), call(3).under(8)],
        expect![[r#"
        waiting
    "#]],
    );
}

#[test]
fn calls_that_waited_in_vain_get_one_record() {
    let late = call(2).under(9).at(300, 400).text(Field::User, "bob");
    check_last_word(
        [late, call(3).under(8).text(Field::User, "ann").namespace("shop")],
        expect![[r#"
        #3 - - - user=ann tenant=shop
          #3 m in=10 out=5 [a]
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
        waiting
    "#]],
    );
    check_last_word(
        [server(1), call(2).under(1), call(3).under(9)],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=10 out=5 [a]
        #3 - - -
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
fn a_ring_below_a_server_belongs_to_nobody_until_the_last_word() {
    let ring = [server(1), span(2).under(3), call(3).under(2)];
    check(
        ring.clone(),
        expect![[r#"
        #1 POST /chat 200
        waiting
    "#]],
    );
    check_last_word(
        ring,
        expect![[r#"
        #1 POST /chat 200
        #3 - - -
          #3 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn a_server_in_a_ring_is_a_request() {
    check_last_word(
        [server(1).under(3), span(2).under(1), call(3).under(2)],
        expect![[r#"
        #1 POST /chat 200
        #3 - - -
          #3 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn a_span_that_is_its_own_parent_is_no_root() {
    check(
        [server(1).under(1), call(2).under(1), call(3).under(3)],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=10 out=5 [a]
        waiting
    "#]],
    );
}
