//! Which spans are requests, what belongs to them, and what their records say.

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
fn the_server_names_the_user_first_then_the_earliest_span() {
    let named = |id, name| span(id).under(1).text(Field::User, name);
    let others = [named(2, "late").at(300, 400), named(3, "early").at(200, 300)];
    let [late, early] = others;
    check(
        [server(1), late.clone(), early.clone()],
        expect![[r#"
        #1 POST /chat 200 user=early
    "#]],
    );
    check(
        [server(1).text(Field::User, "own"), late, early],
        expect![[r#"
        #1 POST /chat 200 user=own
    "#]],
    );
}

#[test]
fn the_tenant_is_said_by_a_span_or_by_the_resource() {
    check(
        [server(1).namespace("shop"), call(2).under(1).text(Field::Tenant, "acme")],
        expect![[r#"
        #1 POST /chat 200 tenant=acme
          #2 m in=10 out=5 [a]
    "#]],
    );
    check(
        [server(1).namespace("shop"), call(2).under(1)],
        expect![[r#"
        #1 POST /chat 200 tenant=shop
          #2 m in=10 out=5 [a]
    "#]],
    );
    check(
        [server(1), call(2).under(1).namespace("other")],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn the_agent_is_said_or_stands_in_the_path() {
    let http = server(1).text(Field::HttpRoute, "/agents/{agent_id}/run").text(Field::HttpPath, "/agents/sales/run");
    check(
        [http.clone()],
        expect![[r#"
        #1 POST /agents/{agent_id}/run 200 agent=sales
    "#]],
    );
    check(
        [http, span(2).under(1).text(Field::Agent, "planner")],
        expect![[r#"
        #1 POST /agents/{agent_id}/run 200 agent=planner
    "#]],
    );
}

#[test]
fn the_endpoint_comes_from_route_then_name_then_path() {
    let http = server(1).text(Field::Name, "POST /by/{name}").text(Field::HttpPath, "/by/path/4711");
    check(
        [http.clone()],
        expect![[r#"
        #1 POST /chat 200
    "#]],
    );
    check(
        [http.clone().without(Field::HttpRoute)],
        expect![[r#"
        #1 POST /by/{name} 200
    "#]],
    );
    check(
        [http.without(Field::HttpRoute).text(Field::Name, "POST")],
        expect![[r#"
        #1 POST /by/path/{id} 200
    "#]],
    );
    check(
        [server(1).without(Field::HttpRoute)],
        expect![[r#"
        #1 POST - 200
    "#]],
    );
}

#[test]
fn a_query_in_a_name_is_cut_off() {
    check(
        [server(1).without(Field::HttpRoute).text(Field::Name, "GET /find?q=secret#top")],
        expect![[r#"
        #1 POST /find 200
    "#]],
    );
}

#[test]
fn ignored_requests_leave_no_record_unless_they_called() {
    let health = || server(1).text(Field::HttpMethod, "GET").text(Field::HttpRoute, "/healthz");
    check([health()], expect![[""]]);
    check(
        [health(), call(2).under(1)],
        expect![[r#"
        #1 GET /healthz 200
          #2 m in=10 out=5 [a]
    "#]],
    );
    check(
        [health(), server(3)],
        expect![[r#"
        #3 POST /chat 200
    "#]],
    );
}

#[test]
fn the_status_is_the_code_else_500_for_an_error_else_nothing() {
    let bare = || server(1).without(Field::HttpStatus);
    check(
        [bare().number(Field::HttpStatus, 404)],
        expect![[r#"
        #1 POST /chat 404 error=404
    "#]],
    );
    check(
        [bare().failed()],
        expect![[r#"
        #1 POST /chat 500 error=500
    "#]],
    );
    check(
        [bare().failed().number(Field::HttpStatus, 503)],
        expect![[r#"
        #1 POST /chat 503 error=503
    "#]],
    );
    check(
        [bare()],
        expect![[r#"
        #1 POST /chat -
    "#]],
    );
    check(
        [bare().number(Field::HttpStatus, 70_000)],
        expect![[r#"
        #1 POST /chat -
    "#]],
    );
}

#[test]
fn the_error_is_a_message_where_kept_else_the_type_else_the_status() {
    let http = || server(1).failed().number(Field::HttpStatus, 500);
    check(
        [http()],
        expect![[r#"
        #1 POST /chat 500 error=500
    "#]],
    );
    check(
        [http().text(Field::ErrorType, "ValueError")],
        expect![[r#"
        #1 POST /chat 500 error=ValueError
    "#]],
    );
    check(
        [http().text(Field::ErrorType, "ValueError").text(Field::ErrorMessage, "no luck")],
        expect![[r#"
        #1 POST /chat 500 error=no luck
    "#]],
    );
    check([server(1).failed()], expect![[r#"
        #1 POST /chat 200 error=_OTHER
    "#]]);
    check(
        [server(1).text(Field::ErrorType, "ValueError")],
        expect![[r#"
        #1 POST /chat 200
    "#]],
    );
}

#[test]
fn a_span_that_ends_before_it_starts_took_no_time() {
    let spans = [server(1).at(1_000, 0)];
    assert_eq!(resolve(&spans, false).requests[0].record.duration, std::time::Duration::ZERO);
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
