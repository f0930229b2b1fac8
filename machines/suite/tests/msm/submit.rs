//! What the GPU sees of what is bound: a command stream that writes through mappings.

use std::time::Duration;

use kmd::uapi::msm::*;
use kmd::{BufferObject, Vm};

use crate::rig::*;

/// Where the command stream is mapped, from [`BASE`] on.
const STREAM: u64 = 1 << 30;

/// A packet that writes `value` at `va`.
fn write(va: u64, value: u32) -> [u32; 4] {
    const MEM_WRITE: u32 = 7 << 28 | 0x3d << 16 | 3;
    [MEM_WRITE, (BASE + va) as u32, ((BASE + va) >> 32) as u32, value]
}

fn store(bo: &BufferObject, words: &[u32]) {
    let map = bo.map().unwrap();
    for (n, word) in words.iter().enumerate() {
        // SAFETY: the object is larger than any stream here.
        unsafe { map.as_ptr().cast::<u32>().add(n).write_volatile(*word) };
    }
}

fn load(bo: &BufferObject, at: u64) -> u32 {
    let map = bo.map().unwrap();
    // SAFETY: the tests look inside the object.
    unsafe { map.as_ptr().add(at as usize).cast::<u32>().read_volatile() }
}

/// Runs a command stream and waits for its end.
fn run(rig: &Rig, words: &[u32]) {
    let stream = rig.bo(PAGE);
    store(&stream, words);
    rig.map(&stream, 0, STREAM, PAGE).unwrap();
    let size = size_of_val(words) as u32;
    let cmds = [SubmitCmd { r#type: SUBMIT_CMD_BUF, size, relocs: BASE + STREAM, ..Default::default() }];
    let mut submit =
        GemSubmit { flags: PIPE_3D0, nr_cmds: 1, cmds: kmd::uapi::user_address(&cmds), ..Default::default() };
    ioctl(&*rig.node, &mut submit).unwrap();
    let timeout = Timespec { tv_sec: i64::from(u32::MAX), tv_nsec: 0 };
    ioctl(&*rig.node, &mut WaitFence { fence: submit.fence, timeout, ..Default::default() }).unwrap();
}

#[test]
fn the_gpu_writes_where_it_is_told() {
    let rig = Rig::new();
    let (a, b) = (rig.bo(4 * PAGE), rig.private_bo(4 * PAGE));
    rig.map(&a, PAGE, 0, 2 * PAGE).unwrap();
    rig.map(&b, 0, PAGE, PAGE).unwrap();
    rig.null(8 * PAGE, PAGE).unwrap();
    // The page of a, the page of b over it, and the null mapping, which drops it.
    let words = [write(16, 0x11), write(PAGE + 16, 0x22), write(8 * PAGE + 16, 0x33)].concat();
    run(&rig, &words);
    assert_eq!((load(&a, PAGE + 16), load(&a, 2 * PAGE + 16), load(&b, 16)), (0x11, 0, 0x22));
    // The same again, elsewhere.
    rig.map(&b, 2 * PAGE, 0, PAGE).unwrap();
    rig.unmap(PAGE, PAGE).unwrap();
    run(&rig, &write(16, 0x44));
    assert_eq!((load(&a, PAGE + 16), load(&b, 2 * PAGE + 16)), (0x11, 0x44));
}

/// The kernel hears where and how it went wrong, and what the stream does besides is done.
#[test]
fn a_write_to_nowhere() {
    let rig = Rig::new();
    let bo = rig.bo(PAGE);
    rig.map(&bo, 0, 0, PAGE).unwrap();
    // Addresses of no other test.
    let at = (1 << 31) + 0x7e55_e018;
    run(&rig, &[write(at, 0x11), write(16, 0x22)].concat());
    assert_eq!(load(&bo, 16), 0x22);
    let told = format!("iova={:016x} dir=WRITE type=TRANSLATION", BASE + at);
    let is_told = || kernel_log().iter().any(|line| line.contains(&told));
    // Its handler is a thread.
    let comes = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        is_told()
    });
    assert!(comes, "{told}: {:#?}", kernel_log());
    assert_eq!(rig.vm.is_usable(), Ok(true));
    run(&rig, &write(16, 0x33));
    assert_eq!(load(&bo, 16), 0x33);
}

#[test]
fn two_vms_by_turns() {
    let (one, two) = (Rig::new(), Rig::new());
    let (a, b) = (one.bo(PAGE), two.bo(PAGE));
    one.map(&a, 0, 0, PAGE).unwrap();
    two.map(&b, 0, 0, PAGE).unwrap();
    for n in 1..4 {
        run(&one, &write(16, n));
        run(&two, &write(16, n + 0x100));
        assert_eq!((load(&a, 16), load(&b, 16)), (n, n + 0x100));
    }
}
