/// Where the program runs: in the driver, or in the kernel's generic path, which is slower but works with any driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native where the driver can, else generic with a warning.
    #[default]
    Auto,
    Native,
    Generic,
}

impl XdpMode {
    pub const ALL: [Self; 3] = [Self::Auto, Self::Native, Self::Generic];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}
