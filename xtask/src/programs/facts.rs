//! What a case says of itself (`fact` in xtask/programs/lib.sh).

use anyhow::{Context, bail};

/// What a case says.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Facts {
    /// Bytes that it has moved by SDP, at least.
    pub(super) moved: u64,
    /// Bytes that it has moved by TCP as it was to; none if none were to.
    pub(super) by_tcp: Option<u64>,
    /// Reasons for which sockets of it may be TCP's.
    pub(super) may_be_tcp: Vec<String>,
    /// Measurements: name, value, unit.
    pub(super) figures: Vec<(String, f64, String)>,
}

impl Facts {
    /// Of the lines that a case has written.
    ///
    /// # Errors
    /// When a line is none of them.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut facts = Self::default();
        for line in text.lines() {
            facts
                .add(line)
                .with_context(|| format!("a fact that nobody understands: {line}"))?;
        }
        Ok(facts)
    }

    fn add(&mut self, line: &str) -> anyhow::Result<()> {
        let (name, value) = line.split_once(' ').context("no value")?;
        match name {
            "moved" => self.moved += value.parse::<u64>()?,
            "tcp" => self.by_tcp = Some(self.by_tcp.unwrap_or(0) + value.parse::<u64>()?),
            "may_be_tcp" => self.may_be_tcp.push(value.to_owned()),
            "figure" => {
                let words: Vec<&str> = value.split(' ').collect();
                let [name, value, unit] = words[..] else {
                    bail!("not a name, a value and a unit");
                };
                self.figures
                    .push((name.to_owned(), value.parse()?, unit.to_owned()));
            }
            other => bail!("the word {other}"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_add_up() {
        let text = "moved 5\nmoved 7\nmay_be_tcp address taken\nfigure set 1.5 requests/s\n";
        let facts = Facts::parse(text).unwrap();
        assert_eq!((facts.moved, facts.by_tcp), (12, None));
        assert_eq!(facts.may_be_tcp, ["address taken"]);
        let figure = ("set".to_owned(), 1.5, "requests/s".to_owned());
        assert_eq!(facts.figures, [figure]);
        assert_eq!(Facts::parse("tcp 1\ntcp 2").unwrap().by_tcp, Some(3));
    }

    #[test]
    fn other_lines_are_named() {
        for line in ["moved", "moved x", "said 1", "figure a b"] {
            let error = Facts::parse(line).unwrap_err();
            assert!(format!("{error:#}").contains(line), "{error:#}");
        }
    }
}
