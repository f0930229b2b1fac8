//! `gpuvm-replay`: runs a script of VM commands and prints what the VM manager does, to be held against other
//! implementations of `drm_gpuvm`.

mod parse;
mod session;

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::process::ExitCode;

use clap::Parser;
use session::Session;

const FORMAT: &str = "\
Commands, one a line; numbers are decimal or 0x hex; blank lines and lines that begin with # are skipped:

  vm BASE SIZE [RBASE RSIZE]   creates the VM with an optional reserved range; first, once
  map VA SIZE BO OFFSET        BO is a number 0..1048575, or - for a mapping without object
  unmap VA SIZE
  dump                         one line '= VA SIZE BO OFFSET' a mapping in VA order, then '.'

Answers, all numbers in lower-case 0x hex; every command ends with a line 'ok', also after an error:

  > map VA SIZE BO OFFSET
  > remap unmap VA SIZE BO OFFSET keep K prev PART next PART    PART is 'VA SIZE OFFSET' or '-', K 0x0 or 0x1
  > unmap VA SIZE BO OFFSET keep K
  > error NAME     the first that applies of
                   ESYNTAX  unknown command, wrong number of fields, not a number below 2^64
                   ENODEV   no VM yet
                   EEXIST   a second VM
                   ENOENT   the BO is too large
                   EINVAL   SIZE is 0, the range overflows, is not in the VM or touches its reserved range

Offsets are not checked and wrap at 2^64; nothing has to be aligned. A reserved range may lie anywhere, and one of
RSIZE 0 is none, as in drm_gpuvm_init(). A mapping without object has an offset all the same, which is carried along,
and is never kept.

With --plan a batch of map and unmap lines between 'begin' and 'commit' is planned as a whole. The lines of a batch
answer 'ok' or an error, and one with an error is not part of the batch; 'commit' prints the planned operations:

  > map VA SIZE BO OFFSET
  > unmap VA SIZE

A map or unmap outside of a batch is a batch of its own. 'dump' shows what was committed; a batch that is not committed
at the end of the input is dropped. A 'begin' in a batch, a 'commit' outside of one, and both without --plan are
ESYNTAX.";

/// Reads a script of VM commands on stdin and prints the steps of each on stdout.
#[derive(Parser)]
#[command(version, after_help = FORMAT)]
struct Args {
    /// Send the maps and unmaps through the planner, and print its operations instead of the VM's steps
    #[arg(long)]
    plan: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match replay(BufReader::new(io::stdin().lock()), io::stdout().lock(), Session::new(args.plan)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the answers has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gpuvm-replay: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Answers command after command. The answers so far are out before it waits for more input, so that a program can
/// hold a conversation with it.
fn replay(mut input: BufReader<impl Read>, mut output: impl Write, mut session: Session) -> io::Result<()> {
    let (mut line, mut answer) = (Vec::new(), String::new());
    while input.read_until(b'\n', &mut line)? > 0 {
        session.line(&line, &mut answer);
        line.clear();
        if !input.buffer().contains(&b'\n') {
            output.write_all(answer.as_bytes())?;
            output.flush()?;
            answer.clear();
        }
    }
    output.write_all(answer.as_bytes())?;
    output.flush()
}
