//! Plays scripts on msm.

use kmd::Errno;
use kmd::uapi::msm::*;
use kmd::uapi::{user_address, user_address_mut};

use super::Step;
use crate::kernel::Kernel;
use crate::script::{Driver, LEFT_OUT, Outcome, PAGE, Session, VmView};

/// The VM of the open file: there are no others.
const VM: u32 = 1;

/// No queue gets to this id.
const NO_QUEUE: u32 = u32::MAX;

/// What a player knows of msm.
#[derive(Default)]
pub struct Msm {
    located: bool,
}

impl Driver for Msm {
    type Step = Step;

    fn play<K: Kernel>(&mut self, session: &mut Session<K>, step: &Step) -> Outcome {
        match *step {
            Step::GetParam { param, len } => {
                let mut arg = GetParam(Param { pipe: PIPE_3D0, param, len, ..Default::default() });
                let told = !matches!(param, PARAM_TIMESTAMP | PARAM_SUSPENDS);
                session.ioctl(&mut arg, |arg| if told { vec![arg.0.value] } else { vec![] })
            }
            Step::SetParam { param, value, len } => {
                let text = [b'x'; PAGE as usize];
                let value = if len == 0 { value } else { user_address(&text) };
                let mut arg = SetParam(Param { pipe: PIPE_3D0, param, value, len, pad: 0 });
                session.ioctl(&mut arg, |_| vec![])
            }
            Step::BoCreate { size, flags } => {
                let mut arg = GemNew { size, flags, handle: 0 };
                let outcome = session.ioctl(&mut arg, |arg| vec![arg.handle.into()]);
                session.made(&outcome, arg.handle, size.next_multiple_of(PAGE));
                outcome
            }
            Step::BoInfo { handle, info, buffer, len } => bo_info(session, handle, info, buffer, len),
            Step::CpuPrep { handle, op } => {
                session.ioctl(&mut GemCpuPrep { handle, op, ..Default::default() }, |_| vec![])
            }
            Step::CpuFini { handle } => session.ioctl(&mut GemCpuFini { handle }, |_| vec![]),
            Step::Madvise { handle, madv } => {
                let mut arg = GemMadvise { handle, madv, retained: 7 };
                session.ioctl(&mut arg, |arg| vec![arg.retained.into()])
            }
            Step::QueueCreate { flags, prio } => {
                let mut arg = SubmitqueueNew { flags, prio, id: 0 };
                session.ioctl(&mut arg, |arg| vec![arg.id.into()])
            }
            Step::QueueClose { id } => session.ioctl(&mut SubmitqueueClose(id), |_| vec![]),
            Step::QueueQuery { id, param, len } => {
                let mut answer = [0u32; 4];
                let data = user_address_mut(&mut answer);
                let mut arg = SubmitqueueQuery { data, id, param, len: len.min(16), pad: 0 };
                let outcome = session.ioctl(&mut arg, |arg| vec![arg.len.into()]);
                Outcome { values: [outcome.values, answer.map(u64::from).to_vec()].concat(), ..outcome }
            }
            Step::Bind { queue, flags, ref ops, ref waits, ref signals } => {
                if takes_the_kernel_down(session, ops) {
                    return LEFT_OUT;
                }
                let mut arg = VmBind {
                    flags,
                    queue_id: queue,
                    in_syncobjs: user_address(waits),
                    out_syncobjs: user_address(signals),
                    nr_in_syncobjs: waits.len() as u32,
                    nr_out_syncobjs: signals.len() as u32,
                    syncobj_stride: size_of::<Syncobj>() as u32,
                    ..Default::default()
                };
                arg.set_ops(ops);
                session.ioctl(&mut arg, |_| vec![])
            }
            Step::Submit { queue, flags, ref objects, ref waits, ref signals, number } => {
                let mut arg = GemSubmit {
                    flags: PIPE_3D0 | flags | SUBMIT_SYNCOBJ_IN | SUBMIT_SYNCOBJ_OUT,
                    fence: number,
                    nr_bos: objects.len() as u32,
                    bos: user_address(objects),
                    queueid: queue,
                    in_syncobjs: user_address(waits),
                    out_syncobjs: user_address(signals),
                    nr_in_syncobjs: waits.len() as u32,
                    nr_out_syncobjs: signals.len() as u32,
                    syncobj_stride: size_of::<Syncobj>() as u32,
                    ..Default::default()
                };
                session.ioctl(&mut arg, |arg| vec![arg.fence.into()])
            }
            Step::WaitFence { queue, fence, flags } => {
                let mut arg = WaitFence { fence, flags, queueid: queue, ..Default::default() };
                session.ioctl(&mut arg, |_| vec![])
            }
        }
    }

    fn changes(step: &Step) -> bool {
        matches!(step, Step::Bind { .. } | Step::Submit { .. })
    }

    fn view<K: Kernel>(&mut self, session: &mut Session<K>) -> Vec<VmView> {
        let mut arg = VmBind { queue_id: NO_QUEUE, ..Default::default() };
        // The state of the VM is looked at before the queue.
        let state = match session.ioctl(&mut arg, |_| vec![]).result {
            Err(Errno::NOENT) => Ok(0),
            Err(Errno::PIPE) => Ok(1),
            Err(errno) => Err(errno),
            Ok(()) => Err(Errno::PROTO),
        };
        if state == Ok(0) && !self.located {
            session.kernel.locate();
            self.located = true;
        }
        let mappings = if self.located { session.kernel.mappings(VM, u64::MAX) } else { vec![] };
        vec![VmView { id: VM, state, mappings }]
    }
}

/// Whether the kernel (7.2.13) would take for an object what is only a handle: where a handle is invalid, and where it comes
/// behind a range that does not fit its object.
fn takes_the_kernel_down<K: Kernel>(session: &Session<K>, ops: &[VmBindOp]) -> bool {
    let handles = ops.iter().filter(|op| op.handle != 0);
    let fits = |op: &VmBindOp| {
        let len = session.objects.get(&op.handle)?;
        // A sum that wraps is fine for the kernel, and maps what nobody asked for.
        Some(op.obj_offset.checked_add(op.range)? <= *len)
    };
    let fits: Vec<Option<bool>> = handles.map(fits).collect();
    let last = fits.len().saturating_sub(1);
    fits.iter().enumerate().any(|(n, fits)| fits.is_none() || *fits == Some(false) && n < last)
}

fn bo_info<K: Kernel>(session: &Session<K>, handle: u32, info: u32, buffer: bool, len: u32) -> Outcome {
    let mut text = *b"the name of an object, or what it holds, longer than either can be: \
        the first has 32 bytes, the second 128, and then there has to be some more of it, for those who ask for more";
    let long = matches!(info, INFO_SET_NAME | INFO_GET_NAME | INFO_SET_METADATA | INFO_GET_METADATA);
    let at = user_address_mut(&mut text);
    let len = len.min(text.len() as u32);
    // What is to be set has to be somewhere.
    let sets = matches!(info, INFO_SET_NAME | INFO_SET_METADATA);
    let value = if long && (buffer || sets) { at } else { 0 };
    let mut arg = GemInfo { handle, info, value, len, pad: 0 };
    let outcome = session.ioctl(&mut arg, |arg| vec![arg.len.into()]);
    let value = if !long && info != INFO_GET_OFFSET { vec![arg.value] } else { vec![] };
    let text = text.iter().map(|byte| u64::from(*byte)).collect();
    Outcome { values: [outcome.values, value, text].concat(), ..outcome }
}
