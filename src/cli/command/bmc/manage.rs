//! The verbs that show or change one service of a BMC.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::args::{CertificateArgs, EventsArgs, Keys, Managed, Next, TargetArgs};
use super::{ended, explain, show, target, with};
use crate::bmc::{
    Bmc, BmcError, BmcEvent, BootTarget, FirmwareSource, PinFile, SecureBoot, Timing, change_first_password,
};
use crate::cli::Context;
use crate::cli::exit::{CliError, DONE, Exit, FAILED};
use crate::model::Secret;

fn new_password(name: &str) -> Result<Secret, CliError> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => Ok(Secret::new(text)),
        _ => Err(CliError::usage(format!("the environment variable {name} holds no new password"))),
    }
}

/// Runs the verb.
pub(super) async fn run(verb: Managed, context: &Context) -> Result<Exit, CliError> {
    match verb {
        Managed::Health(target) => health(&target, context).await,
        Managed::Log { target, log, most, clear } => {
            let work = async |bmc: &Bmc| {
                if let (true, Some(log)) = (clear, &log) {
                    bmc.clear_log(log).await?;
                }
                bmc.log(log.as_deref(), most).await
            };
            print(&target, context, work, |found| show::log(found)).await
        }
        Managed::Tasks(target) => {
            print(&target, context, async |bmc: &Bmc| bmc.tasks().await, |found| show::tasks(found)).await
        }
        Managed::Bios { target, reset: true, .. } => {
            with(&target, context, async |bmc: &Bmc| bmc.reset_bios().await).await?;
            context.output.say("the defaults take effect with the next start");
            Ok(DONE)
        }
        Managed::Bios { target, set, filter, .. } if set.is_empty() => {
            let work = async |bmc: &Bmc| bmc.bios().await;
            print(&target, context, work, |found| show::bios(found, filter.as_deref())).await
        }
        Managed::Bios { target, set, .. } => {
            print(&target, context, async |bmc: &Bmc| bmc.set_bios(&set).await, show::bios_order).await
        }
        Managed::BootOrder { target, first } => {
            let work = async |bmc: &Bmc| {
                if first.is_empty() { bmc.boot_order().await } else { bmc.set_boot_order(&first).await }
            };
            print(&target, context, work, |found| show::boot_order(found)).await
        }
        Managed::Boot { target, next, http } => {
            let work = async |bmc: &Bmc| match (&http, next) {
                (Some(url), _) => bmc.set_http_boot(url).await,
                (None, next) => bmc.set_boot(boot_target(next.unwrap_or(Next::Order))).await.map(drop),
            };
            with(&target, context, work).await?;
            context.output.say("the next start is set, and was read back");
            Ok(DONE)
        }
        Managed::Certificate(which) => certificate(which, context).await,
        Managed::SecureBoot { target, set, keys, add, database } => {
            let pem = add.as_deref().map(read_text).transpose()?;
            let change = KeyChange { set, keys, pem, database };
            print(&target, context, async |bmc: &Bmc| change.make(bmc).await, show::secure_boot).await
        }
        Managed::Firmware { target, update, part } => firmware(&target, update, &part, context).await,
        Managed::Accounts { target, ensure, new_password_env, lockout } => {
            let password = new_password_env.as_deref().map(new_password).transpose()?;
            let work = async |bmc: &Bmc| {
                if let (Some(name), Some(password)) = (&ensure, &password) {
                    bmc.ensure_administrator(name, password).await?;
                }
                if let Some(tries) = lockout {
                    bmc.set_lockout(tries).await?;
                }
                bmc.accounts().await
            };
            print(&target, context, work, |found| show::accounts(found)).await
        }
        Managed::Password { target, new_password_env, first_login } => {
            let new = new_password(&new_password_env)?;
            password(&target, &new, first_login, context).await
        }
        Managed::Events(which) => events(which, context).await,
    }
}

/// Connects, does the work, and prints what came of it.
async fn print<T: Serialize>(
    target: &TargetArgs,
    context: &Context,
    work: impl AsyncFnOnce(&Bmc) -> Result<T, BmcError>,
    shown: impl FnOnce(&T) -> String,
) -> Result<Exit, CliError> {
    let found = with(target, context, work).await?;
    context.output.value(&found, shown)?;
    Ok(DONE)
}

/// Shows events as they happen, a line each, until Ctrl-C, or until nobody reads them.
async fn follow(target: &TargetArgs, context: &Context) -> Result<Exit, CliError> {
    let (end, ended) = oneshot::channel();
    let mut end = Some(end);
    let show = |event: BmcEvent| {
        let printed = context.output.line(&event, |event| {
            let BmcEvent { time, severity, source, message, .. } = event;
            format!("{}  {severity:<8}  {source:<8}  {message}", time.as_deref().unwrap_or("-"))
        });
        let last = match printed {
            Ok(ControlFlow::Continue(())) => return,
            Ok(ControlFlow::Break(())) => Ok(()),
            Err(error) => Err(error),
        };
        if let Some(end) = end.take() {
            drop(end.send(last));
        }
    };
    let followed = async |bmc: &Bmc| {
        tokio::select! {
            stopped = bmc.follow_events(show) => stopped.map(Ok),
            Ok(last) = ended => Ok(last),
            _ = tokio::signal::ctrl_c() => Ok(Ok(())),
        }
    };
    with(target, context, followed).await??;
    Ok(DONE)
}

