//! The C library's own functions behind those that this library puts in front of them.
//!
//! Each is looked up once, with `dlsym(RTLD_NEXT)`, without a lock and without memory: the first call can come from a
//! constructor of another library, before ours has run.

use core::ffi::{CStr, c_void};
use core::marker::PhantomData;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

/// A function of the next library in the search order. `F` is its type.
pub(crate) struct Next<F> {
    name: &'static CStr,
    at: AtomicPtr<c_void>,
    kind: PhantomData<F>,
}

impl<F: Copy> Next<F> {
    /// # Safety
    /// `F` is the type of the function pointer to the C function `name`, whichever library defines it.
    pub(crate) const unsafe fn new(name: &'static CStr) -> Self {
        Self { name, at: AtomicPtr::new(null_mut()), kind: PhantomData }
    }

    /// The function; `None` where no other library has it.
    pub(crate) fn get(&self) -> Option<F> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        let mut at = self.at.load(Ordering::Relaxed);
        if at.is_null() {
            // SAFETY: a C string, and a look-up that changes nothing. Two threads find the same.
            at = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
            self.at.store(at, Ordering::Relaxed);
        }
        // SAFETY: a function of type F (promise made to `new`), and F is a pointer (asserted above).
        (!at.is_null()).then(|| unsafe { core::mem::transmute_copy::<*mut c_void, F>(&at) })
    }
}

/// Defines functions of the name and the arguments of the C library's that call it. `fail`: the result where it lacks the
/// function, with `ENOSYS`. Arguments after `...` are variadic in C.
macro_rules! next {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(; ... $($more:ident: $more_type:ty),+)?) -> $result:ty, fail $fail:expr;)*) => { $(
        /// # Safety
        /// As the function of the C library.
        pub(crate) unsafe fn $name($($arg: $type),* $(, $($more: $more_type),+)?) -> $result {
            type Function = next!(@type ($($type),*) ($($($more_type),+)?) $result);
            // SAFETY: declared as in the C library's headers.
            static NEXT: Next<Function> = unsafe {
                Next::new(match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => panic!(),
                })
            };
            match NEXT.get() {
                // SAFETY: our caller's promise.
                Some(next) => unsafe { next($($arg),* $(, $($more),+)?) },
                None => {
                    crate::errno::set(rustix::io::Errno::NOSYS);
                    $fail
                }
            }
        }
    )* };
    (@type ($($type:ty),*) () $result:ty) => { unsafe extern "C" fn($($type),*) -> $result };
    (@type ($($type:ty),*) ($($more:ty),+) $result:ty) => { unsafe extern "C" fn($($type),*, ...) -> $result };
}

use libc::{
    DIR, FILE, c_char, c_int, c_uint, c_ulong, dirent, dirent64, mode_t, off_t, size_t, ssize_t,
    statx as Statx,
};

/// Decides whether `scandir` takes an entry.
pub(crate) type Filter<E> = Option<unsafe extern "C" fn(*const E) -> c_int>;
/// Orders entries for `scandir`.
pub(crate) type Compare<E> = Option<unsafe extern "C" fn(*mut *const E, *mut *const E) -> c_int>;

next! {
    fn open(path: *const c_char, flags: c_int; ... mode: mode_t) -> c_int, fail -1;
    fn open64(path: *const c_char, flags: c_int; ... mode: mode_t) -> c_int, fail -1;
    fn openat(dir: c_int, path: *const c_char, flags: c_int; ... mode: mode_t) -> c_int, fail -1;
    fn openat64(dir: c_int, path: *const c_char, flags: c_int; ... mode: mode_t) -> c_int, fail -1;
    fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE, fail null_mut();
    fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE, fail null_mut();
    fn close(fd: c_int) -> c_int, fail -1;
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int, fail -1;
    fn closefrom(first: c_int) -> (), fail ();
    fn dup(fd: c_int) -> c_int, fail -1;
    fn dup2(fd: c_int, to: c_int) -> c_int, fail -1;
    fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int, fail -1;
    fn fcntl(fd: c_int, command: c_int; ... arg: *mut c_void) -> c_int, fail -1;
    fn fcntl64(fd: c_int, command: c_int; ... arg: *mut c_void) -> c_int, fail -1;
    fn ioctl(fd: c_int, request: c_ulong; ... arg: *mut c_void) -> c_int, fail -1;
    fn mmap(addr: *mut c_void, len: size_t, prot: c_int, flags: c_int, fd: c_int, offset: off_t) -> *mut c_void,
        fail libc::MAP_FAILED;
    fn mmap64(addr: *mut c_void, len: size_t, prot: c_int, flags: c_int, fd: c_int, offset: off_t) -> *mut c_void,
        fail libc::MAP_FAILED;
    fn stat(path: *const c_char, out: *mut libc::stat) -> c_int, fail -1;
    fn stat64(path: *const c_char, out: *mut libc::stat64) -> c_int, fail -1;
    fn lstat(path: *const c_char, out: *mut libc::stat) -> c_int, fail -1;
    fn lstat64(path: *const c_char, out: *mut libc::stat64) -> c_int, fail -1;
    fn fstat(fd: c_int, out: *mut libc::stat) -> c_int, fail -1;
    fn fstat64(fd: c_int, out: *mut libc::stat64) -> c_int, fail -1;
    fn fstatat(dir: c_int, path: *const c_char, out: *mut libc::stat, flags: c_int) -> c_int, fail -1;
    fn fstatat64(dir: c_int, path: *const c_char, out: *mut libc::stat64, flags: c_int) -> c_int, fail -1;
    fn statx(dir: c_int, path: *const c_char, flags: c_int, mask: c_uint, out: *mut Statx) -> c_int, fail -1;
    fn access(path: *const c_char, mode: c_int) -> c_int, fail -1;
    fn faccessat(dir: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int, fail -1;
    fn readlink(path: *const c_char, out: *mut c_char, size: size_t) -> ssize_t, fail -1;
    fn readlinkat(dir: c_int, path: *const c_char, out: *mut c_char, size: size_t) -> ssize_t, fail -1;
    fn realpath(path: *const c_char, out: *mut c_char) -> *mut c_char, fail null_mut();
    fn opendir(path: *const c_char) -> *mut DIR, fail null_mut();
    fn scandir(path: *const c_char, list: *mut *mut *mut dirent, filter: Filter<dirent>, compare: Compare<dirent>) -> c_int,
        fail -1;
    fn scandir64(path: *const c_char, list: *mut *mut *mut dirent64, filter: Filter<dirent64>, compare: Compare<dirent64>)
        -> c_int, fail -1;
}
