//! What the node tells the appliance while it works and when it is done.

use crate::format::order::{Order, Report, VERSION};
use crate::pull::{Appliance, Patience, PullError};

use super::console;

/// Asks for the order until the appliance answers; an error means that it refused.
pub async fn fetch_order(appliance: &Appliance) -> Result<Order, PullError> {
    let ask = || appliance.get_json::<Order>("/agent/v1/order");
    let order = Patience::Endless.keep_trying("asking for the order", ask).await?;
    if order.version > VERSION {
        return Err(PullError::BadAnswer {
            path: "/agent/v1/order".to_owned(),
            what: format!("version {} and this agent knows {VERSION}", order.version),
        });
    }
    Ok(order)
}

/// Delivers the report, for as long as it takes; a refusal ends the attempt, since nobody waits for it any more.
pub async fn deliver(appliance: &Appliance, report: &Report) {
    let send = || appliance.post_json("/agent/v1/report", report);
    match Patience::Endless.keep_trying("reporting", send).await {
        Ok(()) => console::say("report", "the appliance has the report"),
        Err(error) => console::say("report", format!("the appliance did not take the report: {error}")),
    }
}
