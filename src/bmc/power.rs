//! Power: what it is, and changing it until it is seen to have changed.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fact::Fact;
use super::{Bmc, BmcError, until};

/// How often a refusal that passes is asked again.
const ASKED_AGAIN: u32 = 12;

/// The power state that a BMC reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerState {
    /// On.
    On,
    /// Off.
    Off,
    /// On its way to on.
    PoweringOn,
    /// On its way to off.
    PoweringOff,
    /// Something else, or nothing.
    Unknown,
}

impl PowerState {
    fn read(system: &Value) -> Self {
        match system["PowerState"].as_str() {
            Some("On") => Self::On,
            Some("Off") => Self::Off,
            Some("PoweringOn") => Self::PoweringOn,
            Some("PoweringOff") => Self::PoweringOff,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
            Self::PoweringOn => "powering on",
            Self::PoweringOff => "powering off",
            Self::Unknown => "unknown",
        })
    }
}

/// What to do with the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerAction {
    /// Switch on; nothing where it is on.
    On,
    /// Switch off at once; nothing where it is off.
    ForceOff,
    /// Ask the operating system to shut down; bounded, and an error where it does not.
    GracefulOff,
    /// Switch off at once and on again.
    ForceRestart,
    /// Take the power from the whole machine, its standby parts too, and give it back. The BMC may be away for minutes.
    AcCycle,
}

impl PowerAction {
    fn goal(self) -> PowerState {
        match self {
            Self::On | Self::ForceRestart | Self::AcCycle => PowerState::On,
            Self::ForceOff | Self::GracefulOff => PowerState::Off,
        }
    }

    /// The names that BMCs have for it, best first.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::On => &["On", "ForceOn", "PushPowerButton"],
            Self::ForceOff => &["ForceOff"],
            Self::GracefulOff => &["GracefulShutdown", "PushPowerButton"],
            Self::ForceRestart => &["ForceRestart", "PowerCycle"],
            Self::AcCycle => &["FullPowerCycle"],
        }
    }
}

impl Bmc {
    /// The power state now.
    ///
    /// # Errors
    /// Any [`BmcError`] of reading.
    pub async fn power(&self) -> Result<PowerState, BmcError> {
        Ok(PowerState::read(&self.system().await?))
    }

    /// Changes the power and waits, bounded, until the BMC reports it changed.
    ///
    /// # Errors
    /// [`BmcError::NotObeyed`] when it does not change, [`BmcError::Unsupported`] when the BMC offers no such action.
    pub async fn set_power(&self, action: PowerAction) -> Result<(), BmcError> {
        let system = self.just_read(&self.system).await?;
        let now = PowerState::read(&system);
        match action {
            PowerAction::ForceRestart => return self.restart(&system, now).await,
            PowerAction::AcCycle => return self.ac_cycle(&system).await,
            _ => {}
        }
        if now == action.goal() {
            return Ok(());
        }
        self.switch(&system, action).await
    }

    /// A restart that is observed: a BMC that is asked to restart reports On all the while, so it is taken apart where
    /// the action is missing, harmful, or without effect (on a system that is off).
    async fn restart(&self, system: &Value, now: PowerState) -> Result<(), BmcError> {
        if now == PowerState::Off {
            return self.switch(system, PowerAction::On).await;
        }
        let offered = self.reset_types(system).await;
        let name = PowerAction::ForceRestart.names().iter().find(|name| offered.iter().any(|o| o == *name));
        match name {
            None if !self.quirks.has(Fact::RestartMissing) => {
                Err(self.unsupported(format!("restart the node: it offers only {}", offered.join(", "))))
            }
            Some(name) if !self.quirks.has(Fact::LenovoRestartHangs) => {
                self.reset(system, name).await?;
                self.observe(PowerAction::ForceRestart).await
            }
            _ => {
                self.switch(system, PowerAction::ForceOff).await?;
                self.switch(system, PowerAction::On).await
            }
        }
    }

    /// A power cycle of the whole machine, by the standard's action or the vendor's own.
    async fn ac_cycle(&self, system: &Value) -> Result<(), BmcError> {
        let own = |key: &str| super::media::action(&system["Actions"], key);
        let (target, name) = if self.reset_types(system).await.iter().any(|name| name == "FullPowerCycle") {
            (None, "FullPowerCycle")
        } else if self.quirks.has(Fact::HpeAuxCycle) {
            (own("HpeComputerSystemExt.SystemReset"), "AuxCycle")
        } else if self.quirks.has(Fact::LenovoAcCycle) {
            (own("LenovoComputerSystem.SystemReset"), "ACPowerCycle")
        } else {
            return Err(self.unsupported("take the power from the whole machine"));
        };
        match target {
            Some(target) => self.post(&target, &json!({ "ResetType": name })).await.map(drop),
            None if name == "FullPowerCycle" => self.reset(system, name).await,
            None => Err(self.unsupported("take the power from the whole machine: its action is missing")),
        }
    }

