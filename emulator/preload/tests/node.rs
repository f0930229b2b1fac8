//! The library in front of a program: each test runs again in a process of its own, with the library preloaded.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Counters, Emulator, Mapping};
use kmd::bo::BufferObject;
use kmd::msm::{BoOptions, MsmVm, create_bo};
use kmd::uapi::{drm, msm, sync_file};
use kmd::{BindOp, BindTarget, DriverVersion, Errno, RenderNode, Request, Vm};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const NODE: &str = "/dev/dri/renderD128";
const PAGE: u64 = 4096;

fn library() -> PathBuf {
    let folder = std::env::current_exe().unwrap();
    folder.parent().unwrap().join("libtessera_emulator.so")
}

/// This program again, to run one test with the library preloaded.
fn again(test: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env("LD_PRELOAD", library()).envs(variables.iter().copied());
    command
}

fn ran(output: &Output) -> bool {
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success() && text.contains("1 passed")
}

/// Whether the test is to do its work here; otherwise it has been done in another process.
fn preloaded(test: &str, variables: &[(&str, &str)]) -> bool {
    if std::env::var_os("TESSERA_EMULATE").is_some() {
        return true;
    }
    let output = again(test, variables).output().unwrap();
    assert!(
        ran(&output),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

fn msm_device(test: &str) -> bool {
    preloaded(test, &[("TESSERA_EMULATE", "msm:a750")])
}

fn node() -> Arc<RenderNode> {
    Arc::new(RenderNode::open(NODE).unwrap())
}

fn emulator() -> Emulator {
    Emulator::find().unwrap()
}

/// Makes an ioctl with a request number of the caller's choice.
fn ioctl<T>(fd: impl AsRawFd, request: u32, args: &mut T) -> Result<(), Errno> {
    // SAFETY: callers pass what the request says.
    match unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), &raw mut *args) } {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()),
        _ => Ok(()),
    }
}

#[test]
fn it_looks_like_a_render_node() {
    if !msm_device("it_looks_like_a_render_node") {
        return;
    }
    let names: Vec<_> = fs::read_dir("/dev/dri").unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].file_name(), "renderD128");
    let device = libc::makedev(226, 128);
    for found in [
        fs::metadata(NODE),
        fs::symlink_metadata(NODE),
        names[0].metadata(),
        node().as_fd().try_clone_to_owned().map(fs::File::from).and_then(|file| file.metadata()),
    ] {
        let found = found.unwrap();
        assert!(found.file_type().is_char_device());
        assert_eq!(found.rdev(), device);
    }
    // SAFETY: C strings, and room for a result that is all integers.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        assert_eq!(libc::fstat(node().as_fd().as_raw_fd(), &mut stat), 0);
        assert_eq!((stat.st_mode & libc::S_IFMT, stat.st_rdev), (libc::S_IFCHR, device));
        assert_eq!(libc::access(c"/dev/dri/renderD128".as_ptr(), libc::R_OK | libc::W_OK), 0);
        assert_eq!(libc::access(c"/dev/dri/card0".as_ptr(), libc::F_OK), -1);
        let dir = libc::open(c"/dev/dri".as_ptr(), libc::O_DIRECTORY | libc::O_RDONLY);
        let fd = libc::openat(dir, c"renderD128".as_ptr(), libc::O_RDWR);
        assert!(DriverVersion::query(&RenderNode::from_fd(OwnedFd::from_raw_fd(fd))).is_ok());
        libc::close(dir);
    }
}

