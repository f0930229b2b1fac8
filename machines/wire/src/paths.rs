//! Files that the guest's init finds in its root.

/// The driver for which the guest plays a GPU: `panthor` or `msm`.
pub const GPU: &str = "/etc/gpu";

/// Kernel modules to load in order, a line each: the path, and after a space the parameters.
pub const MODULES: &str = "/lib/modules/order";

/// What to run: program and arguments, each ended by a zero byte.
pub const COMMAND: &str = "/etc/command";

/// The program's environment besides what every program gets: `NAME=VALUE`, each ended by a zero byte.
pub const ENVIRONMENT: &str = "/etc/environment";

/// Where the program's output files go; the environment variable [`OUT_VARIABLE`] names it too.
pub const OUT: &str = "/out";

/// Names [`OUT`] for the program.
pub const OUT_VARIABLE: &str = "OUT";
