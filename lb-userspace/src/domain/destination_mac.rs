/// Which frames the program looks at, by the MAC address they go to. Others are the host's, which drops what is not for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DestinationMac {
    /// One that the attached interfaces, or the host by them, answers to.
    #[default]
    Own,
    /// For hosts that take frames for addresses which none of their interfaces has.
    Any,
}

impl DestinationMac {
    pub const ALL: [Self; 2] = [Self::Own, Self::Any];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Any => "any",
        }
    }
}
