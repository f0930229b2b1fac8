//! The script language.

use gpuvm::VaRange;

/// One line of a script. Ranges are as written, valid or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Creates the VM.
    Vm {
        /// All addresses.
        range: VaRange,
        /// The kernel's own part.
        reserved: Option<VaRange>,
    },
    /// Maps.
    Map {
        /// Where.
        range: VaRange,
        /// The number of the object, whatever its size.
        object: Option<u64>,
        /// Byte of the object.
        offset: u64,
    },
    /// Unmaps.
    Unmap {
        /// Where.
        range: VaRange,
    },
    /// Shows what is mapped.
    Dump,
    /// Opens a batch.
    Begin,
    /// Plans and applies the batch.
    Commit,
}

/// A line that is not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotACommand;

/// The command in a line; none in a blank line or a comment.
pub fn parse(line: &[u8]) -> Result<Option<Command>, NotACommand> {
    let line = line.trim_ascii();
    if line.is_empty() || line[0] == b'#' {
        return Ok(None);
    }
    let line = str::from_utf8(line).map_err(|_| NotACommand)?;
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    Ok(Some(match *fields.as_slice() {
        ["vm", base, size] => Command::Vm { range: range(base, size)?, reserved: None },
        ["vm", base, size, reserved_base, reserved_size] => {
            Command::Vm { range: range(base, size)?, reserved: Some(range(reserved_base, reserved_size)?) }
        }
        ["map", va, size, object, offset] => Command::Map {
            range: range(va, size)?,
            object: if object == "-" { None } else { Some(number(object)?) },
            offset: number(offset)?,
        },
        ["unmap", va, size] => Command::Unmap { range: range(va, size)? },
        ["dump"] => Command::Dump,
        ["begin"] => Command::Begin,
        ["commit"] => Command::Commit,
        _ => return Err(NotACommand),
    }))
}

fn range(start: &str, len: &str) -> Result<VaRange, NotACommand> {
    Ok(VaRange { start: number(start)?, len: number(len)? })
}

/// Decimal or 0x hex, digits only: the standard parser would take a sign as well.
fn number(field: &str) -> Result<u64, NotACommand> {
    let (digits, radix) = field.strip_prefix("0x").map_or((field, 10), |digits| (digits, 16));
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(NotACommand);
    }
    u64::from_str_radix(digits, radix).map_err(|_| NotACommand)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hex_and_nothing_else() {
        let largest = [("18446744073709551615", u64::MAX), ("0xFfffffffFFFFFFFF", u64::MAX)];
        for (field, value) in [("0", 0), ("0x0", 0), ("007", 7), ("0x00a", 10)].into_iter().chain(largest) {
            assert_eq!(number(field), Ok(value), "{field}");
        }
        let above = ["18446744073709551616", "0x10000000000000000"];
        for field in
            ["", "0x", "+1", "-1", "0x+1", "1_0", "0X1", "a", "0xg", "1.0", "٣"].into_iter().chain(above)
        {
            assert_eq!(number(field), Err(NotACommand), "{field}");
        }
    }

    #[test]
    fn blank_lines_and_comments_are_no_commands() {
        for line in [&b""[..], b"\n", b" \t\r\n", b"# vm", b"  #vm 0 1\n", b"#\xff"] {
            assert_eq!(parse(line), Ok(None));
        }
    }

    #[test]
    fn commands_have_their_number_of_fields() {
        let range = VaRange { start: 16, len: 0 };
        assert_eq!(parse(b" vm 0x10\t0 \r\n"), Ok(Some(Command::Vm { range, reserved: None })));
        assert_eq!(parse(b"vm 16 0 16 0x0"), Ok(Some(Command::Vm { range, reserved: Some(range) })));
        assert_eq!(parse(b"map 16 0 - 1"), Ok(Some(Command::Map { range, object: None, offset: 1 })));
        let object = Some(u64::MAX);
        let map = Command::Map { range, object, offset: 0 };
        assert_eq!(parse(b"map 16 0 0xffffffffffffffff 0"), Ok(Some(map)));
        assert_eq!(parse(b"unmap 16 0"), Ok(Some(Command::Unmap { range })));
        for (line, command) in
            [("dump", Command::Dump), ("begin", Command::Begin), ("commit", Command::Commit)]
        {
            assert_eq!(parse(line.as_bytes()), Ok(Some(command)));
        }
        for line in [
            "vm",
            "vm 0",
            "vm 0 1 2",
            "vm 0 1 2 3 4",
            "vm 0 -",
            "map 0 1 2",
            "map 0 1 2 3 4",
            "map 0 1 2 -",
            "map - 1 2 3",
            "map 0 1 -- 3",
            "unmap 0",
            "unmap 0 1 2",
            "dump 0",
            "begin 1",
            "commit 1",
            "VM 0 1",
            "dump # all",
            "exit",
            "-",
            "map 0,1,2,3",
        ] {
            assert_eq!(parse(line.as_bytes()), Err(NotACommand), "{line}");
        }
        assert_eq!(parse(b"dump\xff"), Err(NotACommand));
        assert_eq!(parse(b"dump\0"), Err(NotACommand));
    }
}
