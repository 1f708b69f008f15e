//! What the environment and the file of rules say, read at the first socket.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use crate::log;
use crate::rules::{Choice, Rules};

/// Names the file of rules.
const FILE_VARIABLE: &str = "LIBSDP_CONFIG_FILE";
/// Set: every stream socket speaks SDP, whatever the rules.
const SIMPLE_VARIABLE: &str = "SIMPLE_LIBSDP";
/// `stderr`, or the file that the report is added to.
const REPORT_VARIABLE: &str = "SDP_PRELOAD_REPORT";
/// Milliseconds that a connect by both protocols waits for SDP.
const WAIT_VARIABLE: &str = "SDP_PRELOAD_WAIT";
/// Read if it is there and no other is named.
const FILE_DEFAULT: &str = "/etc/libsdp.conf";

/// Where the report goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Report {
    Stderr,
    File(PathBuf),
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) rules: Rules,
    /// The program's name, as rules have it.
    pub(crate) program: String,
    pub(crate) report: Option<Report>,
    pub(crate) wait: Option<Duration>,
}

static CONFIG: OnceLock<Config> = OnceLock::new();

/// This process's.
pub(crate) fn config() -> &'static Config {
    CONFIG.get_or_init(read)
}

/// This process's, if it has used any socket that could be ours.
pub(crate) fn config_if_read() -> Option<&'static Config> {
    CONFIG.get()
}

fn read() -> Config {
    log::know_stderr();
    let (rules, complaints) = rules();
    let config = Config {
        rules,
        program: program(),
        report: env::var_os(REPORT_VARIABLE).and_then(report),
        wait: env::var(WAIT_VARIABLE)
            .ok()
            .and_then(|text| text.parse().ok())
            .map(Duration::from_millis),
    };
    for complaint in complaints {
        log::to_stderr(&complaint);
    }
    config
}

fn report(to: OsString) -> Option<Report> {
    match to.to_str() {
        Some("") => None,
        Some("stderr") => Some(Report::Stderr),
        _ => Some(Report::File(to.into())),
    }
}

/// The rules, and what is wrong with their file.
fn rules() -> (Rules, Vec<String>) {
    if env::var_os(SIMPLE_VARIABLE).is_some() {
        return (Rules::always(Choice::Sdp), Vec::new());
    }
    let named = env::var_os(FILE_VARIABLE);
    let path = PathBuf::from(named.clone().unwrap_or_else(|| FILE_DEFAULT.into()));
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return (Rules::default(), Vec::new());
        }
        Err(error) => {
            let words = format!("{}: {error}: no rules", path.display());
            return (Rules::default(), vec![words]);
        }
    };
    let (rules, mistakes) = Rules::parse(&text);
    let said = mistakes.iter().map(|m| format!("{}:{m}", path.display()));
    (rules, said.collect())
}

/// The last part of the name by which the program was started.
fn program() -> String {
    let path = env::args_os().next().map(PathBuf::from);
    let path = path.or_else(|| env::current_exe().ok());
    let name = path.as_deref().and_then(|path| path.file_name());
    name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a report goes, and where not.
    #[test]
    fn reports() {
        assert_eq!(report("".into()), None);
        assert_eq!(report("stderr".into()), Some(Report::Stderr));
        assert_eq!(report("/tmp/x".into()), Some(Report::File("/tmp/x".into())));
    }
}