async fn certificate(which: CertificateArgs, context: &Context) -> Result<Exit, CliError> {
    let CertificateArgs { target, request, also, install, restart_bmc } = which;
    if let Some(subject) = request {
        let made = with(&target, context, async |bmc: &Bmc| bmc.request_certificate(&subject, &also).await).await?;
        context.output.value(&json!({ "request": made }), |_| made.clone())?;
        return Ok(DONE);
    }
    let Some(file) = install else {
        return print(&target, context, async |bmc: &Bmc| bmc.certificate().await, show::certificate).await;
    };
    let pem = read_text(&file)?;
    let work = async |bmc: &Bmc| bmc.exchange_certificate(&pem, restart_bmc).await;
    let change = with(&target, context, work).await?;
    context.output.value(&change, show::certificate_change)?;
    Ok(if change.shown { DONE } else { FAILED })
}

async fn health(target: &TargetArgs, context: &Context) -> Result<Exit, CliError> {
    let found = with(target, context, async |bmc: &Bmc| bmc.health().await).await?;
    context.output.value(&found, show::health)?;
    Ok(if found.fit { DONE } else { FAILED })
}

fn boot_target(next: Next) -> BootTarget {
    match next {
        Next::Cd => BootTarget::Cd,
        Next::Disk => BootTarget::Hdd,
        Next::Http => BootTarget::Http,
        Next::Order => BootTarget::None,
    }
}

/// What is to change about secure boot.
struct KeyChange {
    set: Option<bool>,
    keys: Option<Keys>,
    pem: Option<String>,
    database: String,
}

impl KeyChange {
    async fn make(&self, bmc: &Bmc) -> Result<SecureBoot, BmcError> {
        if let Some(keys) = self.keys {
            bmc.reset_secure_boot_keys(keys.name()).await?;
        }
        if let Some(pem) = &self.pem {
            bmc.add_secure_boot_certificate(&self.database, pem).await?;
        }
        if let Some(on) = self.set {
            bmc.set_secure_boot(on).await?;
        }
        bmc.secure_boot().await
    }
}

fn read_text(file: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(file).map_err(|e| CliError::usage(format!("cannot read {}: {e}", file.display())))
}

async fn firmware(
    target: &TargetArgs,
    update: Option<String>,
    parts: &[String],
    context: &Context,
) -> Result<Exit, CliError> {
    let Some(from) = update else {
        let work = async |bmc: &Bmc| bmc.firmware().await;
        return print(target, context, work, |found| show::firmware(found)).await;
    };
    let source = match from.contains("://") {
        true => FirmwareSource::Url(from),
        false => FirmwareSource::File(from.into()),
    };
    context.output.say("updating; this takes a real BMC some minutes");
    let work = async |bmc: &Bmc| bmc.update_firmware(&source, parts).await;
    print(target, context, work, show::firmware_update).await
}

async fn password(args: &TargetArgs, new: &Secret, first_login: bool, context: &Context) -> Result<Exit, CliError> {
    if !first_login {
        let username = args.username.clone().ok_or_else(|| CliError::usage("--username is missing"))?;
        let bmc = Box::pin(super::connect(args, context)).await?;
        ended(&bmc, Box::pin(bmc.set_password(&username, new))).await?;
        return Ok(DONE);
    }
    let known = args.known_bmcs.clone().map_or_else(super::known_bmcs, Ok)?;
    let pins = Arc::new(PinFile::open(&known).map_err(|e| explain(&e))?);
    let changed = change_first_password(&target(args)?, new, pins, Timing::default()).await;
    match changed.map_err(|e| explain(&e))? {
        true => Ok(DONE),
        false => Err(CliError::failed("this BMC does not ask for another password")
            .hint("leave --first-login out to change it all the same")),
    }
}

async fn events(which: EventsArgs, context: &Context) -> Result<Exit, CliError> {
    if which.follow {
        return follow(&which.target, context).await;
    }
    let work = async |bmc: &Bmc| {
        if let Some(destination) = &which.subscribe {
            bmc.subscribe(destination, "bedplate").await?;
        }
        if let Some(destination) = &which.unsubscribe {
            for known in bmc.subscriptions().await?.iter().filter(|known| &known.destination == destination) {
                bmc.unsubscribe(known).await?;
            }
        }
        bmc.subscriptions().await
    };
    print(&which.target, context, work, |found| show::subscriptions(found)).await
}
