//! JSON, written member by member, for a report that nobody should have to hold in memory.

use std::fmt::{Display, Write as _};

/// The members of an object that is being written.
#[derive(Debug)]
pub(super) struct Members<'a> {
    text: &'a mut String,
    any: bool,
}

/// Appends an object.
pub(super) fn object(text: &mut String, fill: impl FnOnce(&mut Members<'_>)) {
    text.push('{');
    fill(&mut Members::inside(text));
    text.push('}');
}

impl<'a> Members<'a> {
    /// Those of an object whose beginning stands in `text`, and whose end somebody else writes.
    pub(super) fn inside(text: &'a mut String) -> Self {
        Self { text, any: false }
    }

    /// A member, up to its value.
    fn key(&mut self, key: &str) {
        if std::mem::replace(&mut self.any, true) {
            self.text.push(',');
        }
        quoted(self.text, key);
        self.text.push(':');
    }

    pub(super) fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{value}");
    }

    /// A length or a count.
    pub(super) fn count(&mut self, key: &str, value: usize) {
        self.number(key, value as u64);
    }

    pub(super) fn flag(&mut self, key: &str, value: bool) {
        self.key(key);
        self.text.push_str(if value { "true" } else { "false" });
    }

    /// A number; null if there is none.
    pub(super) fn number_if(&mut self, key: &str, value: Option<u64>) {
        match value {
            Some(value) => self.number(key, value),
            None => self.null(key),
        }
    }

    /// A string; null if there is none.
    pub(super) fn string(&mut self, key: &str, value: Option<impl Display>) {
        match value {
            Some(value) => {
                self.key(key);
                quoted(self.text, &value.to_string());
            }
            None => self.null(key),
        }
    }

    fn null(&mut self, key: &str) {
        self.key(key);
        self.text.push_str("null");
    }

    pub(super) fn object(&mut self, key: &str, fill: impl FnOnce(&mut Members<'_>)) {
        self.key(key);
        object(self.text, fill);
    }

    /// A list of objects.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        fill: impl Fn(&mut Members<'_>, T),
    ) {
        self.begin_list(key);
        for (number, item) in items.into_iter().enumerate() {
            if number > 0 {
                self.text.push(',');
            }
            object(self.text, |members| fill(members, item));
        }
        self.text.push(']');
    }

    /// A list whose items somebody else writes, and its end too.
    pub(super) fn begin_list(&mut self, key: &str) {
        self.key(key);
        self.text.push('[');
    }
}

/// Appends a string in quotes.
fn quoted(text: &mut String, value: &str) {
    text.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => {
                // Every control character is below U+00A0.
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written is what a reader of JSON reads, whatever a string holds.
    #[test]
    fn a_reader_reads_it() {
        let mut text = String::new();
        let odd = "a\"b\\c\nd\u{7f}\u{9f}e";
        object(&mut text, |members| {
            members.number("n", u64::MAX);
            members.string("s", Some(odd));
            members.string("none", None::<&str>);
            members.number_if("nothing", None);
            members.flag("f", true);
            members.object("o", |_| ());
            members.list("l", [1, 2], |members, n| members.number("n", n));
        });
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["n"], u64::MAX);
        assert_eq!(value["s"], odd);
        assert!(value["none"].is_null() && value["nothing"].is_null());
        assert_eq!(value["f"], true);
        assert_eq!(value["o"], serde_json::json!({}));
        assert_eq!(value["l"][1]["n"], 2);
    }
}