#[test]
fn libdrm_finds_the_platform_device() {
    if !msm_device("libdrm_finds_the_platform_device") {
        return;
    }
    let sys = Path::new("/sys/dev/char/226:128/device");
    assert!(sys.join("drm").is_dir());
    assert_eq!(fs::read_link(sys.join("subsystem")).unwrap().file_name().unwrap(), "platform");
    assert!(fs::canonicalize(sys).unwrap().starts_with("/sys/devices/platform"));
    let uevent = fs::read_to_string(sys.join("uevent")).unwrap();
    assert!(uevent.starts_with("DRIVER=msm\n") && uevent.contains("OF_COMPATIBLE_0=qcom,adreno\n"));
    // By stdio, as libdrm reads it.
    // SAFETY: C strings, a buffer with its size, and a file that is closed once.
    unsafe {
        let file = libc::fopen(c"/sys/dev/char/226:128/device/uevent".as_ptr(), c"re".as_ptr());
        assert!(!file.is_null());
        let mut line = [0; 64];
        assert!(!libc::fgets(line.as_mut_ptr(), 64, file).is_null());
        assert_eq!(std::ffi::CStr::from_ptr(line.as_ptr()), c"DRIVER=msm\n");
        libc::fclose(file);
    }
    let fd = node();
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).unwrap();
    assert_eq!(link, Path::new(NODE));
    // The rest of /sys is the machine's.
    assert!(Path::new("/sys/kernel").is_dir() && fs::metadata("/sys/dev/char/1:3").is_ok());
}

#[test]
fn each_driver_says_who_it_is() {
    for (device, driver) in [("msm:a630", "msm"), ("msm:a740,hbb=14", "msm"), ("panthor:g610", "panthor")] {
        if preloaded("each_driver_says_who_it_is", &[("TESSERA_EMULATE", device), ("EXPECTED", driver)]) {
            let driver = std::env::var("EXPECTED").unwrap();
            let node = RenderNode::find(&driver).unwrap();
            assert_eq!(DriverVersion::query(&node).unwrap().name, driver);
            return;
        }
    }
}

#[test]
fn binds_reach_the_page_table_and_no_memory() {
    if !msm_device("binds_reach_the_page_table_and_no_memory") {
        return;
    }
    let node = node();
    let vm = MsmVm::create(node.clone()).unwrap();
    let bo = create_bo(node.clone(), 4 * PAGE, BoOptions { flags: 0, private: true }).unwrap();
    // The first GPU address: nobody's memory here.
    let va = 1 << 32;
    let map = |va, offset, len| BindOp { va, len, target: BindTarget::Map { bo: bo.handle(), offset } };
    vm.bind(&[map(va, 0, PAGE), map(va + PAGE, 3 * PAGE, PAGE)]).unwrap();

    let emulator = emulator();
    let list = emulator.mappings(Some(node.as_fd()), 1).unwrap();
    let (handle, object) = (bo.handle().0, list[0].object);
    assert_ne!(object, 0);
    let run = |va, offset| Mapping { va, len: PAGE, object, offset, handle, pad: 0 };
    assert_eq!(list, [run(va, 0), run(va + PAGE, 3 * PAGE)]);
    // The last opened file is this one; another descriptor is none.
    assert_eq!(emulator.mappings(None, 1).unwrap(), list);
    let none = emulator.mappings(Some(std::io::stdin().as_fd()), 1).unwrap_err();
    assert_eq!(none.raw_os_error(), Some(libc::EBADF));

    let Counters { binds, ops, .. } = emulator.counters();
    assert_eq!((ops, binds), (2, emulator.calls(0x4d)));
    assert!(binds > 0);
}

#[test]
fn held_jobs_run_when_they_are_let_go() {
    if !msm_device("held_jobs_run_when_they_are_let_go") {
        return;
    }
    let node = node();
    let vm = MsmVm::create(node.clone()).unwrap();
    emulator().hold(true).unwrap();
    std::thread::scope(|scope| {
        let bind = scope.spawn(|| vm.bind(&[BindOp { va: 1 << 32, len: PAGE, target: BindTarget::Null }]));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!bind.is_finished());
        emulator().hold(false).unwrap();
        assert!(bind.join().unwrap().is_ok());
    });
}

/// A bind queue that opts in to VM_BIND first.
fn bind_queue(node: &RenderNode) -> u32 {
    let on = msm::Param { pipe: msm::PIPE_3D0, param: msm::PARAM_EN_VM_BIND, value: 1, ..Default::default() };
    ioctl(node.as_fd(), msm::SetParam::REQUEST, &mut msm::SetParam(on)).unwrap();
    let mut queue = msm::SubmitqueueNew { flags: msm::SUBMITQUEUE_VM_BIND, ..Default::default() };
    ioctl(node.as_fd(), msm::SubmitqueueNew::REQUEST, &mut queue).unwrap();
    queue.id
}

