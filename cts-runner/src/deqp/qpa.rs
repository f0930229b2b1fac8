//! Reads deqp's log (`.qpa`) while it is written: marker lines that begin with `#`, and an XML document a case between them.

use crate::report::{Record, Status};
use std::time::Duration;

/// A reader that is fed with the file's bytes as they come.
#[derive(Default)]
pub(super) struct Reader {
    /// Bytes of a line that is not complete.
    rest: Vec<u8>,
    open: Option<Open>,
    marks: usize,
    ended: bool,
}

/// A case that has begun.
pub(super) struct Open {
    pub(super) case: String,
    /// What was logged since.
    pub(super) text: String,
}

impl Reader {
    /// Takes further bytes and returns the cases that end in them.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Record> {
        let mut records = Vec::new();
        self.rest.extend_from_slice(bytes);
        let complete = self.rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let rest = self.rest.split_off(complete);
        let lines = std::mem::replace(&mut self.rest, rest);
        for line in String::from_utf8_lossy(&lines).lines() {
            records.extend(self.line(line));
        }
        records
    }

    /// The case that has begun and not ended.
    pub(super) fn into_open(self) -> Option<Open> {
        self.open
    }

    /// How often a case has begun or ended.
    pub(super) fn marks(&self) -> usize {
        self.marks
    }

    /// Whether deqp-vk has ended its session in an orderly way.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    fn line(&mut self, line: &str) -> Option<Record> {
        if let Some(case) = line.strip_prefix("#beginTestCaseResult ") {
            self.marks += 1;
            self.open = Some(Open { case: case.trim().to_owned(), text: String::new() });
        } else if line == "#endTestCaseResult" {
            let Open { case, text } = self.open.take()?;
            self.marks += 1;
            return Some(result(&case, text));
        } else if let Some(reason) = line.strip_prefix("#terminateTestCaseResult ") {
            let Open { case, text } = self.open.take()?;
            self.marks += 1;
            let (status, message) = (status(reason.trim()), format!("deqp-vk gave up: {}", reason.trim()));
            return Some(Record { status, message, output: text, ..Record::new(&case) });
        } else if line == "#endSession" {
            self.ended = true;
        } else if let Some(open) = &mut self.open {
            open.text.push_str(line);
            open.text.push('\n');
        }
        None
    }
}

/// The result that a case's document states.
fn result(case: &str, text: String) -> Record {
    let mut record = Record { status: Status::Fail, ..Record::new(case) };
    let microseconds =
        element(&text, "<Number Name=\"TestDuration\"").and_then(|(_, text)| text.parse().ok());
    record.duration = Duration::from_micros(microseconds.unwrap_or(0));
    match element(&text, "<Result StatusCode=\"") {
        Some((attributes, message)) => {
            let code = attributes.split('"').next().unwrap_or_default();
            record.status = status(code);
            record.message = match quick_xml::escape::unescape(message) {
                Ok(message) => message.trim().to_owned(),
                Err(_) => message.trim().to_owned(),
            };
            if !matches!(code, "Pass" | "Fail" | "NotSupported") {
                record.message = format!("{code}: {}", record.message).trim_end_matches(": ").to_owned();
            }
        }
        None => "the log has no result".clone_into(&mut record.message),
    }
    if record.status.is_failure() {
        record.output = text;
    }
    record
}

/// Attributes after `begin`, and text, of the last element that begins so. The whole is not parsed as XML: cases log whatever bytes they
/// have, and the result has to be found all the same.
fn element<'a>(text: &'a str, begin: &str) -> Option<(&'a str, &'a str)> {
    let rest = &text[text.rfind(begin)? + begin.len()..];
    let (attributes, rest) = rest.split_once('>')?;
    Some((attributes, rest.split_once("</").map_or("", |(text, _)| text)))
}

