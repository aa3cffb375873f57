//! Texts in CSV files, which people open in spreadsheets.

/// A text that a spreadsheet shows as it is: it would take one that begins like a formula for a formula, and others choose
/// these names. An apostrophe before it makes it a text, as OWASP advises. Never for numbers.
pub(crate) fn text(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn what_begins_like_a_formula_is_a_text() {
        for formula in ["=HYPERLINK(\"http://x\")", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            assert_eq!(text(formula), format!("'{formula}"));
        }
        for plain in ["", "ann", "a=b", "'=1", " =1", "7"] {
            assert_eq!(text(plain), plain);
        }
    }
}
