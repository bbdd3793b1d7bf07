//! What a node being installed says and asks: its order, its seed, how far it is, how it ended, and that it booted.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::ApiState;
use super::endpoint::{Content, Endpoint, Who};
use super::error::{ApiError, ApiResult};
use super::extract::Json;
use super::guard::AgentToken;
use crate::format::order::{Booted, Order, Progress, Report, Seed};
use crate::image::seed;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/agent/v1/order", Who::Agent, order)
            .about("What the node is to install, and where.")
            .gives(Content::Json("Order")),
        Endpoint::get("/agent/v1/seed", Who::Agent, seed_volume)
            .about("The node's seed: a FAT volume labelled CIDATA, to be written into a partition as it is.")
            .gives(Content::Bytes("application/octet-stream")),
        Endpoint::post("/agent/v1/progress", Who::Agent, progress)
            .about("How far the installation is.")
            .takes(Content::Json("Progress"))
            .status(204),
        Endpoint::post("/agent/v1/report", Who::Agent, report)
            .about("How the installation ended.")
            .takes(Content::Json("Report"))
            .status(204),
        Endpoint::post("/agent/v1/booted", Who::Agent, booted)
            .about("The installed system's word that it runs, and which image it is.")
            .takes(Content::Json("Booted"))
            .status(204),
    ]
}

async fn order(State(state): State<ApiState>, Extension(token): Extension<AgentToken>) -> ApiResult<Json<Order>> {
    Ok(Json(state.conductor().order(token.text()).await?))
}

async fn seed_volume(State(state): State<ApiState>, Extension(token): Extension<AgentToken>) -> ApiResult<Response> {
    let order = state.conductor().order(token.text()).await?;
    let seed = Seed {
        url: state.public_url().to_owned(),
        certificate_pin: state.certificate_pin(),
        token: order.boot_token,
        node: order.node,
    };
    let user_data = state.conductor().user_data(token.text()).await?;
    let volume = seed::volume(&order.job, &seed, user_data.as_ref()).map_err(|error| ApiError::internal(&error))?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], volume).into_response())
}

async fn progress(
    State(state): State<ApiState>,
    Extension(token): Extension<AgentToken>,
    Json(progress): Json<Progress>,
) -> ApiResult<StatusCode> {
    state.conductor().progress(token.text(), progress).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn report(
    State(state): State<ApiState>,
    Extension(token): Extension<AgentToken>,
    Json(report): Json<Report>,
) -> ApiResult<StatusCode> {
    state.conductor().report(token.text(), report).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn booted(
    State(state): State<ApiState>,
    Extension(token): Extension<AgentToken>,
    Json(booted): Json<Booted>,
) -> ApiResult<StatusCode> {
    state.conductor().booted(token.text(), booted).await?;
    Ok(StatusCode::NO_CONTENT)
}
