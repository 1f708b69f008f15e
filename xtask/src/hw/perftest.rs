//! The programs of the package perftest, which say what the device can do.

use std::process::Command;

use serde_json::{Value, json};

/// A program, and what of ours it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tool {
    /// The program.
    pub(super) program: &'static str,
    /// How reports call it.
    pub(super) mode: &'static str,
    /// What it measures.
    pub(super) workload: &'static str,
    /// Bytes of a message. Both sides must agree, so there is one size.
    pub(super) size: u64,
    /// Messages.
    iterations: u32,
    /// Port of its server, counted from that of the control connection.
    pub(super) port: u16,
}

/// Those that are run.
pub(super) const TOOLS: [Tool; 3] = [
    Tool {
        program: "ib_read_bw",
        mode: "read",
        workload: "bw",
        size: 1 << 20,
        iterations: 200,
        port: 1,
    },
    Tool {
        program: "ib_write_bw",
        mode: "write",
        workload: "bw",
        size: 1 << 20,
        iterations: 200,
        port: 2,
    },
    Tool {
        program: "ib_send_lat",
        mode: "send",
        workload: "lat",
        size: 64,
        iterations: 1000,
        port: 3,
    },
];

/// Bytes of a megabyte as these programs count.
const MEGABYTE: f64 = 1_048_576.0;

impl Tool {
    /// Its command line; the peer's address makes it the client.
    pub(super) fn command(self, device: &str, control: u16, peer: Option<&str>) -> Command {
        let mut command = Command::new(self.program);
        command
            .args(["-R", "-F", "-d", device, "-s", &self.size.to_string()])
            .args(["-n", &self.iterations.to_string()])
            .args(["-p", &control.saturating_add(self.port).to_string()]);
        command.args(peer);
        command
    }

    /// The result in what it printed.
    pub(super) fn result(self, lines: &[String]) -> Option<Value> {
        // The last line that is numbers only: size, iterations, then the figures.
        let row = lines.iter().rev().find_map(|line| {
            let fields: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
            fields.ok().filter(|fields| fields.len() >= 4)
        })?;
        let figure =
            |value: f64| json!({ "median": value, "min": value, "max": value, "rounds": 1 });
        let mut result = json!({ "workload": self.workload, "peer": "perftest", "mode": self.mode,
            "provider": null, "buffers": "registered", "size": self.size, "conns": 1, "wait": "spin",
            "verified": false });
        if self.workload == "bw" {
            // Columns: size, iterations, peak, average, message rate.
            result["gb_per_s"] = figure(row.get(3)? * MEGABYTE / 1e9);
        } else {
            // Columns: size, iterations, least, most, typical, average, deviation, 99 %, 99.9 %.
            result["us_p50"] = figure(*row.get(4)?);
            result["us_p99"] = figure(*row.get(7)?);
        }
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn throughput_is_the_average_in_decimal_gigabytes() {
        let text = "\
 #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]
 65536      500              1100.00            1000.00              0.016000
---------------------------------------------------------------------------------------";
        let result = TOOLS[0].result(&lines(text)).unwrap();
        let median = result["gb_per_s"]["median"].as_f64().unwrap();
        assert!((median - 1.048_576).abs() < 1e-9);
        assert_eq!(result["mode"], "read");
    }

    #[test]
    fn latency_is_the_typical_one() {
        let text = "\
 #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]   99% percentile[usec]   99.9% percentile[usec]
 64      500          1.10           9.20         1.50     	       1.60        	0.10   		2.00    		9.00";
        let result = TOOLS[2].result(&lines(text)).unwrap();
        assert_eq!(result["us_p50"]["median"], 1.5);
        assert_eq!(result["us_p99"]["median"], 2.0);
    }

    #[test]
    fn no_table_is_no_result() {
        assert_eq!(
            TOOLS[0].result(&lines("Couldn't connect to 10.0.0.1")),
            None
        );
    }
}