/// Queues a null mapping of the first page, and returns its sync file.
fn queue_bind(node: &RenderNode, queue_id: u32) -> OwnedFd {
    let mut bind = msm::VmBind {
        flags: msm::VM_BIND_FENCE_FD_OUT,
        queue_id,
        op_stride: size_of::<msm::VmBindOp>() as u32,
        ..Default::default()
    };
    let null = msm::VM_BIND_OP_MAP_NULL;
    bind.set_ops(&[msm::VmBindOp { op: null, iova: 1 << 32, range: PAGE, ..Default::default() }]);
    ioctl(node.as_fd(), msm::VmBind::REQUEST, &mut bind).unwrap();
    // SAFETY: made by the call.
    unsafe { OwnedFd::from_raw_fd(bind.fence_fd) }
}

fn ready(sync_file: &OwnedFd, timeout: Option<&Timespec>) -> bool {
    poll(&mut [PollFd::new(sync_file, PollFlags::IN)], timeout).unwrap() == 1
}

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

#[test]
fn sync_files_can_be_polled_and_merged() {
    if !msm_device("sync_files_can_be_polled_and_merged") {
        return;
    }
    let node = node();
    let queue = bind_queue(&node);
    emulator().hold(true).unwrap();
    let (first, second) = (queue_bind(&node, queue), queue_bind(&node, queue));
    let mut merge = sync_file::MergeData { fd2: second.as_raw_fd(), ..Default::default() };
    ioctl(first.as_fd(), sync_file::MergeData::REQUEST, &mut merge).unwrap();
    // SAFETY: made by the call.
    let merged = unsafe { OwnedFd::from_raw_fd(merge.fence) };
    let status = || {
        let mut info = sync_file::FileInfo::default();
        ioctl(merged.as_fd(), sync_file::FileInfo::REQUEST, &mut info).unwrap();
        (info.status, info.num_fences)
    };
    assert!(!ready(&merged, Some(&NOW)));
    assert_eq!(status(), (0, 2));
    emulator().hold(false).unwrap();
    assert!(ready(&merged, None));
    assert_eq!(status(), (1, 1));
}

#[test]
fn late_jobs_are_late() {
    let variables = [("TESSERA_EMULATE", "msm:a750"), ("TESSERA_EMULATE_DELAY", "300")];
    if !preloaded("late_jobs_are_late", &variables) {
        return;
    }
    let node = node();
    let start = Instant::now();
    let bound = queue_bind(&node, bind_queue(&node));
    assert!(!ready(&bound, Some(&NOW)) || start.elapsed() >= Duration::from_millis(300));
    assert!(ready(&bound, None));
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_process_can_end_with_jobs_in_its_queues() {
    if !msm_device("a_process_can_end_with_jobs_in_its_queues") {
        return;
    }
    let node = node();
    let queue = bind_queue(&node);
    emulator().hold(true).unwrap();
    assert!(!ready(&queue_bind(&node, queue), Some(&NOW)));
    drop(node);
    // The next file's queue is held too, and still open when the process ends.
    let other = self::node();
    queue_bind(&other, bind_queue(&other));
    std::mem::forget(other);
}

#[test]
fn objects_do_not_run_out_of_descriptors() {
    let test = "objects_do_not_run_out_of_descriptors";
    if std::env::var_os("TESSERA_EMULATE").is_some() {
        let node = node();
        let bos: Vec<_> = (0..100).map(|_| create_bo(node.clone(), PAGE, BoOptions::default())).collect();
        assert!(bos.iter().all(|bo| bo.is_ok()));
        return;
    }
    // With a limit that a program sees, and one that it may raise it to.
    let command = again(test, &[("TESSERA_EMULATE", "msm:a750")]);
    let words: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).collect();
    let mut limited = Command::new("sh");
    limited
        .args(["-euc", "ulimit -Sn 40; ulimit -Hn 200; exec env LD_PRELOAD=$LIBRARY \"$@\"", "sh"])
        .args(words);
    let output = limited.env("LIBRARY", library()).env("TESSERA_EMULATE", "msm:a750").output().unwrap();
    assert!(ran(&output), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn threads_open_and_close_at_the_same_time() {
    if !msm_device("threads_open_and_close_at_the_same_time") {
        return;
    }
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let first = node();
                    let copy = RenderNode::from_fd(first.as_fd().try_clone_to_owned().unwrap());
                    let bo = create_bo(first, PAGE, BoOptions::default()).unwrap();
                    let mut info = msm::GemInfo {
                        handle: bo.handle().0,
                        info: msm::INFO_GET_OFFSET,
                        ..Default::default()
                    };
                    drop(fs::File::open("/dev/null").unwrap());
                    assert_eq!(ioctl(copy.as_fd(), msm::GemInfo::REQUEST, &mut info), Ok(()));
                }
            });
        }
    });
    // All are closed, and their objects are gone.
    assert_eq!(emulator().counters().live_bos, 0);
}

