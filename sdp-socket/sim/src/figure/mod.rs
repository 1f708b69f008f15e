//! The figure of the project's founding paper, drawn again: throughput and processor use of streams
//! over the size of messages and over the number of connections, copied and not.
//!
//! The paper (Goldenberg, Kagan, Ravid, Tsirkin, CLUSTER 2005, DOI 10.1109/CLUSTR.2005.347027) gives
//! 630 MB/s with copies and 1360 MB/s without, over eight connections on a link of 20 Gb/s, with a
//! tenth of the processor use.

mod machine;
mod pattern;
mod streams;
mod table;
mod verdict;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use sdp_verbs::sim::{Busy, Work};
use serde_json::{Value, json};

pub(crate) use machine::Machine;

use crate::cli::FigureOptions;
use crate::report::{self, Parts, Started};
use streams::{Amount, Measured, Mode, Point};

/// Connections of the paper's comparison.
const CONNS: usize = 8;
/// Bytes of a message where the number of connections varies.
const SIZE: usize = 1 << 20;

/// What is measured of a machine.
struct Axes {
    sizes: &'static [usize],
    conns: &'static [usize],
    modes: &'static [Mode],
}

impl Axes {
    fn of(machine: Machine, short: bool) -> Self {
        const KIB: usize = 1 << 10;
        if short {
            return Self {
                sizes: &[64 * KIB, SIZE],
                conns: &[1, CONNS],
                modes: &[Mode::Bcopy, Mode::Read, Mode::Zcopy],
            };
        }
        let sizes: &[usize] = match machine {
            Machine::Ddr2005 => &[
                4 * KIB,
                8 * KIB,
                16 * KIB,
                32 * KIB,
                64 * KIB,
                128 * KIB,
                256 * KIB,
                512 * KIB,
                SIZE,
            ],
            _ => &[16 * KIB, 64 * KIB, 256 * KIB, SIZE],
        };
        Self {
            sizes,
            conns: &[1, 2, 4, CONNS, 16],
            modes: &Mode::ALL,
        }
    }
}

/// The points of the machines: every size with [`CONNS`] connections, every number of connections
/// with messages of [`SIZE`].
fn points(machines: &[Machine], short: bool) -> Vec<Point> {
    let mut points = Vec::new();
    for machine in machines.iter().copied() {
        let axes = Axes::of(machine, short);
        let over_size = axes.sizes.iter().map(|size| (CONNS, *size));
        let over_conns = axes.conns.iter().map(|conns| (*conns, SIZE));
        for (conns, size) in over_size.chain(over_conns) {
            points.extend(axes.modes.iter().map(|mode| Point {
                machine,
                mode: *mode,
                conns,
                size,
            }));
        }
    }
    points.sort_unstable();
    points.dedup();
    points
}

/// Measures every point, on several threads: what comes out depends on none of that.
fn measure(
    points: &[Point],
    amount: Amount,
    options: &FigureOptions,
) -> anyhow::Result<Vec<Measured>> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done: Mutex<Vec<anyhow::Result<Measured>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        return;
                    };
                    let measured = streams::run(*point, amount, options.seed);
                    stop.fetch_or(measured.is_err(), Ordering::Relaxed);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.push(measured);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut done = done.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    done.sort_unstable_by_key(|measured| measured.point);
    Ok(done)
}

/// How many of the points that the figure is about are the same when measured once more, to the last
/// event, and of how many.
///
/// # Errors
/// As [`run`].
fn repeats(
    measured: &[Measured],
    amount: Amount,
    options: &FigureOptions,
) -> anyhow::Result<(usize, usize)> {
    let centre = |m: &&Measured| (m.point.conns, m.point.size) == (CONNS, SIZE);
    let before: Vec<_> = measured.iter().filter(centre).collect();
    let points: Vec<_> = before.iter().map(|measured| measured.point).collect();
    let again = measure(&points, amount, options)?;
    let same = before.iter().zip(&again).filter(|(a, b)| **a == *b);
    Ok((same.count(), before.len()))
}

