//! Which spans are calls, and what each used.

use expect_test::expect;

use super::*;

const NEAREST: &str = "com.anthropic.sdk.python";

#[test]
fn a_call_inside_another_is_a_second_one_and_what_nobody_knows_above_both_is_none() {
    check(
        [server(1), span(2).under(1).tokens(99, 99), chat(3).under(2).tokens(99, 99), chat(4).under(3).tokens(10, 5)],
        expect![[r#"
            #1 POST /chat 200
              #3 m in=99 out=99 [a]
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
fn one_scope_may_be_its_own_twin() {
    let call = |id| chat(id).under(1).answer(7).tokens(10, 5);
    check(
        [server(1), call(2), call(3)],
        expect![[r#"
            #1 POST /chat 200
              #2 m in=10 out=5 [a]
        "#]],
    );
}

#[test]
fn one_answers_id_is_one_call_whenever_it_is_seen() {
    let call = |id| chat(id).under(1).answer(7).tokens(10, 5);
    check(
        [server(1), call(2), call(3).scope("b").at(300, 400)],
        expect![[r#"
            #1 POST /chat 200
              #2 m in=10 out=5 [a]
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
              #4 n in=10 out=5 [4]
              #5 m in=10 out=6 [5]
              #8 m in=10 out=5 [8]
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
    let call = chat(2).under(1).scope("openlit.instrumentation.anthropic").tokens(1_000, 5);
    let call = call.number(Field::CachedInputTokens, 30).number(Field::CacheWriteTokens, 4);
    check(
        [server(1), call],
        expect![[r#"
            #1 POST /chat 200
              #2 m in=1034 out=5 cached=30 write=4 [openlit.instrumentation.anthropic]
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
    let call = chat(2).under(1).text(Field::Operation, "embeddings").number(Field::InputTokens, 8);
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

#[test]
fn a_tool_inside_the_open_span_of_a_call_may_call_a_model_itself() {
    let tool = span(3).under(2).text(Field::Operation, "execute_tool");
    check(
        [server(1), chat(2).under(1).tokens(1_000, 100), tool, chat(4).under(3).tokens(1_000, 100)],
        expect![[r#"
            #1 POST /chat 200
              #2 m in=1000 out=100 [a]
              #4 m in=1000 out=100 [a]
        "#]],
    );
}

#[test]
fn no_call_of_a_model_is_silently_free() {
    let unlisted = span(2).under(1).text(Field::Operation, "frobnicate").text(Field::RequestModel, "m");
    let bare = span(3).under(1).text(Field::Provider, "openai").text(Field::RequestModel, "m").at(300, 400);
    let only_kind = span(4).under(1).text(Field::Operation, "LLM").at(500, 600);
    let only_cost = span(5).under(1).number(Field::ReportedCost, 40_000_000).at(700, 800);
    let by_name = span(6).under(1).scope("litellm").text(Field::Name, "raw_gen_ai_request").at(900, 950);
    let zeros = chat(7).under(1).tokens(0, 0).at(960, 970);
    check(
        [server(1), unlisted, bare, only_kind, only_cost, by_name, zeros],
        expect![[r#"
        #1 POST /chat 200
          #2 m unknown=missing [a]
          #3 m unknown=missing [a]
          #4 - unknown=missing [a]
          #5 - unknown=missing [a]
          #6 - unknown=missing [litellm]
          #7 m unknown=missing [a]
    "#]],
    );
}

#[test]
fn what_only_prepares_a_call_is_none() {
    let prepares = span(2).under(1).text(Field::Operation, "LLM").text(Field::Name, "OpenAI._prepare_chat_with_tools");
    check(
        [server(1), prepares, chat(3).under(2).tokens(10, 5)],
        expect![[r#"
        #1 POST /chat 200
          #3 m in=10 out=5 [a]
    "#]],
    );
}

#[test]
fn a_failed_call_is_free_only_where_nothing_was_answered() {
    let failed =
        |id: u64, class: &str| chat(id).under(1).at(id * 10, id * 10 + 5).failed().text(Field::ErrorType, class);
    check(
        [
            server(1),
            failed(2, "RateLimitError").number(Field::Streaming, 1),
            failed(3, "InternalServerError"),
            failed(4, "InternalServerError").number(Field::Streaming, 1),
            failed(5, "CancelledError"),
            failed(6, "APITimeoutError"),
            failed(7, "ConnectTimeout"),
            failed(8, "ValueError").answer(8),
            failed(9, "_OTHER").number(Field::ErrorCode, 429).answer(9),
            failed(10, "RateLimitError").number(Field::TimeToFirstToken, 3),
        ],
        expect![[r#"
            #1 POST /chat 200
              #2 m in=0 out=0 error=RateLimitError [a]
              #3 m in=0 out=0 error=InternalServerError [a]
              #4 m unknown=stream error=InternalServerError [a]
              #5 m unknown=missing error=CancelledError [a]
              #6 m unknown=missing error=APITimeoutError [a]
              #7 m in=0 out=0 error=ConnectTimeout [a]
              #8 m unknown=missing error=ValueError [a]
              #9 m in=0 out=0 error=_OTHER [a]
              #a m unknown=stream error=RateLimitError [a]
        "#]],
    );
}

#[test]
fn totals_tell_whether_parts_stand_beside_their_whole() {
    let call = |id: u64, total: u64| {
        chat(id).under(1).at(id * 10, id * 10 + 5).tokens(100, 20).number(Field::TotalTokens, total)
    };
    check(
        [
            server(1),
            call(2, 150).number(Field::ReasoningTokens, 30),
            call(3, 120).number(Field::ReasoningTokens, 15),
            call(4, 120).number(Field::ReasoningTokens, 30),
            call(5, 190).number(Field::CachedInputTokens, 70),
            call(6, 120).number(Field::CachedInputTokens, 70),
        ],
        expect![[r#"
            #1 POST /chat 200
              #2 m in=100 out=50 reasoning=30 [a]
              #3 m in=100 out=20 reasoning=15 [a]
              #4 m in=100 out=20 reasoning=30 [a]
              #5 m in=170 out=20 cached=70 [a]
              #6 m in=100 out=20 cached=70 [a]
        "#]],
    );
}

#[test]
fn a_provider_that_counts_without_its_cache_needs_all_of_it() {
    let v5 =
        |id: u64| chat(id).under(1).scope("ai").at(id * 10, id * 10 + 5).text(Field::Provider, "anthropic.messages");
    let cached = |sketch: Sketch| sketch.tokens(4, 10).number(Field::CachedInputTokens, 30);
    check(
        [
            server(1),
            cached(v5(2)),
            cached(v5(3)).number(Field::CacheWriteTokens, 2_000),
            cached(v5(4)).number(Field::InputDetails, 1).tokens(40, 10),
        ],
        expect![[r#"
            #1 POST /chat 200
              #2 m unknown=missing [ai]
              #3 m in=2034 out=10 cached=30 write=2000 [ai]
              #4 m in=40 out=10 cached=30 [ai]
        "#]],
    );
}

#[test]
fn a_log_of_a_call_is_a_view_of_it() {
    let pair = |id: u64| {
        let start = id * 100;
        let call = chat(id).under(1).scope("logfire.openai").at(start, start + 5);
        [call.clone(), chat(id + 1).under(1).scope("logfire.openai").at(start + 60, start + 60).number(Field::Log, 1)]
    };
    let ([one, log], [two, silent]) = (pair(2), pair(5));
    check(
        [server(1), one, log.tokens(10, 5), two, silent],
        expect![[r#"
        #1 POST /chat 200
          #3 m in=10 out=5 [logfire.openai]
          #5 m unknown=missing [logfire.openai]
    "#]],
    );
}

#[test]
fn an_answer_of_a_cache_repeats_another_call_and_is_one_of_its_own() {
    let asked = |id: u64, at: u64| chat(id).under(1).answer(7).tokens(2_000, 100).at(at, at + 50);
    let hit = |id: u64, at: u64| asked(id, at).number(Field::AnsweredFromCache, 1);
    let client = asked(5, 299).scope("b").at(299, 351);
    check(
        [server(1), asked(2, 100), hit(3, 200), hit(4, 300), client],
        expect![[r#"
        #1 POST /chat 200
          #2 m in=2000 out=100 [a]
          #3 m in=2000 out=100 [a]
          #4 m in=2000 out=100 [a]
    "#]],
    );
}

#[test]
fn a_view_with_the_same_numbers_goes_before_one_that_tells_nothing() {
    let outer = chat(2).under(1).at(0, 100).scope("b").tokens(10, 5);
    check(
        [server(1), outer, chat(3).under(2).at(1, 20), chat(4).under(2).at(30, 90).tokens(10, 5)],
        expect![[r#"
        #1 POST /chat 200
          #3 m unknown=missing [a]
          #4 m in=10 out=5 [a]
    "#]],
    );
}