#[test]
fn commands_are_known_by_their_number_alone() {
    if !msm_device("commands_are_known_by_their_number_alone") {
        return;
    }
    let node = node();
    let node = node.as_fd();
    // Turnip says IOWR where the header says IOW.
    let request = msm::SetParam::REQUEST | 2 << 30;
    assert_ne!(request, msm::SetParam::REQUEST);
    let mut opt_in =
        msm::Param { pipe: msm::PIPE_3D0, param: msm::PARAM_EN_VM_BIND, value: 1, ..Default::default() };
    assert_eq!(ioctl(node, request, &mut opt_in), Ok(()));
    // A structure from before it had its last member: without `len` and `pad`.
    let mut short = [msm::PIPE_3D0, msm::PARAM_CHIP_ID, 0, 0];
    let request = msm::GetParam::REQUEST & !(0x3fff << 16) | 16 << 16;
    assert_eq!(ioctl(node, request, &mut short), Ok(()));
    assert_eq!(short[2], 0x4305_1401);
    // Requests that are not DRM's are everybody's or nobody's, and other files are none of ours.
    assert_eq!(ioctl(node, libc::FIOCLEX as u32, &mut ()), Ok(()));
    assert_eq!(ioctl(node, msm::GetParam::REQUEST ^ 0x100, &mut short), Err(Errno::NOTTY));
    let null = fs::File::open("/dev/null").unwrap();
    assert_eq!(ioctl(null, msm::GetParam::REQUEST, &mut opt_in), Err(Errno::NOTTY));
}

#[test]
fn duplicates_share_the_open_file() {
    if !msm_device("duplicates_share_the_open_file") {
        return;
    }
    let first = node();
    let bo = create_bo(first.clone(), PAGE, BoOptions::default()).unwrap();
    let closes = |fd: i32| ioctl(fd, drm::GemClose::REQUEST, &mut drm::GemClose { handle: 77, pad: 0 });
    let knows = |fd: i32| {
        let mut info =
            msm::GemInfo { handle: bo.handle().0, info: msm::INFO_GET_OFFSET, ..Default::default() };
        ioctl(fd, msm::GemInfo::REQUEST, &mut info)
    };
    let fd = first.as_fd().as_raw_fd();
    // SAFETY: calls without pointers, on descriptors of this test's.
    let copies = unsafe {
        [
            libc::dup(fd),
            libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 100),
            libc::dup2(fd, 200),
            libc::dup3(fd, 201, libc::O_CLOEXEC),
        ]
    };
    assert_eq!((copies[1] >= 100, copies[2], copies[3]), (true, 200, 201));
    let other = node();
    assert_eq!(knows(other.as_fd().as_raw_fd()), Err(Errno::NOENT));
    assert!(copies.iter().all(|copy| knows(*copy).is_ok()));
    // SAFETY: as above.
    unsafe {
        libc::dup2(1, copies[0]);
        libc::close(copies[1]);
        libc::close_range(200, 200, 0);
    }
    assert!(closes(copies[0]).is_err_and(|errno| errno != Errno::INVAL));
    assert_eq!((knows(copies[1]), knows(copies[2])), (Err(Errno::BADF), Err(Errno::BADF)));
    assert_eq!((knows(copies[3]), knows(fd)), (Ok(()), Ok(())));
    // SAFETY: the test's own file.
    assert!(unsafe { libc::fcntl(copies[3], libc::F_GETFD) } & libc::FD_CLOEXEC != 0);
}

