//! What is odd about BMCs, as named facts: each says which BMCs have it and what is done about it. `docs/hardware.md` says where each
//! was seen. A fact can be switched off, which is how its test shows that it matters, and how a firmware that was mended is met.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::quirk::{Family, Maker};

/// Makes the table of facts: variant, name, which BMCs, and what is done about it.
macro_rules! facts {
    ($($fact:ident, $name:literal, $has:expr, $words:literal;)*) => {
        /// One oddity, and the way around it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fact {
            $(#[doc = $words] $fact,)*
        }

        impl Fact {
            /// Every fact.
            pub const ALL: &[Self] = &[$(Self::$fact),*];

            /// Its name: the family, and what is odd.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$fact => $name,)* }
            }

            /// What is done about it, for people.
            #[must_use]
            pub fn words(self) -> &'static str {
                match self { $(Self::$fact => $words,)* }
            }

            /// Whether BMCs of this make have it.
            fn is_of(self, maker: &Maker) -> bool {
                let has: fn(&Maker) -> bool = match self { $(Self::$fact => $has,)* };
                has(maker)
            }
        }
    };
}

facts! {
    // Every BMC.
    WeakEtag, "any-weak-etag", |_| true, "a weak ETag that is refused is sent again without its W/";
    EtagInBody, "any-etag-in-body", |_| true, "the ETag is taken from the document where no header has it";
    EmptyEtag, "any-empty-etag", |_| true, "an ETag of two quotes counts as none";
    EtagUnwanted, "any-etag-unwanted", |_| true, "a change that is refused with every ETag is sent without one";
    EtagDemanded, "any-etag-demanded", |_| true, "a change that is refused for want of an ETag (428) is sent with a fresh one";
    NotReadyYet, "any-not-ready-yet", |_| true, "what was refused because the BMC is not ready is asked again, changes too";
    ConnectionDropped, "any-connection-dropped", |_| true, "a read is repeated when the BMC drops the connection";
    ReadFails, "any-read-fails", |_| true, "a read that fails at the BMC for no reason given (500, 502, 504) is asked again, once";
    SessionExpires, "any-session-expires", |_| true, "a session that the BMC forgot is made anew, once";
    SessionsFull, "any-sessions-full", |_| true, "where the BMC has no room for a session, Basic is used";
    SessionLeftBehind, "any-session-left-behind", |_| true, "sessions that a killed process left behind are deleted at the next contact";
    SessionUnnamed, "any-session-unnamed", |_| true, "a session whose answer never came is found by its user and its client's address, and deleted";
    InfoAsObject, "any-info-as-object", |_| true, "a message that is no list is read as one of one";
    BodyDemanded, "any-body-demanded", |_| true, "actions without parameters carry an empty object";
    BootStaged, "any-boot-staged", |_| true, "a boot override is written where it is staged: in the settings object";
    NullMembers, "any-null-members", |_| true, "an empty list that is written as null or {} is empty";
    SuccessWithoutJson, "any-success-without-json", |_| true, "a change that is answered with a success and no JSON was accepted";
    TaskUnnamed, "any-task-unnamed", |_| true, "what was accepted without naming a task is judged by what reads back";
    CriticalCompletion, "any-critical-completion", |_| true, "a task that completed with the health Critical has failed";
    RestartMissing, "any-restart-missing", |_| true, "where ForceRestart is not offered, the node is power-cycled, or switched off and on";
    ResetTypesLinked, "any-reset-types-linked", |_| true, "reset types are read from the description that the action links";
    CompressionDemanded, "any-compression-demanded", |_| true, "what is refused uncompressed (406) is read compressed";
    PasswordBlocked, "any-password-blocked", |_| true, "an account that must change its password is told by its own address, and can be changed before anything else";
    SlotRefuses, "any-slot-refuses", |_| true, "a media slot that takes no URL (console, block device) is passed over for the next";
    InsertParameters, "any-insert-parameters", |_| true, "parameters that a BMC demands to insert media are added one by one";
    BaseboardBeside, "any-baseboard-beside", |_| true, "of several systems, the one that boots is the machine";
    GpusOnBaseboard, "any-gpus-on-baseboard", |_| true, "GPUs are found at the baseboard's system";
    MediaByPatch, "any-media-by-patch", |_| true, "a media slot without the action is patched";

    // Dell iDRAC.
    DellServiceTag, "dell-service-tag", |m| m.is(Family::Idrac), "the service tag (SKU) is the serial number";
    DellOldFirmwareListed, "dell-old-firmware-listed", |m| m.is(Family::Idrac), "previous and waiting versions in the firmware list are left out";
    DellStaleInserted, "dell-stale-inserted", |m| m.is(Family::Idrac), "an image that shows as inserted after its ejection is waited out, and ejected again";
    DellFirstSlot, "dell-first-slot", |m| m.is(Family::Idrac), "virtual media: slot 1 before slot 2";
    DellLatePowerOn, "dell-late-power-on", |m| m.is(Family::Idrac) && m.firmware_starts("1."), "power-on that is refused shortly after power-off is tried again";
    DellAccountSlots, "dell-account-slots", |m| m.is(Family::Idrac), "accounts are made by one PATCH of a free slot, from 3 on";
    DellBiosAtReset, "dell-bios-at-reset", |m| m.is(Family::Idrac), "BIOS settings name the time that they apply at, all in one change";
    DellBiosPendingShown, "dell-bios-pending-shown", |m| m.is(Family::Idrac), "BIOS values that read back count only once their job has completed";
    DellControllerBusy, "dell-controller-busy", |m| m.is(Family::Idrac), "the lifecycle controller is waited for before BIOS and firmware changes";
    DellJobLate, "dell-job-late", |m| m.is(Family::Idrac), "a job that is not found in its first seconds is asked for again";
    DellTaskMoves, "dell-task-moves", |m| m.is(Family::Idrac), "a task that went over into a job, or is gone, is followed there";
    DellOemInUpload, "dell-oem-in-upload", |m| m.is(Family::Idrac), "firmware uploads carry an empty Oem object";
    DellCdByProfile, "dell-cd-by-profile", |m| m.is(Family::Idrac) && m.firmware_below(6) && !m.firmware_starts("1."), "the virtual CD is set to boot by a configuration profile";
    DellHttpBootInBios, "dell-http-boot-in-bios", |m| m.is(Family::Idrac), "the address of an HTTP boot is a BIOS attribute";
    DellConsoleCommand, "dell-console-command", |m| m.is(Family::Idrac), "the serial console is reached by a command at the BMC's own command line";
    DellNoDate, "dell-no-date", |m| m.is(Family::Idrac), "dates of zeros are no dates";

    // HPE iLO.
    HpeStarRefused, "hpe-star-refused", |m| m.is(Family::Ilo), "If-Match: * is never sent";
    HpePostRefuses, "hpe-post-refuses", |m| m.is(Family::Ilo), "settings refused during POST are tried again";
    HpeBootClearedByTarget, "hpe-boot-cleared-by-target", |m| m.is(Family::Ilo), "a boot override is cleared by its target alone";
    HpeCertificateApart, "hpe-certificate-apart", |m| m.is(Family::Ilo), "a certificate is requested and put in at iLO's own resource, whose request is ready later";
    HpeSuccessAsError, "hpe-success-as-error", |m| m.is(Family::Ilo), "a success that is written as an error, with status 400 too, is a success";
    HpeBootOrderOem, "hpe-boot-order-oem", |m| m.is(Family::Ilo), "the boot order is changed in its own settings object";
    HpeConsoleCommand, "hpe-console-command", |m| m.is(Family::Ilo), "the serial console is entered by a command that is not told";
    HpeAuxCycle, "hpe-aux-cycle", |m| m.is(Family::Ilo), "a power cycle of the whole machine is an action of its own";
    HpePushForm, "hpe-push-form", |m| m.is(Family::Ilo), "pushed firmware is a form that carries the session, in a cookie too";
    HpePushState, "hpe-push-state", |m| m.is(Family::Ilo), "the progress of a firmware upload is read at the update service";
    HpeNoRetryPolicy, "hpe-no-retry-policy", |m| m.is(Family::Ilo), "event subscriptions carry no retry policy";

    // Lenovo XClarity.
    LenovoExtSlots, "lenovo-ext-slots", |m| m.is(Family::Xcc), "virtual media: only EXT slots take a URL";
    LenovoSlowPending, "lenovo-slow-pending", |m| m.is(Family::Xcc), "pending settings get minutes to answer";
    LenovoRestartHangs, "lenovo-restart-hangs", |m| m.model_has("sr675 v3"), "a restart is made by switching off and on: ForceRestart hangs this machine";
    LenovoMonitorForgets, "lenovo-monitor-forgets", |m| m.is(Family::Xcc), "tasks are followed in the task list: their monitor forgets them once read";
    LenovoAccountSlots, "lenovo-account-slots", |m| m.is(Family::Xcc), "where accounts cannot be added, a free slot is changed";
    LenovoBootOrderOem, "lenovo-boot-order-oem", |m| m.is(Family::Xcc), "the boot order is one of Lenovo's own, and its list is read first";
    LenovoUploadClaimed, "lenovo-upload-claimed", |m| m.is(Family::Xcc), "the upload address is claimed before a firmware upload, and given back";
    LenovoConsoleCommand, "lenovo-console-command", |m| m.is(Family::Xcc), "the serial console is entered by a command that is not told";
    LenovoAcCycle, "lenovo-ac-cycle", |m| m.is(Family::Xcc), "a power cycle of the whole machine is an action of its own";
    LenovoFirmwarePrefix, "lenovo-firmware-prefix", |m| m.is(Family::Xcc), "the build name before a firmware version is left out";

    // Supermicro.
    SupermicroUsbCd, "supermicro-usb-cd", |m| m.is(Family::Supermicro) && !m.model_has("ars-111gl-nhr"), "the virtual CD boots as UsbCd";
    SupermicroOtherName, "supermicro-other-name", |m| m.is(Family::Supermicro), "a boot override may read back under another name";
    SupermicroOemEject, "supermicro-oem-eject", |m| m.is(Family::Supermicro), "media are ejected by an action under Oem";
    SupermicroIdleSlot, "supermicro-idle-slot", |m| m.is(Family::Supermicro), "a slot that is not connected is empty, whatever image it names";
    SupermicroBiosInPlace, "supermicro-bios-in-place", |m| m.is(Family::Supermicro), "BIOS settings are changed at the BIOS itself";
    SupermicroAttributeSuffix, "supermicro-attribute-suffix", |m| m.is(Family::Supermicro), "BIOS attributes are found without the suffix that changes with each release";
    SupermicroFixedBootOrder, "supermicro-fixed-boot-order", |m| m.is(Family::Supermicro), "where the boot order cannot be changed, Supermicro's own is";
    SupermicroKeepsSettings, "supermicro-keeps-settings", |m| m.is(Family::Supermicro), "firmware uploads ask for settings to be kept";
    SupermicroUpdateStarted, "supermicro-update-started", |m| m.is(Family::Supermicro), "an upload that waits to be started is started";
    SupermicroLicence, "supermicro-licence", |m| m.is(Family::Supermicro), "a missing licence is named, and what it hides is unknown";

    // AMI MegaRAC and its descendants.
    AmiStarEtag, "ami-star-etag", |m| m.is(Family::MegaRac), "If-Match: * instead of its own ETags, which it refuses";
    AmiSlowFirmwareList, "ami-slow-firmware-list", |m| m.is(Family::MegaRac), "the firmware list gets minutes to answer";
    AmiUploadUnlisted, "ami-upload-unlisted", |m| m.is(Family::MegaRac), "firmware is uploaded to an address that is not advertised";

    // NVIDIA, OpenBMC.
    NvidiaMediaUser, "nvidia-media-user", |m| m.is(Family::MegaRac) || m.is(Family::OpenBmc), "inserting media carries a user name and a password of none";
    NvidiaBootStaged, "nvidia-boot-staged", |m| m.is(Family::OpenBmc) || m.is(Family::MegaRac), "the boot order is changed in the settings object";
    NvidiaVersionPrefix, "nvidia-version-prefix", |m| m.is(Family::OpenBmc), "the platform's name before a firmware version is left out";
    NvidiaAttributeSpaces, "nvidia-attribute-spaces", |m| m.is(Family::OpenBmc), "BIOS attributes are found with and without spaces in their names";
    NvidiaLockoutFour, "nvidia-lockout-four", |m| m.is(Family::OpenBmc), "account lockout is loosened to 4 tries: none is refused";

    // The emulator of the lab.
    SushyKeepsBoot, "sushy-keeps-boot", |m| m.is(Family::Emulator), "a boot override stays until it is changed; clearing one is left out";
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fact {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|fact| fact.name() == text);
        found.ok_or_else(|| format!("{text:?} is no known oddity; `bedplate bmc facts` lists them"))
    }
}

