//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};

use crate::figure::Machine;

/// Runs seeds of the simulation.
#[derive(Clone, Debug, Parser)]
#[command(name = "sdp-sim", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    /// Something else than seeds.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    pub(crate) start: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    pub(crate) seeds: u64,
    /// Go on for so many minutes, however many seeds that are.
    #[arg(long)]
    pub(crate) minutes: Option<f64>,
    /// Threads, each with seeds of its own.
    #[arg(long, default_value_t = 2)]
    pub(crate) jobs: usize,
    /// Operations to leave out, by number: `0-3,7`.
    #[arg(long, default_value = "")]
    pub(crate) skip: Numbers,
    /// Faults to leave out, by number.
    #[arg(long, default_value = "")]
    pub(crate) spare: Numbers,
    /// Print the last lines of what happened on the fabric.
    #[arg(long, default_value_t = 0)]
    pub(crate) log: usize,
    /// Do not look for a smaller run that fails as well.
    #[arg(long)]
    pub(crate) no_minimise: bool,
    /// Who sits at the other end; by default ourselves, and in one seed of four whoever is legal.
    #[arg(long)]
    pub(crate) peer: Option<Peer>,
    /// Switch a planted bug on, by its name, and look for a seed that finds it; `all`: each of
    /// them, one after the other. Only in a build with `--cfg sdp_mutate`.
    #[arg(long, value_name = "NAME")]
    pub(crate) mutate: Option<String>,
    /// Write the report to FILE as JSON (`-`: standard output, text then goes to standard error).
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// What else there is to run.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure streams over one link: message sizes, numbers of connections, copied or not
    Figure(FigureOptions),
}

/// Options of `figure`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FigureOptions {
    /// A few points only, in seconds.
    #[arg(long)]
    pub(crate) short: bool,
    /// Machines; by default all.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) machine: Vec<Machine>,
    /// Decides who runs first where several programs may, and what is sent.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Threads, each with points of its own.
    #[arg(long, default_value_t = 2)]
    pub(crate) jobs: usize,
    /// Write the report to FILE as JSON (`-`: standard output, text then goes to standard error).
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Who sits at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Peer {
    /// Our own stack, with a witness that knows what each side knew when it spoke.
    Strict,
    /// OFED 1.5: one source advert at a time, cancelled after a second or when two cross.
    Ofed15,
    /// FreeBSD, and OFED before 1.5: copies only, and refuses every advert.
    BcopyOnly,
    /// The first generation: version 1.1, Pipelined, SendSm as a cancel's answer only.
    Gen1,
    /// Whatever is legal, at any time.
    Any,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use clap::ValueEnum;
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// A set of numbers, written as ranges.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Numbers(pub(crate) Vec<(u64, u64)>);

impl Numbers {
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.0
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&number))
    }

    /// The numbers of a list.
    pub(crate) fn of(numbers: &[u64]) -> Self {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some((_, to)) if *to + 1 == *number => *to = *number,
                _ => ranges.push((*number, *number)),
            }
        }
        Self(ranges)
    }
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|error| format!("{text:?}: {error}"));
        let parts = text.split(',').filter(|part| !part.is_empty());
        let ranges = parts.map(|part| match part.split_once('-') {
            Some((from, to)) => Ok((number(from)?, number(to)?)),
            None => number(part).map(|number| (number, number)),
        });
        ranges.collect::<Result<_, String>>().map(Self)
    }
}

impl std::fmt::Display for Numbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, (from, to)) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            if from == to {
                write!(f, "{comma}{from}")?;
            } else {
                write!(f, "{comma}{from}-{to}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_ranges() {
        let numbers = Numbers::of(&[0, 1, 2, 5, 7, 8]);
        assert_eq!(numbers.to_string(), "0-2,5,7-8");
        assert_eq!("0-2,5,7-8".parse(), Ok(numbers.clone()));
        assert!(numbers.contains(1) && numbers.contains(5) && !numbers.contains(6));
        assert_eq!("".parse(), Ok(Numbers::default()));
        assert!("x".parse::<Numbers>().is_err());
    }
}
