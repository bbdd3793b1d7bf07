//! The agent's whole life as the first process: boot region, network, order, disk, report, power off.

use hyper::StatusCode;

use super::boot::{self, Medium};
use super::modules::Loader;
use super::{console, init, network, report};
use crate::format::order::Order;
use crate::model::Secret;
use crate::pull::{Appliance, Login, PullError};
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
    match runtime.block_on(report::fetch_order(&appliance)) {
        Ok(order) => install(&medium, &order),
        Err(error) => give_up(&medium, &refusal(&error)),
    }
}

fn install(medium: &Medium, order: &Order) -> ! {
    console::say("order", format!("{}: install {} ({} bytes)", order.node, order.image, order.image_bytes));
    give_up(medium, "this agent cannot write yet")
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
        _ => "the appliance gives no order",
    };
    format!("{meaning} ({error})")
}

/// Ends where no report can be sent: says why and stays up, so that the message can be read.
fn give_up(medium: &Medium, why: &str) -> ! {
    console::say("stop", why);
    console::banner(&[
        &format!("{}: nothing was installed.", medium.region.node),
        why,
        "Apply the rack's spec again to start over; this machine may be switched off.",
    ]);
    init::stay()
}