#[test]
fn a_node_can_be_polled_and_mapped() {
    if !msm_device("a_node_can_be_polled_and_mapped") {
        return;
    }
    let node = node();
    let mut fds = [PollFd::new(&*node, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&Timespec::default())), Ok(0));
    let bo = create_bo(node.clone(), 2 * PAGE, BoOptions::default()).unwrap();
    let mut info = msm::GemInfo { handle: bo.handle().0, info: msm::INFO_GET_OFFSET, ..Default::default() };
    ioctl(node.as_fd(), msm::GemInfo::REQUEST, &mut info).unwrap();
    let map = |addr: *mut libc::c_void, prot, flags, offset| {
        // SAFETY: a new mapping, or one over memory that this test has reserved.
        let at = unsafe {
            libc::mmap(addr, 2 * PAGE as usize, prot, flags, node.as_fd().as_raw_fd(), offset as i64)
        };
        if at == libc::MAP_FAILED { Err(std::io::Error::last_os_error()) } else { Ok(at.cast::<u8>()) }
    };
    let both = libc::PROT_READ | libc::PROT_WRITE;
    let first = map(std::ptr::null_mut(), both, libc::MAP_SHARED, info.value).unwrap();
    // Over memory of one's own, as VK_EXT_map_memory_placed does.
    let second = map(std::ptr::null_mut(), libc::PROT_READ, libc::MAP_SHARED, info.value).unwrap();
    let again = map(second.cast(), both, libc::MAP_SHARED | libc::MAP_FIXED, info.value).unwrap();
    assert_eq!(again, second);
    // SAFETY: both mappings are readable and writable, and stay.
    unsafe {
        first.add(5).write_volatile(7);
        assert_eq!(second.add(5).read_volatile(), 7);
    }
    let taken = map(second.cast(), both, libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE, info.value);
    assert_eq!(taken.unwrap_err().raw_os_error(), Some(libc::EEXIST));
    assert!(map(std::ptr::null_mut(), both, libc::MAP_PRIVATE, info.value).is_err());
    assert!(map(std::ptr::null_mut(), both, libc::MAP_SHARED, info.value + PAGE).is_err());
}

