//! The evidence that two spans stand for the same call of a model. Each reason is a function of its own; which of them are asked
//! for, and in which order, say `nested` (a span inside another) and `twins` (spans beside each other).

use super::view::View;
use crate::domain::span::Span;

/// Why two spans are one call, or are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Same(&'static str),
    Different(&'static str),
}

/// The provider gives each of its answers an id.
pub(super) fn by_id(a: &View<'_>, b: &View<'_>) -> Option<Verdict> {
    match (a.id?, b.id?) {
        (one, other) if one == other => Some(Verdict::Same("the same id of the answer")),
        _ => Some(Verdict::Different("another id of the answer")),
    }
}

/// A span that names no model does not contradict. The name that was asked for may stand on one side and the dated name of the
/// answer on the other, with or without the prefix of a router.
pub(super) fn by_model(a: &View<'_>, b: &View<'_>) -> Option<Verdict> {
    let unnamed = |view: &View<'_>| view.models.iter().flatten().next().is_none();
    let alike =
        || a.models.iter().flatten().any(|model| b.models.iter().flatten().any(|other| is_one_model(model, other)));
    (!unnamed(a) && !unnamed(b) && !alike()).then_some(Verdict::Different("another model"))
}

/// `gpt-4.1`, `gpt-4.1-2025-04-14` and `openai/gpt-4.1`.
fn is_one_model(a: &str, b: &str) -> bool {
    let bare = |name: &str| name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let (a, b) = (bare(a), bare(b));
    let (short, long) = if a.len() <= b.len() { (&a, &b) } else { (&b, &a) };
    long.strip_prefix(short.as_str()).is_some_and(|rest| {
        rest.is_empty() || rest == "-latest" || rest.starts_with(['-', '@', ':']) && is_date(&rest[1..])
    })
}

fn is_date(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    digits >= 4 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

/// Counts are as good as a name: two calls with the same numbers at the same time are rare, and two instrumentations of one call
/// always have them.
pub(super) fn by_tokens(a: &View<'_>, b: &View<'_>) -> Option<Verdict> {
    match (&a.tokens, &b.tokens) {
        (Some(one), Some(other)) if (one.input, one.output) == (other.input, other.output) => {
            Some(Verdict::Same("the same tokens"))
        }
        (Some(_), Some(_)) => Some(Verdict::Different("other tokens")),
        _ => None,
    }
}

/// Of two views of one call, one lies within the other in time.
pub(super) fn one_holds_the_other(a: &Span, b: &Span) -> bool {
    let holds = |outer: &Span, inner: &Span| outer.start <= inner.start && inner.end <= outer.end;
    holds(a, b) || holds(b, a)
}

#[cfg(test)]
mod tests {
    use super::super::view::Role;
    use super::*;
    use crate::domain::call::Tokens;

    fn view<'t>(id: Option<&'t str>, model: Option<&'t str>, tokens: Option<(u64, u64)>) -> View<'t> {
        let tokens = tokens.map(|(input, output)| Tokens { input, output, ..Tokens::default() });
        View {
            role: Role::Call,
            tokens,
            id,
            models: [None, model],
            scope: "s",
            failed: false,
            log: false,
            from_cache: false,
        }
    }

    #[test]
    fn ids_decide_only_where_both_are_told() {
        let with = |id| view(id, None, None);
        assert!(matches!(by_id(&with(Some("a")), &with(Some("a"))), Some(Verdict::Same(_))));
        assert!(matches!(by_id(&with(Some("a")), &with(Some("b"))), Some(Verdict::Different(_))));
        assert_eq!(by_id(&with(Some("a")), &with(None)), None);
    }

    #[test]
    fn a_model_has_dates_and_prefixes_and_is_the_same() {
        for (a, b, same) in [
            ("gpt-4.1", "gpt-4.1-2025-04-14", true),
            ("gpt-4.1", "openai/gpt-4.1", true),
            ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929", true),
            ("claude-3-5-sonnet-latest", "claude-3-5-sonnet", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-4.1", "gpt-4.1-mini-2025-04-14", false),
            ("claude-sonnet-4", "claude-sonnet-4-5", false),
        ] {
            assert_eq!(is_one_model(a, b), same, "{a} {b}");
            let different = by_model(&view(None, Some(a), None), &view(None, Some(b), None)).is_some();
            assert_eq!(different, !same, "{a} {b}");
        }
        assert_eq!(by_model(&view(None, None, None), &view(None, Some("m"), None)), None);
    }

    #[test]
    fn tokens_decide_only_where_both_are_told() {
        let with = |tokens| view(None, None, tokens);
        assert!(matches!(by_tokens(&with(Some((1, 2))), &with(Some((1, 2)))), Some(Verdict::Same(_))));
        assert!(matches!(by_tokens(&with(Some((1, 2))), &with(Some((2, 1)))), Some(Verdict::Different(_))));
        assert_eq!(by_tokens(&with(None), &with(Some((2, 1)))), None);
    }
}
