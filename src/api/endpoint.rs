//! One entry of the control door's table: where, who may, what it takes and gives, and the handler. The router and the
//! OpenAPI document are both made from the table, so neither can know an endpoint that the other does not.

use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::ApiState;

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Anyone who can reach the port.
    Anyone,
    /// An agent or an installed system with its token, over TLS only.
    Agent,
    /// An agent with its token over TLS, or an administrator.
    Puller,
    /// Whoever has a key; the handler asks what it may read or write.
    Holder,
    /// The root key.
    Admin,
}

/// What a request or an answer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing.
    Empty,
    /// JSON of this schema in the OpenAPI document.
    Json(&'static str),
    /// A JSON array of this schema.
    JsonList(&'static str),
    /// Bytes of this media type.
    Bytes(&'static str),
}

/// One endpoint.
pub(super) struct Endpoint {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) who: Who,
    pub(super) about: &'static str,
    pub(super) query: &'static [(&'static str, &'static str)],
    pub(super) takes: Content,
    pub(super) gives: Content,
    pub(super) status: u16,
    pub(super) refusals: &'static [u16],
    pub(super) handler: MethodRouter<ApiState>,
}

impl Endpoint {
    fn new<H, T>(method: Method, filter: MethodFilter, path: &'static str, who: Who, handler: H) -> Self
    where
        H: Handler<T, ApiState>,
        T: 'static,
    {
        Self {
            method,
            path,
            who,
            about: "",
            query: &[],
            takes: Content::Empty,
            gives: Content::Empty,
            status: 200,
            refusals: &[],
            handler: on(filter, handler),
        }
    }

    /// An endpoint that reads; it answers HEAD too.
    pub(super) fn get<H: Handler<T, ApiState>, T: 'static>(path: &'static str, who: Who, handler: H) -> Self {
        Self::new(Method::GET, MethodFilter::GET, path, who, handler)
    }

    /// An endpoint that does something.
    pub(super) fn post<H: Handler<T, ApiState>, T: 'static>(path: &'static str, who: Who, handler: H) -> Self {
        Self::new(Method::POST, MethodFilter::POST, path, who, handler)
    }

    /// An endpoint that takes something in under a name.
    pub(super) fn put<H: Handler<T, ApiState>, T: 'static>(path: &'static str, who: Who, handler: H) -> Self {
        Self::new(Method::PUT, MethodFilter::PUT, path, who, handler)
    }

    /// An endpoint that removes.
    pub(super) fn delete<H: Handler<T, ApiState>, T: 'static>(path: &'static str, who: Who, handler: H) -> Self {
        Self::new(Method::DELETE, MethodFilter::DELETE, path, who, handler)
    }

    /// One sentence on what it does.
    pub(super) fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// Query parameters: name, and what it means.
    pub(super) fn query(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.query = query;
        self
    }

    /// What the request carries.
    pub(super) fn takes(mut self, content: Content) -> Self {
        self.takes = content;
        self
    }

    /// What the answer carries.
    pub(super) fn gives(mut self, content: Content) -> Self {
        self.gives = content;
        self
    }

    /// The status of success, where it is not 200.
    pub(super) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Statuses of refusals that are this endpoint's own.
    pub(super) fn refuses(mut self, refusals: &'static [u16]) -> Self {
        self.refusals = refusals;
        self
    }
}
