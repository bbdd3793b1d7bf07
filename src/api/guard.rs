//! Who may call, decided in one place, before any handler runs.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;

use super::ApiState;
use super::endpoint::Who;
use super::error::{ApiError, ApiResult};
use crate::auth::Principal;
use crate::model::Secret;
use crate::sys::wire::Peer;

/// The token that the caller showed; whether it is good for what it asks is the conductor's to say.
#[derive(Clone)]
pub(super) struct AgentToken(Secret);

impl AgentToken {
    /// The token's text.
    pub(super) fn text(&self) -> &str {
        self.0.reveal()
    }
}

/// Lets a request through to its handler, or refuses it.
pub(super) async fn guard(
    State((state, who)): State<(ApiState, Who)>,
    mut request: Request,
    next: Next,
) -> ApiResult<Response> {
    let shown = Shown::of(&request);
    match (who, shown) {
        (Who::Anyone, _) => {}
        (Who::Agent | Who::Puller, Shown::Bearer(token)) => {
            require_tls(&request)?;
            request.extensions_mut().insert(AgentToken(token));
        }
        (Who::Agent, _) => {
            require_tls(&request)?;
            return Err(ApiError::unauthorised(
                "this address answers agents only, and no token was shown",
                "send `Authorization: Bearer TOKEN` with the token from the boot region or the seed",
            ));
        }
        (Who::Holder, Shown::Basic(header)) => {
            let caller = state.auth().check_basic(header.reveal()).await.map_err(|error| ApiError::internal(&error))?;
            let caller = caller.ok_or_else(|| {
                ApiError::unauthorised(
                    "the access key is unknown, or its secret is wrong",
                    "check BEDPLATE_ACCESS_KEY and BEDPLATE_SECRET_KEY",
                )
            })?;
            request.extensions_mut().insert(caller);
        }
        (Who::Admin | Who::Puller, Shown::Basic(header)) => admit(&state, header.reveal()).await?,
        (Who::Admin | Who::Puller | Who::Holder, _) => {
            return Err(ApiError::unauthorised(
                "no access key was shown",
                "send `Authorization: Basic` with an access key and its secret key; `bedplate` takes them from \
                 BEDPLATE_ACCESS_KEY and BEDPLATE_SECRET_KEY, or from root-credentials.toml in --data",
            ));
        }
    }
    Ok(next.run(request).await)
}

async fn admit(state: &ApiState, header: &str) -> ApiResult<()> {
    match state.auth().check_basic(header).await {
        Ok(Some(Principal::Root)) => Ok(()),
        Ok(Some(principal)) => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "not-allowed",
            format!("the key is tenant {}'s, and tenants have no say here", principal.owner()),
            "use the root key: root-credentials.toml in the appliance's data folder holds it",
        )),
        Ok(None) => Err(ApiError::unauthorised(
            "the access key is unknown, or its secret is wrong",
            "use the root key: root-credentials.toml in the appliance's data folder holds it",
        )),
        Err(error) => Err(ApiError::internal(&error)),
    }
}

fn require_tls(request: &Request) -> ApiResult<()> {
    if request.extensions().get::<Peer>().is_some_and(|peer| peer.tls) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "tls-required",
        "agents talk to the appliance over TLS only",
        "use https:// on the same port, and trust the certificate by the pin in the boot region",
    ))
}

/// What the `Authorization` header shows.
enum Shown {
    Nothing,
    /// The whole header, which `auth` reads.
    Basic(Secret),
    Bearer(Secret),
}

impl Shown {
    fn of(request: &Request) -> Self {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match header.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Self::Bearer(Secret::new(token.trim())),
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("basic") => Self::Basic(Secret::new(header)),
            _ => Self::Nothing,
        }
    }
}
