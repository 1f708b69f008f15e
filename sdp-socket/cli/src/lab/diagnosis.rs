//! What a process that does not get on is doing: for people who look for the reason.

use std::fmt::Write;
use std::{env, fs, process};

use super::process::children_are_doing;

/// Where every thread of this process is, as the kernel sees it, and the state of every connection
/// of ours.
pub(super) fn diagnosis() -> String {
    format!("{}\n{}", threads(), sdp_socket::diagnosis())
}

/// One line per thread: name, state, what it sleeps on in the kernel, the system call with its
/// arguments. What this user may not see is left out.
fn threads() -> String {
    let mut text = String::new();
    let tasks = match fs::read_dir("/proc/self/task") {
        Ok(tasks) => tasks,
        Err(error) => return format!("no threads: {error}"),
    };
    for task in tasks.filter_map(Result::ok) {
        let part = |name| {
            let part = fs::read_to_string(task.path().join(name));
            part.map_or_else(|error| error.kind().to_string(), |text| one_line(&text))
        };
        let status = part("status");
        let field = |name| {
            let found = status.split(';').find_map(|line| line.strip_prefix(name));
            found.unwrap_or("?").trim().to_owned()
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "thread {} {}: {}, {} {}, {} switches",
            task.file_name().display(),
            field("Name:"),
            field("State:"),
            part("wchan"),
            part("syscall"),
            field("voluntary_ctxt_switches:"),
        );
    }
    text
}

fn one_line(text: &str) -> String {
    text.trim_end().replace('\n', ";")
}

/// Writes what this process and those that it started are doing into a file, and says which.
pub(crate) fn keep_what_goes_on(what: &str) -> String {
    let mut text = format!("this process\n{}", diagnosis());
    for (pid, doing) in children_are_doing() {
        // Writing to a string cannot fail.
        let _ = write!(text, "\nprocess {pid}\n{doing}");
    }
    let path = env::temp_dir().join(format!("sdp-{what}-{}.txt", process::id()));
    match fs::write(&path, text) {
        Ok(()) => format!("what goes on is in {}", path.display()),
        Err(error) => format!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_found_by_its_name() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("sleeper".to_owned());
        let thread = thread.spawn(move || wait.recv()).unwrap();
        // Its name is set by itself, before anything else it does.
        while !threads().contains(" sleeper: ") {
            std::thread::yield_now();
        }
        drop(stop);
        assert!(thread.join().unwrap().is_err());
    }
}
