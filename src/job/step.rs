//! The steps of imaging one node, in order.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One step. The order of the variants is the order of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The node is switched off, so that boot and media changes take effect.
    PowerOff,
    /// The BIOS settings that the spec names are ordered for the next start.
    SetBios,
    /// What sits in the virtual drive is ejected, and the agent's boot image goes in.
    InsertMedia,
    /// The next start is set to the virtual drive.
    BootMedia,
    /// The node is switched on.
    PowerOn,
    /// The agent fetches its order and writes the disk; ends by its report alone.
    Install,
    /// The agent powers the node off.
    WaitOff,
    /// The BIOS settings hold.
    CheckBios,
    /// The boot image is ejected.
    EjectMedia,
    /// The next start is set to the disk.
    BootDisk,
    /// The node is switched on.
    StartDisk,
    /// The installed system reports in; ends by its word alone.
    Boot,
}

/// Every step, in order.
pub const STEPS: [Step; 12] = [
    Step::PowerOff,
    Step::SetBios,
    Step::InsertMedia,
    Step::BootMedia,
    Step::PowerOn,
    Step::Install,
    Step::WaitOff,
    Step::CheckBios,
    Step::EjectMedia,
    Step::BootDisk,
    Step::StartDisk,
    Step::Boot,
];

/// The steps of a node that has BIOS settings to be made, or none.
pub fn steps(bios: bool) -> impl Iterator<Item = Step> {
    STEPS.into_iter().filter(move |step| bios || !step.is_of_bios())
}

impl Step {
    /// The step after this one; `None` after the last.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        STEPS.iter().copied().find(|step| *step > self)
    }

    /// Whether the step is only there for BIOS settings.
    #[must_use]
    pub fn is_of_bios(self) -> bool {
        matches!(self, Self::SetBios | Self::CheckBios)
    }

    /// Whether the agent may be running on the node: from power-on until it was seen off again.
    #[must_use]
    pub fn agent_may_run(self) -> bool {
        matches!(self, Self::PowerOn | Self::Install)
    }

    /// Whether the installed system may be running on the node.
    #[must_use]
    pub fn system_may_run(self) -> bool {
        matches!(self, Self::StartDisk | Self::Boot)
    }

    /// What the step does, for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::PowerOff => "power off",
            Self::SetBios => "order the BIOS settings",
            Self::CheckBios => "check the BIOS settings",
            Self::InsertMedia => "insert the boot image",
            Self::BootMedia => "boot from the boot image next",
            Self::PowerOn => "power on",
            Self::Install => "install",
            Self::WaitOff => "wait for power off",
            Self::EjectMedia => "eject the boot image",
            Self::BootDisk => "boot from the disk next",
            Self::StartDisk => "power on from the disk",
            Self::Boot => "wait for the installed system",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

#[cfg(test)]
mod tests {
    //! The list is the order, and following `next` visits every step once.
    use super::*;

    #[test]
    fn next_visits_all() {
        let mut seen = vec![Step::PowerOff];
        while let Some(next) = seen[seen.len() - 1].next() {
            seen.push(next);
        }
        assert_eq!(seen, STEPS);
    }
}
