//! An emulated GPU for any program: `LD_PRELOAD=libtessera_emulator.so TESSERA_EMULATE=msm:a750 PROGRAM`.
//!
//! The program finds a render node, `/dev/dri/renderD128`, and all that libdrm reads of it in `/sys`. What it does with the
//! node's descriptors goes to the crate `emulator`; its page tables are kept, and the process's address space stays as it is.
//!
//! * `real` – the C library's own functions, `errno` – its errors.
//! * `interpose` – the functions that programs call instead.
//! * `tree` – the files around the node, `files` – the descriptors that are the node.
//! * `spec`, `emulation` – what the environment asks for, and the device.
//! * `log`, `decode`, `dump` – what is said about it.
//! * `export` – C functions for tests that want to know more: [`tessera_emulator_counters`] and those beside it.
//!
//! | variable | |
//! |---|---|
//! | `TESSERA_EMULATE` | `msm:a630`, `a660`, `a702`, `a730`, `a740`, `a750`, with `,hbb=BIT,swizzle=MASK,macrotile=0\|1,prr=0\|1`; `panthor:g310`, `g610`, with `,minor=8\|9`. Without it, the library does nothing; with another value, it says so and does nothing |
//! | `TESSERA_EMULATE_LOG` | a file, or `-` for stderr: every ioctl, and a summary |
//! | `TESSERA_EMULATE_DUMP` | a file: the page tables of each open file of the node when it is closed, or at the end |
//! | `TESSERA_EMULATE_FAULT` | `alloc:N`, `op:N`, `ioctl:N`, `job:N`, with commas: the N-th of them fails |
//! | `TESSERA_EMULATE_DELAY` | milliseconds by which queued jobs run late; `MILLISECONDS@QUEUE`: those of one bind queue |

mod decode;
mod dump;
mod emulation;
mod errno;
mod export;
mod files;
mod interpose;
mod log;
mod real;
mod spec;
mod tree;

pub use export::*;

/// Runs before the program, and before the constructors of the libraries that it is linked to.
extern "C" fn constructor() {
    errno::contain(|| {
        if let Err(refused) = emulation::begin(|name| std::env::var_os(name)) {
            eprintln!("tessera-emulator: {refused}; there is no emulated node");
        }
        if emulation::get().is_some() {
            // SAFETY: handlers that are C functions without arguments.
            let result = unsafe { libc::pthread_atfork(Some(before_fork), Some(in_parent), Some(in_child)) };
            if result != 0 {
                eprintln!("tessera-emulator: children of fork may hang (pthread_atfork: {result})");
            }
        }
    });
}

/// Runs when the program has come to its end by `exit` or by returning from `main`.
extern "C" fn destructor() {
    errno::contain(|| {
        if let Some(emulation) = emulation::get() {
            emulation.end();
        }
    });
}

extern "C" fn before_fork() {
    if let Some(emulation) = emulation::get() {
        emulation.lock();
    }
}

extern "C" fn in_parent() {
    if let Some(emulation) = emulation::get() {
        // SAFETY: locked by `before_fork` in this thread.
        unsafe { emulation.unlock() };
    }
}

extern "C" fn in_child() {
    if let Some(emulation) = emulation::get() {
        // SAFETY: locked by `before_fork` in the thread that this one is a copy of.
        unsafe { emulation.unlock() };
        emulation.abandon();
    }
}

// SAFETY: the section of pointers to functions that the dynamic linker calls when it has loaded the library.
#[unsafe(link_section = ".init_array")]
#[used]
static CONSTRUCTOR: extern "C" fn() = constructor;

// SAFETY: the section of pointers to functions that are called when the process ends.
#[unsafe(link_section = ".fini_array")]
#[used]
static DESTRUCTOR: extern "C" fn() = destructor;
