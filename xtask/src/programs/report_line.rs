//! What a process under the preload library says at its end (`SDP_PRELOAD_REPORT`).

use anyhow::{Context, bail};

/// The line of one process, or the sum of several.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Reported {
    /// Connections made and accepted by SDP.
    pub(crate) connections: u64,
    /// Connections accepted by TCP.
    pub(crate) accepted_by_tcp: u64,
    /// Why sockets were left to TCP, and how many.
    pub(crate) tcp: Vec<(String, u64)>,
    /// Connections that children could not be given.
    pub(crate) lost: u64,
    /// Bytes sent by SDP: in all, and not copied.
    pub(crate) sent: Bytes,
    /// Bytes received by SDP.
    pub(crate) received: Bytes,
}

/// Bytes of one direction.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes {
    /// In all.
    pub(crate) all: u64,
    /// Not copied.
    pub(crate) zcopy: u64,
}

impl Reported {
    /// Adds up the lines of a case.
    ///
    /// # Errors
    /// When a line is none of the library's.
    pub(crate) fn sum(text: &str) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for line in text.lines() {
            sum.add(line)
                .with_context(|| format!("a report that nobody understands: {line}"))?;
        }
        Ok(sum)
    }

    fn add(&mut self, line: &str) -> anyhow::Result<()> {
        let (_, said) = line.split_once("]: SDP: ").context("no name")?;
        for part in said.split("; ") {
            let (head, rest) = part.split_once(": ").unwrap_or(("", part));
            match head {
                "" => {
                    let both = rest.split(", ").map(|words| count(words, ""));
                    for (count, word) in both.collect::<anyhow::Result<Vec<_>>>()? {
                        match word.as_str() {
                            "connected" | "accepted" => self.connections += count,
                            other => bail!("connections that are {other}"),
                        }
                    }
                }
                "TCP" => self.add_tcp(rest)?,
                "to children" | "io_uring" => {}
                "not to children" => self.lost += rest.parse::<u64>()?,
                "sent" => self.sent.add(rest)?,
                "received" => self.received.add(rest)?,
                other => bail!("the word {other}"),
            }
        }
        Ok(())
    }

    fn add_tcp(&mut self, rest: &str) -> anyhow::Result<()> {
        for (at, words) in rest.split(", ").enumerate() {
            if at == 0 {
                self.accepted_by_tcp += count(words, " accepted")?.0;
                continue;
            }
            let (reason, number) = words.rsplit_once(' ').context("no number")?;
            let number: u64 = number.parse()?;
            match self.tcp.iter_mut().find(|(known, _)| known == reason) {
                Some((_, sum)) => *sum += number,
                None => self.tcp.push((reason.to_owned(), number)),
            }
        }
        Ok(())
    }
}

impl Bytes {
    fn add(&mut self, rest: &str) -> anyhow::Result<()> {
        for words in rest.split(", ") {
            let (bytes, how) = count(words, "")?;
            self.all += bytes;
            if how == "zero copy" {
                self.zcopy += bytes;
            }
        }
        Ok(())
    }
}

/// `12 words`, which must be the given ones if they are.
fn count(words: &str, must_be: &str) -> anyhow::Result<(u64, String)> {
    let (number, word) = words.split_once(' ').context("no word")?;
    if !must_be.is_empty() && word != must_be.trim_start() {
        bail!("the word {word}");
    }
    Ok((number.parse()?, word.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_add_up() {
        let text = "\
nginx[7]: SDP: 1 connected, 12 accepted; TCP: 3 accepted, late 2, address taken 1; to children: 4; \
not to children: 5; io_uring: goes past SDP; sent: 10 copied, 2 inline, 30 zero copy; received: 1 copied, 0 inline, 0 zero copy
a b[8]: SDP: 0 connected, 0 accepted; TCP: 0 accepted, late 1; sent: 1 copied, 0 inline, 0 zero copy; \
received: 0 copied, 0 inline, 7 zero copy
";
        let sum = Reported::sum(text).unwrap();
        assert_eq!(sum.connections, 13);
        assert_eq!(sum.accepted_by_tcp, 3);
        let tcp = [("late".to_owned(), 3), ("address taken".to_owned(), 1)];
        assert_eq!(sum.tcp, tcp);
        assert_eq!(sum.lost, 5);
        assert_eq!((sum.sent.all, sum.sent.zcopy), (43, 30));
        assert_eq!((sum.received.all, sum.received.zcopy), (8, 7));
    }

    #[test]
    fn other_lines_are_named() {
        for line in [
            "x",
            "x[1]: SDP: 1 heard; TCP: 0 accepted",
            "x[1]: SDP: 0 connected, 0 accepted; TCP: 0 taken",
            "x[1]: SDP: 0 connected, 0 accepted; UDP: 1",
        ] {
            let error = Reported::sum(line).unwrap_err();
            assert!(format!("{error:#}").contains(line), "{error:#}");
        }
        assert_eq!(Reported::sum("").unwrap(), Reported::default());
    }
}