impl Serialize for Fact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A set of facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts(u128);

impl Facts {
    /// The facts of BMCs of one make, but for those that were switched off.
    pub(super) fn of(maker: &Maker, without: Self) -> Self {
        Fact::ALL.iter().filter(|fact| fact.is_of(maker) && !without.has(**fact)).copied().collect()
    }

    /// Whether a fact is in it.
    #[must_use]
    pub fn has(self, fact: Fact) -> bool {
        self.0 & Self::bit(fact) != 0
    }

    /// The facts in it.
    pub fn iter(self) -> impl Iterator<Item = Fact> {
        Fact::ALL.iter().copied().filter(move |fact| self.has(*fact))
    }

    fn bit(fact: Fact) -> u128 {
        1 << fact as u8
    }
}

impl FromIterator<Fact> for Facts {
    fn from_iter<I: IntoIterator<Item = Fact>>(facts: I) -> Self {
        Self(facts.into_iter().fold(0, |bits, fact| bits | Self::bit(fact)))
    }
}

#[cfg(test)]
mod tests {
    //! Facts have one name each, say whose they are, and are read back by their names.
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        let names: BTreeSet<&str> = Fact::ALL.iter().map(|fact| fact.name()).collect();
        assert_eq!(names.len(), Fact::ALL.len());
        assert!(Fact::ALL.len() <= 128, "a set of facts is one word");
        for fact in Fact::ALL {
            assert_eq!(fact.name().parse::<Fact>().as_ref(), Ok(fact));
        }
        assert!("dell-".parse::<Fact>().is_err());
    }

    #[test]
    fn a_stranger_has_the_facts_of_every_bmc() {
        let stranger = Facts::of(&Maker::default(), Facts::default());
        assert!(stranger.iter().all(|fact| fact.name().starts_with("any-")));
        assert_eq!(stranger.iter().count(), Fact::ALL.iter().filter(|fact| fact.name().starts_with("any-")).count());
        let without = Facts::of(&Maker::default(), [Fact::WeakEtag].into_iter().collect());
        assert!(!without.has(Fact::WeakEtag) && without.has(Fact::EmptyEtag));
    }
}
