//! As much of PromQL as the rules for panels need: which series an expression asks for, in which function, and by which labels it
//! groups. Whether it is valid is promtool's to say.

#[derive(Debug, PartialEq)]
pub struct Selector {
    /// Empty where only matchers select.
    pub name: String,
    pub matchers: Vec<Matcher>,
    /// What stands in `[…]`.
    pub range: Option<String>,
    /// The function whose first argument this is.
    pub function: Option<String>,
}

#[derive(Debug, PartialEq)]
pub struct Matcher {
    pub label: String,
    pub operator: String,
    pub value: String,
}

impl Selector {
    pub fn has(&self, label: &str, operator: &str, value: &str) -> bool {
        self.matchers.iter().any(|one| one.label == label && one.operator == operator && one.value == value)
    }
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    /// The inside of `{…}`.
    Matchers(String),
    /// The inside of `[…]`.
    Range(String),
    /// The inside of `"…"`.
    Text(String),
    Sign(char),
}

/// What stands until `end`, which may stand in quotes before.
fn inside(rest: &mut std::str::Chars, end: char) -> String {
    let (mut found, mut is_quoted) = (String::new(), false);
    for next in rest.by_ref() {
        if next == end && (end == '"' || !is_quoted) {
            return found;
        }
        is_quoted ^= next == '"';
        found.push(next);
    }
    panic!("no {end} after {found}");
}

fn tokens(expr: &str) -> Vec<Token> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_:$.".contains(c);
    let mut found = Vec::new();
    let mut rest = expr.chars();
    while let Some(next) = rest.next() {
        found.push(match next {
            c if c.is_whitespace() => continue,
            '{' => Token::Matchers(inside(&mut rest, '}')),
            '[' => Token::Range(inside(&mut rest, ']')),
            '"' => Token::Text(inside(&mut rest, '"')),
            c if is_word(c) => {
                let more = rest.as_str().find(|c| !is_word(c)).unwrap_or(rest.as_str().len());
                let word = format!("{c}{}", &rest.as_str()[..more]);
                rest = rest.as_str()[more..].chars();
                Token::Word(word)
            }
            c => Token::Sign(c),
        });
    }
    found
}

fn matchers(inside: &str) -> Vec<Matcher> {
    let mut found = Vec::new();
    let mut rest = inside.trim();
    while !rest.is_empty() {
        let (label, after) = rest.split_at(rest.find(['=', '!']).unwrap());
        let (operator, after) = after.split_at(after.find('"').unwrap());
        let (value, after) = after[1..].split_once('"').unwrap();
        let [label, operator] = [label, operator].map(|text| text.trim().to_owned());
        found.push(Matcher { label, operator, value: value.to_owned() });
        rest = after.trim_start_matches([',', ' ']);
    }
    found
}

/// Words after which labels stand in parentheses.
const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const OPERATORS: [&str; 6] = ["and", "or", "unless", "atan2", "bool", "offset"];

/// The words of an expression in order, each with its place, without those that are labels to group by; and these labels.
fn sorted_out(tokens: &[Token]) -> (Vec<(usize, &str)>, Vec<String>) {
    let (mut words, mut labels) = (Vec::new(), Vec::new());
    let mut is_grouping = false;
    for (place, token) in tokens.iter().enumerate() {
        match token {
            Token::Word(word) if is_grouping => labels.push(word.clone()),
            Token::Word(word) => {
                is_grouping = GROUPING.contains(&word.as_str()) && tokens.get(place + 1) == Some(&Token::Sign('('));
                words.push((place, word.as_str()));
            }
            Token::Sign(')') => is_grouping = false,
            _ => {}
        }
    }
    (words, labels)
}

/// The labels by which an expression groups or joins.
pub fn grouped(expr: &str) -> Vec<String> {
    sorted_out(&tokens(expr)).1
}

pub fn selectors(expr: &str) -> Vec<Selector> {
    let tokens = tokens(expr);
    let is_name = |place: usize, word: &str| {
        !word.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && !GROUPING.contains(&word)
            && !OPERATORS.contains(&word)
            && tokens.get(place + 1) != Some(&Token::Sign('('))
            // An aggregation may say how it groups before what it aggregates.
            && !matches!(tokens.get(place + 1), Some(Token::Word(next)) if GROUPING[..2].contains(&next.as_str()))
    };
    let names = sorted_out(&tokens).0.into_iter().filter(|(place, word)| is_name(*place, word));
    let mut found: Vec<(usize, &str)> = names.collect();
    let is_nameless = |place: &usize| {
        matches!(tokens[*place], Token::Matchers(_)) && !found.iter().any(|(name, _)| name + 1 == *place)
    };
    let nameless: Vec<usize> = (0..tokens.len()).filter(is_nameless).collect();
    found.extend(nameless.into_iter().map(|place| (place, "")));
    found.into_iter().map(|(place, name)| selector(&tokens, place, name)).collect()
}

fn selector(tokens: &[Token], place: usize, name: &str) -> Selector {
    let mut after = tokens[place..].iter().skip(usize::from(!name.is_empty())).peekable();
    let matchers = match after.peek() {
        Some(Token::Matchers(inside)) => {
            after.next();
            matchers(inside)
        }
        _ => Vec::new(),
    };
    let range = match after.next() {
        Some(Token::Range(range)) => Some(range.clone()),
        _ => None,
    };
    let function = match tokens[..place] {
        [.., Token::Word(ref function), Token::Sign('(')] => Some(function.clone()),
        _ => None,
    };
    Selector { name: name.to_owned(), matchers, range, function }
}

#[test]
fn selectors_are_found_with_their_function() {
    let expr = r#"sum by (le, a) (rate(x_total{a="1|2", job=~"$job"}[$__range] @ end())) / on (b) (up offset 1w > 0) or {c!="}"}"#;
    let matcher = |label: &str, operator: &str, value: &str| Matcher {
        label: label.to_owned(),
        operator: operator.to_owned(),
        value: value.to_owned(),
    };
    let found = selectors(expr);
    let [counter, up, nameless] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(counter.name, "x_total");
    assert_eq!(counter.matchers, [matcher("a", "=", "1|2"), matcher("job", "=~", "$job")]);
    assert_eq!((counter.range.as_deref(), counter.function.as_deref()), (Some("$__range"), Some("rate")));
    assert_eq!((up.name.as_str(), &up.matchers, &up.range), ("up", &vec![], &None));
    assert_eq!((nameless.name.as_str(), &nameless.matchers), ("", &vec![matcher("c", "!=", "}")]));
    assert_eq!(grouped(expr), ["le", "a", "b"]);
    assert_eq!(selectors("minute() * 60 + 1e3 + x:rate5m")[0].name, "x:rate5m");
}
