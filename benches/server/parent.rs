//! The processes that the bench starts, seen from above: a line in, a line of JSON out.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// A child that answers each line with a line. Dropped, it is ended.
pub struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(args: &[&str]) -> Process {
        let mut child = Command::new(std::env::current_exe().expect("our own path"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("our own binary starts");
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Process { child, input, output: BufReader::new(output) }
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the child listens");
    }

    pub fn hear(&mut self) -> Value {
        let mut line = String::new();
        let n = self.output.read_line(&mut line).expect("the child speaks");
        assert!(n > 0, "a child ended without a word");
        serde_json::from_str(&line).expect("a line of JSON")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server in a process of its own.
pub struct Server {
    process: Process,
    /// Where it listens, and whom to trust.
    pub at: Value,
}

impl Server {
    /// `kind` as in [`super::serve`]; `core` pins it; `slow_us` makes every review last at least so long.
    pub fn start(kind: &str, namespaces: usize, core: Option<usize>, slow_us: u64) -> Server {
        let core = core.map_or("-".to_owned(), |c| c.to_string());
        let mut process = Process::start(&["serve", kind, &namespaces.to_string(), &core, &slow_us.to_string()]);
        let at = process.hear();
        Server { process, at }
    }

    /// CPU time that the process has used so far, in microseconds, and its resident memory in bytes.
    pub fn usage(&mut self) -> (f64, f64) {
        self.process.tell("usage");
        let said = self.process.hear();
        (said["cpu_us"].as_f64().expect("a number"), said["rss_bytes"].as_f64().expect("a number"))
    }
}

/// One run of the load generator; `between` is called when its connections are open and warm, and again when it is done.
pub fn load<T>(server: &mut Server, mut job: Value, mut between: impl FnMut(&mut Server) -> T) -> (Value, T, T) {
    job["at"] = server.at.clone();
    let mut process = Process::start(&["load"]);
    process.tell(&job.to_string());
    let ready = process.hear();
    assert_eq!(ready, json!("ready"));
    let before = between(server);
    process.tell("go");
    let figures = process.hear();
    let after = between(server);
    (figures, before, after)
}
