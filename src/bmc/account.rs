//! Accounts of a BMC: listing them, changing passwords (also the one that must be changed at the first login), and adding one where
//! the BMC only has slots.

use std::sync::Arc;

use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::exchange::Ask;
use super::fact::Fact;
use super::gateway::Gateway;
use super::{Bmc, BmcError, Pins, Target, Timing, open};
use crate::model::Secret;

/// An account of a BMC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its link.
    pub link: String,
    /// Its user name.
    pub username: String,
    /// Its role.
    pub role: String,
    /// Whether it may log in.
    pub enabled: bool,
    /// Whether it is locked after wrong passwords.
    pub locked: bool,
    /// Whether its password must be changed before anything else.
    pub must_change: bool,
}

impl Account {
    fn read(link: &str, document: &Value) -> Self {
        let text = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
        let flag = |key: &str| document[key].as_bool().unwrap_or(false);
        let role = document["Links"]["Role"]["@odata.id"].as_str().and_then(|link| link.rsplit('/').next());
        Self {
            link: link.to_owned(),
            username: text("UserName"),
            role: document["RoleId"].as_str().or(role).unwrap_or_default().to_owned(),
            enabled: document["Enabled"].as_bool().unwrap_or(true),
            locked: flag("Locked"),
            must_change: flag("PasswordChangeRequired"),
        }
    }
}

/// Changes the password of an account that may do nothing else before, and answers whether it had to be changed.
///
/// # Errors
/// Any [`BmcError`]; where the BMC does not say which account it means, [`BmcError::PasswordChange`].
pub async fn change_first_password(
    target: &Target,
    new: &Secret,
    pins: Arc<dyn Pins>,
    timing: Timing,
) -> Result<bool, BmcError> {
    let exchange = open(target, pins, timing, &*Gateway::open().await?)?;
    let outcome = async {
        let refused = match exchange.carry(Ask::get("/redfish/v1/Systems")).await {
            Ok(_) => return Ok(false),
            Err(BmcError::PasswordChange { account, .. }) if account.starts_with('/') => account,
            Err(error) => return Err(error),
        };
        let body = json!({ "Password": new.reveal() });
        exchange.carry(Ask::json(Method::PATCH, refused, body.to_string().into())).await?;
        Ok(true)
    };
    let outcome = outcome.await;
    exchange.close().await;
    outcome
}

impl Bmc {
    async fn accounts_link(&self) -> Result<String, BmcError> {
        let service = self.root["AccountService"]["@odata.id"].as_str();
        let service = service.ok_or_else(|| self.unsupported("list accounts: it has no account service"))?;
        let service: Value = self.client.get(service).await?;
        let accounts = service["Accounts"]["@odata.id"].as_str();
        accounts.map(str::to_owned).ok_or_else(|| self.unsupported("list accounts"))
    }

    /// The accounts, without empty slots.
    ///
    /// # Errors
    /// Any [`BmcError`] of reading.
    pub async fn accounts(&self) -> Result<Vec<Account>, BmcError> {
        let slots = self.account_slots().await?;
        Ok(slots.into_iter().filter(|account| !account.username.is_empty()).collect())
    }

    async fn account_slots(&self) -> Result<Vec<Account>, BmcError> {
        let mut accounts = vec![];
        for link in self.client.members(&self.accounts_link().await?).await? {
            let document: Value = self.client.get(&link).await?;
            accounts.push(Account::read(&link, &document));
        }
        Ok(accounts)
    }

    /// Gives an account another password.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where there is no such account.
    pub async fn set_password(&self, username: &str, new: &Secret) -> Result<(), BmcError> {
        let accounts = self.accounts().await?;
        let account = accounts.iter().find(|account| account.username == username);
        let account = account
            .ok_or_else(|| self.unsupported(format!("change the password of {username:?}: it has no such account")))?;
        self.patch(&account.link, &json!({ "Password": new.reveal() })).await.map(drop)
    }

    /// Sees to it that there is an administrator of this name with this password, and reads it back.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where no slot is free, [`BmcError::NotObeyed`] where it does not show.
    pub async fn ensure_administrator(&self, username: &str, password: &Secret) -> Result<(), BmcError> {
        let slots = self.account_slots().await?;
        let fields =
            json!({ "UserName": username, "Password": password.reveal(), "RoleId": "Administrator", "Enabled": true });
        if let Some(known) = slots.iter().find(|slot| slot.username == username) {
            let mut fields = fields;
            fields.as_object_mut().map(|fields| fields.remove("UserName"));
            self.patch(&known.link, &fields).await?;
        } else if self.quirks.has(Fact::DellAccountSlots) {
            self.fill_slot(&slots, &fields, 3).await?;
        } else {
            let list = self.accounts_link().await?;
            match self.client.post(&list, &fields).await {
                Ok(_) => {}
                Err(error)
                    if matches!(error.status(), Some(400 | 404 | 405 | 501))
                        && self.quirks.has(Fact::LenovoAccountSlots) =>
                {
                    self.fill_slot(&slots, &fields, 2).await?;
                }
                Err(error) => return Err(error),
            }
        }
        let made = self.accounts().await?.into_iter().find(|account| account.username == username);
        match made {
            Some(account) if account.enabled && account.role == "Administrator" => Ok(()),
            Some(account) => Err(self.not_obeyed("the account", format!("it reads back as {}", account.role))),
            None => Err(self.not_obeyed("the account", "it does not show")),
        }
    }

    /// Writes an account into the first free slot from number `first` on, all in one change.
    async fn fill_slot(&self, slots: &[Account], fields: &Value, first: u32) -> Result<(), BmcError> {
        let number = |slot: &Account| slot.link.trim_end_matches('/').rsplit('/').next()?.parse::<u32>().ok();
        let free = |slot: &&Account| slot.username.is_empty() && number(slot).is_some_and(|number| number >= first);
        let slot = slots.iter().find(free).ok_or_else(|| self.unsupported("add an account: no slot is free"))?;
        self.patch(&slot.link, fields).await.map(drop)
    }

    /// How many wrong passwords lock an account; 0 never.
    ///
    /// # Errors
    /// [`BmcError::NotObeyed`] where it does not read back.
    pub async fn set_lockout(&self, tries: u64) -> Result<u64, BmcError> {
        let service = self.root["AccountService"]["@odata.id"].as_str();
        let service = service.ok_or_else(|| self.unsupported("set when accounts lock"))?;
        // Nobody may be locked out for less than ten minutes there, and some number of tries is wanted.
        let (tries, body) = match tries {
            0 if self.quirks.has(Fact::NvidiaLockoutFour) => {
                (4, json!({ "AccountLockoutThreshold": 4, "AccountLockoutDuration": 600 }))
            }
            tries => (tries, json!({ "AccountLockoutThreshold": tries })),
        };
        self.patch(service, &body).await?;
        let now: Value = self.client.get(service).await?;
        match now["AccountLockoutThreshold"].as_u64() {
            Some(shown) if shown == tries => Ok(tries),
            shown => Err(self.not_obeyed("when accounts lock", format!("it reads back as {shown:?}"))),
        }
    }
}
