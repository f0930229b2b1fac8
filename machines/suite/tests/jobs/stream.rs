//! Command streams, assembled: architecture 10, from the numbers in the driver's `prepare_job_instrs` and Mesa's `v10.xml`.

/// A stream in the making. Registers 0 to 5 are used by its own instructions.
#[derive(Default)]
pub struct Stream(Vec<u64>);

const ADDRESS: u64 = 0;
const VALUE: u64 = 2;

impl Stream {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn words(&self) -> &[u64] {
        &self.0
    }

    fn then(mut self, opcode: u64, rest: u64) -> Self {
        self.0.push(opcode << 56 | rest);
        self
    }

    fn address_and_value(self, va: u64, value: u64) -> Self {
        self.then(1, ADDRESS << 48 | va).then(1, VALUE << 48 | value)
    }

    /// Stores a value of 32 bits.
    pub fn store(self, va: u64, value: u32) -> Self {
        self.address_and_value(va, value.into()).then(21, VALUE << 48 | ADDRESS << 40 | 1 << 16)
    }

    /// Copies 32 bits.
    pub fn copy(self, from: u64, to: u64) -> Self {
        self.then(1, ADDRESS << 48 | from)
            .then(20, VALUE << 48 | ADDRESS << 40 | 1 << 16)
            .then(1, ADDRESS << 48 | to)
            .then(21, VALUE << 48 | ADDRESS << 40 | 1 << 16)
    }

    /// Adds to a counter of 64 bits.
    pub fn add(self, va: u64, value: u64) -> Self {
        self.address_and_value(va, value).then(51, ADDRESS << 40 | VALUE << 32)
    }

    /// Waits until a counter of 64 bits is greater.
    pub fn wait(self, va: u64, value: u64) -> Self {
        self.address_and_value(va, value).then(53, ADDRESS << 40 | VALUE << 32 | 1 << 28)
    }

    /// Calls `len` bytes of another stream.
    pub fn call(self, va: u64, len: u32) -> Self {
        self.address_and_value(va, len.into()).then(32, ADDRESS << 40 | VALUE << 32)
    }

    /// Goes on for ever.
    pub fn forever(self) -> Self {
        self.then(22, 6 << 28 | 0xffff)
    }

    /// What is no instruction.
    pub fn nonsense(self) -> Self {
        self.then(0xee, 0)
    }
}
