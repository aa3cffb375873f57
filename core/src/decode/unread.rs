//! What was wanted of a body and could not be read.

/// Values that a reader was looking for and that are written in a way nobody understands. Their spans are taken without them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unread {
    pub count: u64,
    /// The key of an attribute, or what else it is called.
    first: Option<String>,
}

impl Unread {
    pub(super) fn add(&mut self, name: &str) {
        self.count += 1;
        self.first.get_or_insert_with(|| name.to_owned());
    }

    pub fn join(&mut self, other: Self) {
        self.count += other.count;
        self.first = self.first.take().or(other.first);
    }

    /// One line for the answer and the log; empty where everything was read. It names no value.
    pub fn message(&self) -> String {
        match (&self.first, self.count) {
            (None, _) => String::new(),
            (Some(first), 1) => format!("one value could not be read: {first}"),
            (Some(first), count) => format!("{count} values could not be read, the first of them: {first}"),
        }
    }
}
