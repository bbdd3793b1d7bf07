//! The agent's whole life as the first process: boot region, network, order, disk, report, power off.

use hyper::StatusCode;

use super::boot::{self, Medium};
use super::install::{self, Failure};
use super::modules::Loader;
use super::report::{self, Gauge};
use super::{console, init, network};
use crate::format::order::{Installed, Order, Report};
use crate::model::{ByteSize, Secret};
use crate::pull::{Appliance, Login, PullError, with_causes};
use crate::sys::worker::Workers;
use crate::sys::{process, wire};

const SETTLE_LIMIT: std::time::Duration = std::time::Duration::from_secs(15);

/// Runs as the first process; never returns, because the kernel has nothing else to run.
pub fn as_first_process() -> ! {
    init::set_up();
    let mut loader = Loader::new();
    loader.settle(SETTLE_LIMIT);
    if let Err(error) = init::mount_efivars() {
        console::say(
            "init",
            format!("no firmware variables ({error}): the firmware finds the disk by its fallback path"),
        );
    }
    let medium = boot::find(&mut loader);
    if let Err(error) = process::set_host_name(&medium.region.node) {
        console::say("init", format!("cannot set the host name: {error}"));
    }
    wire::install_crypto();
    let appliance = match appliance_of(&medium) {
        Ok(appliance) => appliance,
        Err(error) => give_up(&medium, &error.to_string()),
    };
    network::connect(&appliance.authority(), &mut loader);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => give_up(&medium, &format!("cannot start: {error}")),
    };
    let ended = runtime.block_on(carry_out(&medium, &appliance));
    match ended {
        Ok(()) => init::power_off(),
        Err(why) => give_up(&medium, &why),
    }
}

/// Order, installation, report; an error is for the console alone, since the appliance does not listen.
async fn carry_out(medium: &Medium, appliance: &Appliance) -> Result<(), String> {
    let order = report::fetch_order(appliance).await.map_err(|error| refusal(&error))?;
    let size = ByteSize(order.image_bytes);
    console::say("order", format!("{}: install {} ({size})", order.node, order.image));
    let (gauge, workers) = (Gauge::default(), Workers::new());
    let telling = report::keep_telling(Some(appliance.clone()), gauge.clone(), workers.token());
    workers.spawn("progress", telling);
    let outcome = install::install(appliance, &order, &gauge).await;
    workers.stop().await;
    process::sync_all();
    let report = match outcome {
        Ok(installed) => {
            show_success(medium, &order, &installed);
            Report::Installed(installed)
        }
        Err(failure) => {
            show_failure(medium, &failure);
            Report::Failed { error: failure.error, untouched: failure.untouched }
        }
    };
    report::deliver(appliance, &report).await.map_err(|error| {
        console::say("report", with_causes(&error));
        refusal(&error)
    })?;
    console::say("report", "the appliance has the report");
    Ok(())
}

fn show_success(medium: &Medium, order: &Order, installed: &Installed) {
    let (fetched, written) = (ByteSize(installed.bytes_fetched), ByteSize(installed.bytes_written));
    let zero = ByteSize(installed.bytes_zero);
    console::banner(&[
        &format!("{}: {} is on {} and reads back right.", medium.region.node, order.image, installed.disk),
        &format!("{:.0} s; fetched {fetched}, wrote {written}, zeroed {zero}.", installed.seconds),
    ]);
}

fn show_failure(medium: &Medium, failure: &Failure) {
    let disk = if failure.untouched { "No disk was touched." } else { "The disk is partly written." };
    console::banner(&[&format!("{}: NOT installed. {disk}", medium.region.node), &failure.error]);
}

fn appliance_of(medium: &Medium) -> Result<Appliance, PullError> {
    let mut pin = [0; 32];
    hex::decode_to_slice(&medium.region.certificate_pin, &mut pin)
        .map_err(|_| PullError::Address(medium.region.certificate_pin.clone()))?;
    Appliance::new(&medium.region.url, Some(pin), &Login::Token(Secret::new(medium.region.token.clone())))
}

/// What a refused order means to the person at the machine.
fn refusal(error: &PullError) -> String {
    let meaning = match error.status() {
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            "the appliance does not know this boot medium's token: its job was cancelled or is over"
        }
        Some(StatusCode::GONE) => "this boot medium was used before: its one installation is over",
        _ => "the appliance does not speak to this node",
    };
    format!("{meaning} ({error})")
}

/// Ends where no report can be sent: says why and stays up, so that the message can be read.
fn give_up(medium: &Medium, why: &str) -> ! {
    console::say("stop", why);
    console::banner(&[
        &format!("{}: stopped.", medium.region.node),
        why,
        "Apply the rack's spec again to start over; this machine may be switched off.",
    ]);
    init::stay()
}
