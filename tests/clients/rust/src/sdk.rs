//! A client of the AWS SDK with the SDK's defaults, for one server.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Builder, Credentials, Region};

use crate::Server;

/// The settings that a person gives it: where, as whom, and bucket names in the path (the address is an IP address).
pub fn settings(server: &Server) -> Builder {
    aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new("us-east-1"))
        .endpoint_url(&server.endpoint)
        .force_path_style(true)
        .credentials_provider(Credentials::new(&server.access_key, &server.secret_key, None, None, "environment"))
}

/// A client with them.
pub fn client(server: &Server) -> Client {
    Client::from_conf(settings(server).build())
}