#[test]
fn a_forked_child_opens_the_node_anew() {
    if !msm_device("a_forked_child_opens_the_node_anew") {
        return;
    }
    let parent = node();
    let bo = create_bo(parent.clone(), PAGE, BoOptions::default()).unwrap();
    // SAFETY: the child calls what any program would, and ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let inherited = DriverVersion::query(&*parent);
        let own = RenderNode::open(NODE).and_then(|node| DriverVersion::query(&node));
        let closed = {
            // SAFETY: the child's own copy of the descriptor.
            unsafe { libc::close(parent.as_fd().as_raw_fd()) }
        };
        let good = inherited == Err(Errno::NOTTY) && own.is_ok() && closed == 0;
        // SAFETY: ends the process.
        unsafe { libc::_exit(if good { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: the child made above, and room for its status.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    // The child's end changes nothing here.
    assert!(DriverVersion::query(&*parent).is_ok());
    assert!(bo.map().is_ok());
}

#[test]
fn memory_is_shared_between_processes() {
    if !msm_device("memory_is_shared_between_processes") {
        return;
    }
    if let Ok(fd) = std::env::var("SHARED_FD") {
        // The other process: it was given a dma-buf.
        // SAFETY: inherited for this.
        let file = unsafe { OwnedFd::from_raw_fd(fd.parse().unwrap()) };
        let bo = BufferObject::import(node(), file.as_fd(), kmd::msm::mmap_offset).unwrap();
        let memory = bo.map().unwrap();
        // SAFETY: a mapping of a page; the other process waits.
        unsafe {
            assert_eq!(memory.as_ptr().read_volatile(), 1);
            memory.as_ptr().add(1).write_volatile(2);
        }
        return;
    }
    let bo = create_bo(node(), PAGE, BoOptions::default()).unwrap();
    let memory = bo.map().unwrap();
    // SAFETY: a mapping of a page.
    unsafe { memory.as_ptr().write_volatile(1) };
    let file = bo.export().unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let fd = file.as_raw_fd().to_string();
    let output = again("memory_is_shared_between_processes", &[("SHARED_FD", &fd)]).output().unwrap();
    assert!(ran(&output), "{}", String::from_utf8_lossy(&output.stderr));
    // SAFETY: as above; the other process has ended.
    assert_eq!(unsafe { memory.as_ptr().add(1).read_volatile() }, 2);
}

#[test]
fn log_dump_and_faults() {
    let test = "log_dump_and_faults";
    if std::env::var_os("TESSERA_EMULATE").is_some() {
        let node = node();
        let vm = MsmVm::create(node.clone()).unwrap();
        emulator().mark("the third object fails");
        let bo = |_| create_bo(node.clone(), PAGE, BoOptions { flags: 0, private: true });
        let bos: Vec<_> = (0..3).map(bo).collect();
        assert_eq!(bos.iter().filter(|bo| bo.as_ref().is_err_and(|errno| *errno == Errno::NOMEM)).count(), 1);
        let null = |va| vm.bind(&[BindOp { va, len: PAGE, target: BindTarget::Null }]);
        null(1 << 32).unwrap();
        assert!(null(1 << 33).is_err());
        // Asked for later, and counted from there.
        let refused = emulator().fail("bind:1").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
        emulator().fail("ioctl:2").unwrap();
        let versions: Vec<_> = (0..3).map(|_| DriverVersion::query(&*node).is_ok()).collect();
        assert_eq!(versions, [true, false, true]);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (log, dump) = (folder.path().join("log"), folder.path().join("dump"));
    let variables = [
        ("TESSERA_EMULATE", "msm:a750"),
        ("TESSERA_EMULATE_LOG", log.to_str().unwrap()),
        ("TESSERA_EMULATE_DUMP", dump.to_str().unwrap()),
        ("TESSERA_EMULATE_FAULT", "alloc:4,op:2"),
    ];
    assert!(!preloaded(test, &variables));
    let log = fs::read_to_string(log).unwrap();
    for wanted in [
        "SET_PARAM EN_VM_BIND(0x16) = 0x1 = 0",
        "MARK the third object fails",
        "GEM_NEW size=0x1000 flags=0x",
        " = ENOMEM",
        "VM_BIND queue=1 ops=1 signals=[1] = 0\n    MAP_NULL   va=0x100000000 len=0x1000\n",
        "    GEM_NEW                  0x42        3, 1 refused\n",
        " WARN a queued bind failed: the VM is unusable",
        " 2 bind operations, 2 jobs (0 throttled), 0 flushes\n",
    ] {
        assert!(log.contains(wanted), "no \"{wanted}\" in\n{log}");
    }
    let dump = fs::read_to_string(dump).unwrap();
    assert!(dump.ends_with(" vm 1\n  0x000100000000 0x1000 null\n"), "{dump}");
}

#[test]
fn a_wrong_value_is_said_and_leaves_the_program_alone() {
    for (variables, said) in [
        (vec![("TESSERA_EMULATE", "msm:a999")], "TESSERA_EMULATE: \"msm:a999\" is no device: msm:a630"),
        (
            vec![("TESSERA_EMULATE", "msm:a750"), ("TESSERA_EMULATE_FAULT", "op")],
            "TESSERA_EMULATE_FAULT: \"op\"",
        ),
        (
            vec![("TESSERA_EMULATE", "msm:a750"), ("TESSERA_EMULATE_LOG", "/no/where")],
            "/no/where: No such file",
        ),
    ] {
        let output = Command::new("true").env("LD_PRELOAD", library()).envs(variables).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(said) && text.contains("there is no emulated node"), "{text}");
    }
    // Without a wish it is silent.
    let output = Command::new("ls").arg("/dev").env("LD_PRELOAD", library()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
}

#[test]
fn programs_that_know_nothing_of_it_go_on() {
    // Shells fork, duplicate and close descriptors; ls and stat look at the node.
    let script = "ls /dev/dri; stat -c '%F %Hr:%Lr' /dev/dri/renderD128; cat /sys/dev/char/226:128/dev; \
                  (exec 5</dev/dri/renderD128; exec 6<&5 5<&-; echo kept); cat | wc -c";
    let mut child = Command::new("sh")
        .args(["-euc", script])
        .env("LD_PRELOAD", library())
        .env("TESSERA_EMULATE", "panthor:g610")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"four").unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(text, "renderD128\ncharacter special file 226:128\n226:128\nkept\n4\n");
}
