//! Telling somebody how far a pull is.

/// What a pull is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Another process pulls the same environment.
    Waiting,
    /// What is installed is verified.
    Verify,
    /// The mirror's package lists are fetched.
    Update,
    /// Packages are fetched; counted in packages.
    Download,
    /// Packages are installed; counted in packages.
    Install,
    /// The kernel's package is fetched.
    FetchKernel,
    /// The root is packed into a layer; counted in bytes.
    Pack,
    /// The kernel is unpacked and the modules are chosen.
    Kernel,
    /// Everything is made durable and shown.
    Publish,
}

impl Phase {
    /// A few words for a person.
    pub fn label(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting for another pull of the same environment",
            Phase::Verify => "verifying what is installed",
            Phase::Update => "reading the mirror's package lists",
            Phase::Download => "fetching packages",
            Phase::Install => "installing packages",
            Phase::FetchKernel => "fetching the kernel",
            Phase::Pack => "packing the root layer",
            Phase::Kernel => "unpacking the kernel",
            Phase::Publish => "publishing",
        }
    }

    /// Whether [`Progress::advance`] counts bytes in this phase, and not things.
    pub fn counts_bytes(self) -> bool {
        matches!(self, Phase::Pack)
    }
}

/// Hears how far a pull is. Called from the thread that pulls; what it does delays the pull.
pub trait Progress {
    /// A phase begins; the one before it is done.
    fn phase(&mut self, phase: Phase);

    /// How much of the phase is done, and of how much when that is known.
    fn advance(&mut self, done: u64, total: Option<u64>);
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn phase(&mut self, _: Phase) {}

    fn advance(&mut self, _: u64, _: Option<u64>) {}
}
