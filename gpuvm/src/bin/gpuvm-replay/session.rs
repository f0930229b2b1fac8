//! What a script does: one VM, and with `--plan` a planner before it.

use core::fmt::{self, Write};

use gpuvm::{Mapping, Op, OpKind, Planner, Policy, Step, Target, Unmapped, VaRange, Vm, VmError};

use crate::parse::{Command, NotACommand, parse};

/// A mapping without object has an offset in this format: it is a target with the object `None`, and not a null
/// mapping, which has none.
type Object = Option<u32>;

/// Objects have numbers below this.
const OBJECTS: u64 = 1 << 20;

/// Why a command did nothing, in the order in which these are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Error {
    #[error("ESYNTAX")]
    Syntax,
    #[error("ENODEV")]
    NoVm,
    #[error("EEXIST")]
    SecondVm,
    #[error("ENOENT")]
    NoObject,
    #[error("EINVAL")]
    Range,
}

impl From<NotACommand> for Error {
    fn from(_: NotACommand) -> Self {
        Self::Syntax
    }
}

impl From<VmError> for Error {
    fn from(_: VmError) -> Self {
        Self::Range
    }
}

/// A script under way.
pub struct Session {
    vm: Option<Vm<Object>>,
    batches: Option<Batches>,
}

/// Batches on their way through the planner.
struct Batches {
    planner: Planner<Object>,
    open: bool,
}

impl Session {
    /// Before the first line.
    pub fn new(plan: bool) -> Self {
        let policy = Policy { page_size: 1, ..Policy::default() };
        Self { vm: None, batches: plan.then(|| Batches { planner: Planner::new(policy), open: false }) }
    }

    /// Does what a line says and appends the answer.
    pub fn line(&mut self, line: &[u8], answer: &mut String) {
        let done = match parse(line) {
            Ok(None) => return,
            Ok(Some(command)) => self.run(command, answer),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = done {
            print(answer, format_args!("> error {error}"));
        }
        print(answer, format_args!("ok"));
    }

    fn run(&mut self, command: Command, answer: &mut String) -> Result<(), Error> {
        match command {
            Command::Vm { range, reserved } => {
                if self.vm.is_some() {
                    return Err(Error::SecondVm);
                }
                self.vm = Some(Vm::new(range, reserved.filter(|reserved| reserved.len > 0))?);
            }
            Command::Map { range, object, offset } => {
                let vm = self.vm.as_ref().ok_or(Error::NoVm)?;
                if object.is_some_and(|number| number >= OBJECTS) {
                    return Err(Error::NoObject);
                }
                vm.check(range)?;
                let object = object.map(|number| number as u32);
                self.request(Op { range, kind: OpKind::Map { object, offset } }, answer)?;
            }
            Command::Unmap { range } => {
                self.vm.as_ref().ok_or(Error::NoVm)?.check(range)?;
                self.request(Op { range, kind: OpKind::Unmap }, answer)?;
            }
            Command::Dump => {
                for mapping in self.vm.as_ref().ok_or(Error::NoVm)?.iter() {
                    print(answer, format_args!("= {}", Shown(mapping)));
                }
                print(answer, format_args!("."));
            }
            Command::Begin => {
                let batches = self.batches.as_mut().filter(|batches| !batches.open).ok_or(Error::Syntax)?;
                self.vm.as_ref().ok_or(Error::NoVm)?;
                batches.open = true;
            }
            Command::Commit => {
                let batches = self.batches.as_mut().filter(|batches| batches.open).ok_or(Error::Syntax)?;
                batches.open = false;
                self.commit(answer)?;
            }
        }
        Ok(())
    }

    /// A valid map or unmap.
    fn request(&mut self, op: Op<Object>, answer: &mut String) -> Result<(), Error> {
        let Some(batches) = &mut self.batches else {
            let vm = self.vm.as_mut().ok_or(Error::NoVm)?;
            let mut step = |step| print_step(answer, step);
            match op.kind.target() {
                Some(target) => vm.sm_map(op.range, target, &mut step)?,
                None => vm.sm_unmap(op.range, &mut step)?,
            }
            return Ok(());
        };
        batches.planner.want(op.range, op.kind)?;
        if batches.open { Ok(()) } else { self.commit(answer) }
    }

    /// Plans what was wanted, shows the operations and does them.
    fn commit(&mut self, answer: &mut String) -> Result<(), Error> {
        let (Some(vm), Some(batches)) = (&mut self.vm, &mut self.batches) else { return Err(Error::NoVm) };
        let job = vm.prepare(batches.planner.plan(vm))?;
        for op in job.ops() {
            match op.kind.target() {
                Some(target) => {
                    print(answer, format_args!("> map {}", Shown(Mapping { range: op.range, target })));
                }
                None => print(answer, format_args!("> unmap {}", Place(op.range))),
            }
        }
        let plan = vm.commit(job)?;
        batches.planner.recycle(plan);
        Ok(())
    }
}

fn print(answer: &mut String, line: fmt::Arguments<'_>) {
    writeln!(answer, "{line}").expect("a String takes everything");
}

fn print_step(answer: &mut String, step: Step<Object>) {
    match step {
        Step::Map(mapping) => print(answer, format_args!("> map {}", Shown(mapping))),
        Step::Unmap(unmap) => print(answer, format_args!("> unmap {}", Gone(unmap))),
        Step::Remap { prev, next, unmap } => print(
            answer,
            format_args!("> remap unmap {} prev {} next {}", Gone(unmap), Part(prev), Part(next)),
        ),
    }
}

/// `VA SIZE`.
struct Place(VaRange);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} {:#x}", self.0.start, self.0.len)
    }
}

/// `VA SIZE BO OFFSET`.
struct Shown(Mapping<Object>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", Place(self.0.range))?;
        match object_and_offset(self.0.target) {
            (Some(object), offset) => write!(f, "{object:#x} {offset:#x}"),
            (None, offset) => write!(f, "- {offset:#x}"),
        }
    }
}

/// `VA SIZE BO OFFSET keep K`; what has no object is not kept, as in the kernel.
struct Gone(Unmapped<Object>);

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unmapped { mapping, keep } = self.0;
        let keep = keep && object_and_offset(mapping.target).0.is_some();
        write!(f, "{} keep {:#x}", Shown(mapping), u8::from(keep))
    }
}

/// `VA SIZE OFFSET` or `-`.
struct Part(Option<Mapping<Object>>);

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(part) => write!(f, "{} {:#x}", Place(part.range), object_and_offset(part.target).1),
            None => f.write_str("-"),
        }
    }
}

fn object_and_offset(target: Target<Object>) -> (Object, u64) {
    match target {
        Target::Object { object, offset } => (object, offset),
        Target::Null => (None, 0),
    }
}