/// Measures, prints the tables and reports. `Ok(true)`: every check holds.
///
/// # Errors
/// When a program of the simulation gets stuck, a rule of verbs is broken, or the report cannot be
/// written.
pub(crate) fn run(options: &FigureOptions) -> anyhow::Result<bool> {
    let started = Started::now();
    let machines = match &options.machine[..] {
        [] if options.short => &[Machine::Ddr2005],
        [] => &Machine::ALL[..],
        named => named,
    };
    let points = points(machines, options.short);
    let amount = match options.short {
        true => Amount {
            bytes: 8 << 20,
            sends: 4,
            pause: Duration::ZERO,
        },
        false => Amount {
            bytes: 32 << 20,
            sends: 16,
            pause: Duration::ZERO,
        },
    };
    let measured = measure(&points, amount, options)?;
    let repeats = repeats(&measured, amount, options)?;
    let (checks, skipped) = verdict::judge(&measured, repeats);
    let json = options.json.as_deref();
    let text = table::text(&measured, &checks)?;
    report::print(json, &text).context("printing the report")?;
    let parts = Parts {
        command: "paper",
        results: measured.iter().map(result).collect(),
        checks,
        skipped,
    };
    report::finish(json, &started, &parts)
}

/// One value, as a figure of reports: there is one round, since the next would give the same.
fn figure(value: f64) -> Value {
    json!({ "median": value, "min": value, "max": value, "rounds": 1 })
}

fn result(measured: &Measured) -> Value {
    let point = &measured.point;
    let gb = measured.bytes as f64 / 1e9;
    let work = |busy: &Busy| {
        let times = Work::ALL.map(|work| {
            let time = busy.on(work).as_secs_f64() / gb;
            (work.name().to_owned(), json!(time))
        });
        Value::Object(times.into_iter().collect())
    };
    let [sender, receiver] = &measured.below;
    json!({
        "workload": "bw", "peer": "sdp", "provider": "sim", "buffers": "heap", "wait": "sleep",
        "machine": point.machine.name(),
        "mode": point.mode.name(),
        "size": point.size,
        "conns": point.conns,
        "gb_per_s": figure(measured.mb_per_s() / 1e3),
        "cpu_s_per_gb": figure(measured.cpu_s_per_gb()),
        "cpu_percent": figure(measured.cpu_percent(0) + measured.cpu_percent(1)),
        "cpu_percent_sender": figure(measured.cpu_percent(0)),
        "cpu_percent_receiver": figure(measured.cpu_percent(1)),
        "busy_s_per_gb_sender": work(&measured.busy[0]),
        "busy_s_per_gb_receiver": work(&measured.busy[1]),
        "bytes": measured.total,
        "bytes_read": receiver.read_bytes,
        "bytes_written": sender.write_bytes,
        "bytes_in_messages": sender.send_bytes,
        "verified": measured.wrong == 0,
        "trace_hash": format!("{:016x}", measured.hash),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_point_is_measured_once() {
        let points = points(&Machine::ALL, false);
        let mut sorted = points.clone();
        sorted.dedup();
        assert_eq!(points, sorted);
        let figure = Point {
            machine: Machine::Ddr2005,
            mode: Mode::Zcopy,
            conns: CONNS,
            size: SIZE,
        };
        assert_eq!(points.iter().filter(|point| **point == figure).count(), 1);
    }
    /// What had to be copied because nobody read goes over a link that others keep busy, so that the
    /// peer's credits come slowly. For that it was copied for ever.
    #[test]
    fn who_has_read_nothing_for_a_while_is_sent_adverts_again() {
        let point = Point {
            machine: Machine::Ddr2005,
            mode: Mode::Zcopy,
            conns: CONNS,
            size: SIZE,
        };
        let amount = Amount {
            bytes: 0,
            sends: 32,
            pause: Duration::from_millis(50),
        };
        let measured = streams::run(point, amount, 1).unwrap();
        let copied = measured.below[0].send_bytes;
        println!("{} MB/s, {copied} bytes in messages", measured.mb_per_s());
        // What fits the buffers of both sides, and a little more.
        assert!(copied > 4 << 20, "nothing was copied in the pause");
        assert!(copied < 14 << 20, "{copied} bytes in messages");
    }
}
