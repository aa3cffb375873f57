//! Which spans are calls, and what each used.

use expect_test::expect;

use super::*;

const NEAREST: &str = "com.anthropic.sdk.python";

#[test]
fn the_deepest_span_with_tokens_wins() {
    check(
        [server(1), span(2).under(1).tokens(99, 99), chat(3).under(2).tokens(99, 99), chat(4).under(3).tokens(10, 5)],
        expect![[r#"
            #1 POST /chat 200
              #4 m in=10 out=5 [a]
        "#]],
    );
}

#[test]
fn an_agent_is_not_counted_beside_its_calls() {
    check(
        [server(1), span(2).under(1).tokens(30, 3), chat(3).under(2).tokens(10, 1), chat(4).under(2).tokens(20, 2)],
        expect![[r#"
            #1 POST /chat 200
              #3 m in=10 out=1 [a]
              #4 m in=20 out=2 [a]
        "#]],
    );
}

#[test]
fn a_childless_parent_with_tokens_counts() {
    check(
        [server(1), chat(2).under(1).tokens(10, 5), span(3).under(2)],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn a_span_without_tokens_inside_a_call_is_a_view_of_it() {
    check(
        [server(1), chat(2).under(1).tokens(10, 5), chat(3).under(2)],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn an_agent_counts_where_its_calls_lack_tokens_and_they_are_unknown() {
    check(
        [server(1), span(2).under(1).tokens(30, 3), chat(3).under(2), chat(4).under(2)],
        expect![[r#"
        #1 POST /chat 200
          #2 - in=30 out=3 [a]
          #3 m unknown=missing [a]
          #4 m unknown=missing [a]
    "#]],
    );
}

#[test]
fn the_deepest_of_tokenless_model_spans_is_the_call() {
    check(
        [server(1), chat(2).under(1), chat(3).under(2)],
        expect![[r#"
        #1 POST /chat 200
          #3 m unknown=missing [a]
    "#]],
    );
}

#[test]
fn twins_share_the_answers_id_numbers_come_from_the_one_nearest_the_wire_and_names_from_the_other() {
    let near = chat(2).under(1).scope(NEAREST).answer(7).tokens(10, 5).text(Field::RequestModel, "near");
    let far = chat(3).under(1).scope("b").answer(7).tokens(11, 5).text(Field::RequestModel, "far");
    check(
        [server(1), near, far],
        expect![[r#"
        #1 POST /chat 200
          #2 far in=10 out=5 [com.anthropic.sdk.python]
    "#]],
    );
}

#[test]
fn a_twin_without_tokens_gives_no_numbers() {
    let near = chat(2).under(1).scope(NEAREST).answer(7);
    check(
        [server(1), near, chat(3).under(1).scope("b").answer(7).tokens(11, 5)],
        expect![[r#"
        #1 POST /chat 200
          #3 m in=11 out=5 [b]
    "#]],
    );
}

#[test]
fn the_error_of_a_call_is_named_by_the_twin_that_knows_it() {
    let near = chat(2).under(1).scope(NEAREST).answer(7).failed();
    let far = chat(3).under(1).scope("b").answer(7).failed().text(Field::ErrorType, "RateLimited");
    check(
        [server(1), near, far],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=0 out=0 error=RateLimited [com.anthropic.sdk.python]
    "#]],
    );
}

#[test]
fn two_calls_of_one_scope_stay_two_whatever_id_they_share() {
    let call = |id| chat(id).under(1).answer(7).tokens(10, 5);
    check(
        [server(1), call(2), call(3)],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=10 out=5 [a]
          #3 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn one_answers_id_at_different_times_is_two_calls() {
    let call = |id| chat(id).under(1).answer(7).tokens(10, 5);
    check(
        [server(1), call(2), call(3).scope("b").at(300, 400)],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=10 out=5 [a]
          #3 m in=10 out=5 [b]
    "#]],
    );
}

#[test]
fn twins_without_ids_merge_below_one_parent() {
    let call = |id| chat(id).under(1).tokens(10, 5);
    check(
        [server(1), call(2), call(3).scope("b").at(150, 250)],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn an_id_on_one_side_is_enough() {
    let call = |id| chat(id).under(1).tokens(10, 5);
    check(
        [server(1), call(2).answer(7), call(3).scope("b").at(90, 210)],
        expect![[r#"
        #1 POST /chat 200
          #3 m in=10 out=5 [b]
    "#]],
    );
}

#[test]
fn spans_without_ids_that_differ_in_anything_stay_apart() {
    let call = |id: u64| chat(id).under(1).tokens(10, 5).scope(&id.to_string());
    check(
        [
            server(1),
            call(2),
            call(3).at(300, 400),
            call(4).text(Field::RequestModel, "n"),
            call(5).tokens(10, 6),
            call(6).under(2_000),
            span(7).under(1),
            call(8).under(7),
            call(9).failed(),
        ],
        expect![[r#"
            #1 POST /chat 200
              #2 m in=10 out=5 [2]
              #4 n in=10 out=5 [4]
              #5 m in=10 out=6 [5]
              #8 m in=10 out=5 [8]
              #9 m in=10 out=5 error=_OTHER [9]
              #3 m in=10 out=5 [3]
            waiting for #7d0
        "#]],
    );
}

#[test]
fn spans_whose_different_parents_never_came_are_no_twins() {
    let call = |id: u64| chat(id).tokens(10, 5).scope(&id.to_string());
    check_expired(
        [call(2).under(90), call(3).under(91)],
        expect![[r#"
            #5a - - -
              #2 m in=10 out=5 [2]
            #5b - - -
              #3 m in=10 out=5 [3]
        "#]],
    );
}

#[test]
fn twins_without_ids_find_each_other_among_hundreds_of_calls() {
    let near = |n: u64| chat(1_000 + n).under(1).answer(n).tokens(10, 5).at(n * 10, n * 10 + 5);
    let far = |n: u64| chat(2_000 + n).under(1).scope("b").tokens(10, 5).at(n * 10, n * 10 + 5);
    let spans: Vec<Sketch> = std::iter::once(server(1)).chain((0..300).flat_map(|n| [near(n), far(n)])).collect();
    assert_eq!(resolve(&spans, false).requests[0].calls.len(), 300);
}

#[test]
fn unknown_usage_is_not_zero() {
    check(
        [
            server(1),
            chat(2).under(1),
            chat(3).under(1).number(Field::Streaming, 1),
            chat(4).under(1).number(Field::TimeToFirstToken, 5),
            chat(5).under(1).number(Field::Streaming, 0),
        ],
        expect![[r#"
            #1 POST /chat 200
              #2 m unknown=missing [a]
              #3 m unknown=stream [a]
              #4 m unknown=stream [a]
              #5 m unknown=missing [a]
        "#]],
    );
}

#[test]
fn a_failed_call_without_tokens_used_nothing() {
    check(
        [server(1), chat(2).under(1).failed().text(Field::ErrorType, "RateLimited"), chat(3).under(1).failed()],
        expect![[r#"
            #1 POST /chat 200
              #2 m in=0 out=0 error=RateLimited [a]
              #3 m in=0 out=0 error=_OTHER [a]
        "#]],
    );
}

#[test]
fn a_failed_call_with_tokens_used_them() {
    check(
        [server(1), chat(2).under(1).failed().tokens(10, 5)],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=10 out=5 error=_OTHER [a]
    "#]],
    );
}

#[test]
fn input_given_without_its_cached_part_is_completed() {
    let call = chat(2).under(1).number(Field::InputWithoutCache, 1).tokens(1_000, 5);
    let call = call.number(Field::CachedInputTokens, 30).number(Field::CacheWriteTokens, 4);
    check(
        [server(1), call],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=1034 out=5 cached=30 write=4 [a]
    "#]],
    );
}

#[test]
fn parts_greater_than_the_whole_are_added_to_it() {
    let cached = chat(2).under(1).tokens(100, 5).number(Field::CachedInputTokens, 3_000);
    let written = chat(3).under(1).tokens(100, 5).number(Field::CachedInputTokens, 60);
    let reasoned = chat(4).under(1).tokens(100, 5).number(Field::ReasoningTokens, 64);
    check(
        [server(1), cached, written.number(Field::CacheWriteTokens, 60), reasoned],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=3100 out=5 cached=3000 [a]
          #3 m in=220 out=5 cached=60 write=60 [a]
          #4 m in=100 out=69 reasoning=64 [a]
    "#]],
    );
}

#[test]
fn parts_equal_to_the_whole_are_in_it() {
    let call = chat(2).under(1).tokens(100, 64).number(Field::CachedInputTokens, 100);
    check(
        [server(1), call.number(Field::ReasoningTokens, 64)],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=100 out=64 cached=100 reasoning=64 [a]
    "#]],
    );
}

#[test]
fn implausible_counts_are_unknown_usage() {
    check(
        [server(1), chat(2).under(1).number(Field::OutputTokens, 5).number(Field::ImplausibleTokens, 1)],
        expect![[r#"
            #1 POST /chat 200
              #2 m unknown=implausible [a]
        "#]],
    );
}

#[test]
fn an_embedding_has_input_only() {
    let call = chat(2).under(1).text(Field::ModelOperation, "embeddings").number(Field::InputTokens, 8);
    check(
        [server(1), call],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=8 out=0 [a]
    "#]],
    );
}

#[test]
fn the_answering_model_goes_before_the_one_asked_for() {
    check(
        [server(1), chat(2).under(1).tokens(1, 1).text(Field::ResponseModel, "m-2026")],
        expect![[r#"
        #1 POST /chat 200
          #2 m-2026 in=1 out=1 [a]
    "#]],
    );
}