    async fn switch(&self, system: &Value, action: PowerAction) -> Result<(), BmcError> {
        let offered = self.reset_types(system).await;
        let names = action.names();
        let name = match offered.is_empty() {
            true => names.first(),
            false => names.iter().find(|name| offered.iter().any(|o| o == *name)),
        };
        let Some(name) = name else {
            return Err(self.unsupported(format!("switch power as wanted: it offers only {}", offered.join(", "))));
        };
        if let Err(error) = self.reset(system, name).await {
            // A refusal may only say that it is so already, and a broken answer may come after the deed.
            let obeyed = self.power().await.is_ok_and(|state| state == action.goal());
            return if obeyed { Ok(()) } else { Err(error) };
        }
        match self.observe(action).await {
            Err(BmcError::NotObeyed { .. }) if action != PowerAction::GracefulOff => {
                // Asked once more: a BMC that was busy may have dropped it, and the goal is a state, not a step.
                self.reset(system, name).await?;
                self.observe(action).await
            }
            outcome => outcome,
        }
    }

    async fn observe(&self, action: PowerAction) -> Result<(), BmcError> {
        let limit = match action {
            PowerAction::GracefulOff => self.timing().graceful,
            _ => self.timing().power,
        };
        let seen = until(self.timing().look, limit, || async {
            Ok(Some(self.power().await?).filter(|state| *state == action.goal()))
        });
        match seen.await? {
            Some(_) => Ok(()),
            None => {
                let state = self.power().await?;
                Err(self.not_obeyed(
                    format!("power {action:?}"),
                    format!("after {} s the power is {state}", limit.as_secs()),
                ))
            }
        }
    }

    async fn reset(&self, system: &Value, name: &str) -> Result<(), BmcError> {
        let fixed = format!("{}/Actions/ComputerSystem.Reset", self.system.trim_end_matches('/'));
        let target = system["Actions"]["#ComputerSystem.Reset"]["target"].as_str().unwrap_or(&fixed);
        let body = json!({ "ResetType": name });
        self.post(target, &body).await.map(drop)
    }

    /// What the BMC offers, from the action itself or from the description that it links; empty where it does not say.
    pub(super) async fn reset_types(&self, system: &Value) -> Vec<String> {
        let action = &system["Actions"]["#ComputerSystem.Reset"];
        let texts = |list: &Value| -> Vec<String> {
            let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let named = texts(&action["ResetType@Redfish.AllowableValues"]);
        if !named.is_empty() {
            return named;
        }
        let linked = action["@Redfish.ActionInfo"].as_str().filter(|_| self.quirks.has(Fact::ResetTypesLinked));
        let Some(link) = linked else { return named };
        let Ok(info) = self.client.get::<Value>(link).await else { return named };
        let parameters = info["Parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        let of_type = parameters.iter().find(|parameter| parameter["Name"] == "ResetType");
        of_type.map(|parameter| texts(&parameter["AllowableValues"])).unwrap_or_default()
    }

    /// Changes a resource, patiently.
    pub(super) async fn patch(&self, link: &str, body: &Value) -> Result<Value, BmcError> {
        self.lately.forget();
        self.patiently(|| self.client.patch(link, body)).await
    }

    /// Runs an action or makes a resource, patiently.
    pub(super) async fn post(&self, link: &str, body: &Value) -> Result<Value, BmcError> {
        self.lately.forget();
        self.patiently(|| self.client.post(link, body)).await
    }

    /// Runs an action without parameters, patiently.
    pub(super) async fn act(&self, link: &str) -> Result<Value, BmcError> {
        self.patiently(|| self.client.act(link)).await
    }

    /// Asks again where this kind of BMC is known to refuse for a while without having done anything.
    pub(super) async fn patiently<T, F>(&self, mut ask: impl FnMut() -> F) -> Result<T, BmcError>
    where
        F: Future<Output = Result<T, BmcError>>,
    {
        let mut asked = 0;
        loop {
            match ask().await {
                Err(error) if asked < ASKED_AGAIN && self.quirks.passes_soon(&error) => {
                    asked += 1;
                    tokio::time::sleep(5 * self.timing().look).await;
                }
                outcome => return outcome,
            }
        }
    }
}