/// deqp's names of results in ours. A lost device is a crash of the implementation; what is neither passed nor refused has failed.
fn status(code: &str) -> Status {
    match code {
        "Pass" => Status::Pass,
        "NotSupported" => Status::NotSupported,
        "QualityWarning" | "CompatibilityWarning" | "CapabilityWarning" | "Waiver" => Status::Warn,
        "Crash" | "DeviceLost" => Status::Crash,
        "Timeout" => Status::Timeout,
        _ => Status::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with the result `code` and `message` of the case `name`.
    fn case(name: &str, code: &str, message: &str) -> String {
        format!(
            "\n#beginTestCaseResult {name}\n<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<TestCaseResult CasePath=\"{name}\">\n \
             <Text>&lt;Result StatusCode=&quot;Pass&quot;&gt;</Text>\n \
             <Number Name=\"TestDuration\" Description=\"\" Tag=\"Time\" Unit=\"us\">41084</Number>\n \
             <Result StatusCode=\"{code}\">{message}</Result>\n</TestCaseResult>\n\n#endTestCaseResult\n"
        )
    }

    fn read(log: &str, piece: usize) -> (Vec<Record>, Reader) {
        let mut reader = Reader::default();
        let records = log.as_bytes().chunks(piece).flat_map(|bytes| reader.feed(bytes)).collect();
        (records, reader)
    }

    #[test]
    fn every_result_is_read_whatever_the_pieces() {
        let mut log = "#sessionInfo releaseName x\n\n#beginSession\n".to_owned();
        log += &case("g.pass", "Pass", "Passed");
        log += &case("g.fail", "Fail", "1 &lt; 2 &amp;\nmore");
        log += &case("g.internal", "InternalError", "bad");
        log += &case("g.quality", "QualityWarning", "");
        log += &case("g.lost", "DeviceLost", "gone");
        log += &case("g.refused", "NotSupported", "no at x.cpp:1");
        log += "\nRun took 0.20 seconds\n\n#endSession\n";
        for piece in [1, 7, log.len()] {
            let (records, reader) = read(&log, piece);
            let got: Vec<_> =
                records.iter().map(|record| (&*record.case, record.status, &*record.message)).collect();
            assert_eq!(
                got,
                [
                    ("g.pass", Status::Pass, "Passed"),
                    ("g.fail", Status::Fail, "1 < 2 &\nmore"),
                    ("g.internal", Status::Fail, "InternalError: bad"),
                    ("g.quality", Status::Warn, "QualityWarning"),
                    ("g.lost", Status::Crash, "DeviceLost: gone"),
                    ("g.refused", Status::NotSupported, "no at x.cpp:1"),
                ]
            );
            assert!(records.iter().all(|record| record.duration == Duration::from_micros(41084)));
            assert!(reader.ended() && reader.marks() == 12);
        }
    }

    #[test]
    fn a_log_that_breaks_off_leaves_its_case_open() {
        let log = case("g.pass", "Pass", "")
            + "\n#beginTestCaseResult g.crash\n<?xml version=\"1.0\"?>\n <Text>half";
        let (records, reader) = read(&log, 5);
        assert_eq!(records.len(), 1);
        assert!(!reader.ended());
        let open = reader.into_open().unwrap();
        assert_eq!(open.case, "g.crash");
        assert!(open.text.contains("xml version"));
    }

    #[test]
    fn a_terminated_case_has_its_reason() {
        let (records, reader) =
            read("#beginTestCaseResult g.c\n <Text>stack</Text>\n#terminateTestCaseResult Crash\n", 100);
        assert_eq!((records[0].status, reader.marks()), (Status::Crash, 2));
        assert!(records[0].output.contains("stack"));
    }

    #[test]
    fn a_case_without_a_result_has_failed() {
        let (records, _) = read("#beginTestCaseResult g.c\n<TestCaseResult/>\n#endTestCaseResult\n", 100);
        assert_eq!((records[0].status, &*records[0].message), (Status::Fail, "the log has no result"));
    }
}
