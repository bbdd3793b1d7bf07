//! Plans of racks, and what is known of their nodes.

use axum::extract::State;

use super::ApiState;
use super::endpoint::{Content, Endpoint, Who};
use super::error::ApiResult;
use super::extract::Json;
use crate::job::NodeRow;
use crate::rack::{JobRequest, Plan};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post("/api/v1/racks/plan", Who::Admin, plan)
            .about("Surveys the nodes of a spec and answers with what would have to be done. Touches nothing.")
            .takes(Content::Json("JobRequest"))
            .gives(Content::Json("Plan"))
            .refuses(&[409]),
        Endpoint::get("/api/v1/nodes", Who::Admin, nodes)
            .about("Every node that a job ever worked on: what it holds, and whether it is quarantined.")
            .gives(Content::JsonList("NodeRow")),
    ]
}

async fn plan(State(state): State<ApiState>, Json(request): Json<JobRequest>) -> ApiResult<Json<Plan>> {
    Ok(Json(state.conductor().plan(&request.spec, &request.only).await?))
}

async fn nodes(State(state): State<ApiState>) -> ApiResult<Json<Vec<NodeRow>>> {
    Ok(Json(state.conductor().nodes().await?))
}
