//! What the record of a request says.

use expect_test::expect;

use super::*;

fn call(id: u64) -> Sketch {
    chat(id).tokens(10, 5)
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

/// The request's own span first, then the others from the earliest on. A conversation, which frameworks make up, comes after every
/// session, whatever span names it.
#[test]
fn the_session_is_the_first_that_is_named_and_a_conversation_stands_in_for_it() {
    let run = span(2).under(1).at(100, 190).text(Field::Conversation, "run-1");
    check(
        [server(1), run.clone()],
        expect![[r#"
        #1 POST /chat 200 session=run-1
    "#]],
    );
    let later = call(3).under(2).at(120, 130).text(Field::Session, "late");
    let sooner = call(4).under(2).at(110, 180).text(Field::Session, "soon");
    check(
        [later.clone(), server(1), run.clone(), sooner.clone()],
        expect![[r#"
            #1 POST /chat 200 session=soon
              #4 m in=10 out=5 [a]
              #3 m in=10 out=5 [a]
        "#]],
    );
    check(
        [server(1).text(Field::Session, "visit"), sooner, run, later],
        expect![[r#"
            #1 POST /chat 200 session=visit
              #4 m in=10 out=5 [a]
              #3 m in=10 out=5 [a]
        "#]],
    );
}

/// Of another user's work: what its own spans say, else what the request says.
#[test]
fn another_users_record_has_its_own_session_or_the_requests() {
    let ann = server(1).text(Field::User, "ann").text(Field::Session, "visit");
    let bob = span(2).under(1).text(Field::User, "bob");
    check(
        [ann.clone(), bob.clone(), call(3).under(2)],
        expect![[r#"
        #1 POST /chat 200 user=ann session=visit
        #2 INTERNAL /chat - user=bob session=visit
          #3 m in=10 out=5 [a]
    "#]],
    );
    check(
        [ann, bob, call(3).under(2).text(Field::Session, "digest")],
        expect![[r#"
        #1 POST /chat 200 user=ann session=visit
        #2 INTERNAL /chat - user=bob session=digest
          #3 m in=10 out=5 [a]
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
fn what_no_route_took_is_one_endpoint() {
    let asked = |status, name| {
        let http = server(1).without(Field::HttpRoute).text(Field::HttpPath, "/wp-login.php");
        http.text(Field::Name, name).number(Field::HttpStatus, status)
    };
    let endpoint = |http: Sketch| {
        let resolution = resolve(&[http], false);
        resolution.requests[0].record.endpoint.as_deref().unwrap_or_default().to_owned()
    };
    for (status, name, expected) in [
        (404, "GET", "unmatched"),
        (405, "GET", "unmatched"),
        (404, "GET /wp-login.php", "unmatched"),
        (404, "GET /agents/{agent_id}", "/agents/{agent_id}"),
        (403, "GET", "/wp-login.php"),
    ] {
        assert_eq!(endpoint(asked(status, name)), expected, "{status} {name}");
    }
    let routed = server(1).text(Field::HttpPath, "/chat").number(Field::HttpStatus, 404);
    assert_eq!(endpoint(routed), "/chat");
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
    check(
        [server(1).failed()],
        expect![[r#"
        #1 POST /chat 200 error=_OTHER
    "#]],
    );
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
