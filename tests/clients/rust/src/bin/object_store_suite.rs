//! Proves that the `object_store` crate sees in this server what it expects of S3: its own integration suite, function by
//! function, with each of its checksum and payload settings, plus what that suite keeps to itself (signed addresses, tags).

use std::process::ExitCode;
use std::time::Duration;

use aws_sdk_s3::Client;
use bedplate_clients::{Outcome, Server, Steps, check};
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum, S3ConditionalPut, S3CopyIfNotExists};
use object_store::path::Path;
use object_store::signer::Signer as _;
use object_store::{Attribute, Attributes, ObjectStore, ObjectStoreExt as _, PutOptions, TagSet, integration};
use reqwest::Method;

/// The package's version; the manifest pins it.
const VERSION: &str = "0.14.2";
const BUCKET: &str = "object-store-suite";

#[tokio::main]
async fn main() -> ExitCode {
    println!("version {VERSION}");
    let server = match Server::from_environment() {
        Ok(server) => server,
        Err(error) => {
            println!("failed start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut steps = Steps::default();
    let client = bedplate_clients::sdk::client(&server);
    steps.step("bucket", make_bucket(&client)).await;
    let plain = builder(&server);
    let store = plain.clone().build().expect("the settings are complete");
    suite(&mut steps, &store).await;
    for (name, builder) in [
        ("unsigned payload", plain.clone().with_unsigned_payload(true)),
        ("checksum sha256", plain.clone().with_checksum_algorithm(Checksum::SHA256)),
        ("checksum crc64nvme", plain.clone().with_checksum_algorithm(Checksum::CRC64NVME)),
    ] {
        let store = builder.build().expect("the settings are complete");
        steps.step(name, whole(integration::put_get_delete_list(&store))).await;
        let multipart = format!("{name}, multipart");
        steps.step(&multipart, whole(integration::multipart(&store, &store))).await;
    }
    steps.step("signed address", signed(&store)).await;
    steps.step("tags", tags(&store, &client)).await;
    steps.step("attributes come back", attributes(&store)).await;
    steps.end()
}

fn builder(server: &Server) -> AmazonS3Builder {
    AmazonS3Builder::new()
        .with_endpoint(&server.endpoint)
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(BUCKET)
        .with_access_key_id(&server.access_key)
        .with_secret_access_key(&server.secret_key)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_copy_if_not_exists(S3CopyIfNotExists::Multipart)
}

/// The functions that the crate itself runs against S3, in its order: the first ones expect an empty bucket.
async fn suite(steps: &mut Steps, store: &AmazonS3) {
    steps.step("put_get_delete_list", whole(integration::put_get_delete_list(store))).await;
    steps.step("list_with_offset_exclusivity", whole(integration::list_with_offset_exclusivity(store))).await;
    steps.step("get_opts", whole(integration::get_opts(store))).await;
    steps.step("list_uses_directories_correctly", whole(integration::list_uses_directories_correctly(store))).await;
    steps.step("list_with_delimiter", whole(integration::list_with_delimiter(store))).await;
    steps.step("rename_and_copy", whole(integration::rename_and_copy(store))).await;
    steps.step("stream_get", whole(integration::stream_get(store))).await;
    steps.step("multipart", whole(integration::multipart(store, store))).await;
    steps.step("multipart_with_opts", whole(integration::multipart_with_opts(store, store))).await;
    steps
        .step("multipart_put_part_out_of_order", whole(integration::multipart_put_part_out_of_order(store, store)))
        .await;
    steps.step("multipart_race_condition", whole(integration::multipart_race_condition(store, true))).await;
    steps.step("multipart_out_of_order", whole(integration::multipart_out_of_order(store))).await;
    steps.step("put_get_attributes", whole(integration::put_get_attributes(store))).await;
    steps.step("list_paginated", whole(integration::list_paginated(store, store))).await;
    steps.step("copy_if_not_exists", whole(integration::copy_if_not_exists(store))).await;
    steps.step("copy_rename_nonexistent_object", whole(integration::copy_rename_nonexistent_object(store))).await;
    steps.step("put_opts", whole(integration::put_opts(store, true))).await;
    let absent = async {
        let error = integration::get_nonexistent_object(store, None).await.err().ok_or("an absent object was read")?;
        let told = matches!(error, object_store::Error::NotFound { .. });
        check(told, format!("an absent object is told as {error}"))
    };
    steps.step("get_nonexistent_object", absent).await;
}

/// The suite's functions panic where something does not hold.
async fn whole(function: impl Future<Output = ()>) -> Outcome {
    function.await;
    Ok(())
}

async fn make_bucket(client: &Client) -> Outcome {
    client.create_bucket().bucket(BUCKET).send().await?;
    Ok(())
}

/// An address signed for GET opens the object to a plain HTTP client, and only until it expires.
async fn signed(store: &AmazonS3) -> Outcome {
    let path = Path::from("signed.txt");
    store.put(&path, "hello world".into()).await?;
    let address = store.signed_url(Method::GET, &path, Duration::from_secs(60)).await?;
    let answer = reqwest::get(address).await?.error_for_status()?;
    check(answer.bytes().await? == "hello world", "other bytes")?;
    let short = store.signed_url(Method::GET, &path, Duration::from_secs(1)).await?;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    check(reqwest::get(short).await?.status() == 403, "an expired address still opens the object")
}

/// Tags given with a put are there for the S3 call that reads tags.
async fn tags(store: &AmazonS3, client: &Client) -> Outcome {
    let mut tags = TagSet::default();
    tags.push("foo.com=bar/s", "bananas/foo.com-_");
    tags.push("namespace/key.foo", "value with a space");
    let path = Path::from("tagged");
    store.put_opts(&path, "test".into(), PutOptions::from(tags)).await?;
    let answer = client.get_object_tagging().bucket(BUCKET).key("tagged").send().await?;
    let mut found: Vec<(&str, &str)> = answer.tag_set().iter().map(|tag| (tag.key(), tag.value())).collect();
    found.sort_unstable();
    let wanted = [("foo.com=bar/s", "bananas/foo.com-_"), ("namespace/key.foo", "value with a space")];
    check(found == wanted, format!("{found:?} came back"))
}

/// Content headers and user metadata given with a put come back with a get.
async fn attributes(store: &AmazonS3) -> Outcome {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, "application/x-tensor".into());
    attributes.insert(Attribute::Metadata("step".into()), "4200".into());
    let path = Path::from("attributed");
    store.put_opts(&path, "test".into(), PutOptions::from(attributes.clone())).await?;
    let found = store.get(&path).await?.attributes;
    let all = attributes.iter().all(|(name, value)| found.get(name) == Some(value));
    check(all, format!("{found:?} came back"))
}
