//! Proves that programs on the AWS SDK for Rust work unchanged: its default checksums both ways, streamed and multipart
//! uploads, paginators, signed addresses, conditions, copies, batch deletes, and its typed errors.

use std::process::ExitCode;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumMode, CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier};
use bedplate_clients::{Outcome, Server, Steps, check, noise, sdk};

const BUCKET: &str = "aws-sdk-rust";
const MIB: usize = 1 << 20;

#[tokio::main]
async fn main() -> ExitCode {
    println!("version {}", aws_sdk_s3::meta::PKG_VERSION);
    let server = match Server::from_environment() {
        Ok(server) => server,
        Err(error) => {
            println!("failed start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let client = sdk::client(&server);
    let mut steps = Steps::default();
    steps.step("bucket", bucket(&client)).await;
    steps.step("put and get, default checksums", put_and_get(&client)).await;
    steps.step("streamed from a file", streamed(&client, &server)).await;
    steps.step("multipart", multipart(&client)).await;
    steps.step("paginated list", list(&client)).await;
    steps.step("signed addresses", presign(&client)).await;
    steps.step("conditions", conditions(&client)).await;
    steps.step("copy", copy(&client)).await;
    steps.step("typed errors", errors(&client, &server)).await;
    steps.step("batch delete and bucket removal", remove(&client)).await;
    steps.end()
}

async fn bucket(client: &Client) -> Outcome {
    client.create_bucket().bucket(BUCKET).send().await?;
    client.head_bucket().bucket(BUCKET).send().await?;
    let listed = client.list_buckets().send().await?;
    check(listed.buckets().iter().any(|bucket| bucket.name() == Some(BUCKET)), "the new bucket is not listed")
}

/// The SDK sends a checksum with each put and compares the one that a get answers.
async fn put_and_get(client: &Client) -> Outcome {
    let bytes = noise(1, 3 * MIB);
    let put = client.put_object().bucket(BUCKET).key("one").metadata("who", "me").content_type("application/x-tensor");
    let put = put.body(bytes.clone().into()).send().await?;
    let checksum = put.checksum_crc64_nvme().or(put.checksum_crc32()).ok_or("the put answers no checksum")?.to_owned();
    let get = client.get_object().bucket(BUCKET).key("one").checksum_mode(ChecksumMode::Enabled).send().await?;
    check(get.content_type() == Some("application/x-tensor"), "another content type")?;
    check(get.metadata().is_some_and(|all| all.get("who").is_some_and(|who| who == "me")), "other metadata")?;
    let answered = get.checksum_crc64_nvme().or(get.checksum_crc32()).map(str::to_owned);
    check(answered.as_deref() == Some(&checksum), format!("the get answers the checksum {answered:?}"))?;
    check(get.body.collect().await?.to_vec() == bytes, "other bytes came back")?;
    let part = client.get_object().bucket(BUCKET).key("one").range("bytes=1000-1999").send().await?;
    check(part.body.collect().await?.to_vec() == bytes[1000..2000], "another range came back")
}

async fn streamed(client: &Client, server: &Server) -> Outcome {
    let bytes = noise(2, 20 * MIB + 7);
    let file = server.work.join("streamed");
    tokio::fs::write(&file, &bytes).await?;
    let body = ByteStream::from_path(&file).await?;
    client.put_object().bucket(BUCKET).key("streamed").body(body).send().await?;
    let get = client.get_object().bucket(BUCKET).key("streamed").send().await?;
    check(get.content_length() == i64::try_from(bytes.len()).ok(), "another length")?;
    let mut reader = get.body.into_async_read();
    let mut back = tokio::fs::File::create(server.work.join("back")).await?;
    tokio::io::copy(&mut reader, &mut back).await?;
    check(tokio::fs::read(server.work.join("back")).await? == bytes, "other bytes came back")
}

async fn multipart(client: &Client) -> Outcome {
    let parts: Vec<Vec<u8>> = vec![noise(3, 6 * MIB), noise(4, 5 * MIB), noise(5, 1234)];
    let upload = client.create_multipart_upload().bucket(BUCKET).key("parts").send().await?;
    let id = upload.upload_id().ok_or("no upload id")?;
    let mut done = Vec::new();
    for (number, part) in (1..).zip(&parts) {
        let sent = client.upload_part().bucket(BUCKET).key("parts").upload_id(id).part_number(number);
        let sent = sent.body(part.clone().into()).send().await?;
        let part = CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag().map(str::to_owned));
        let part = part.set_checksum_crc32(sent.checksum_crc32().map(str::to_owned));
        done.push(part.set_checksum_crc64_nvme(sent.checksum_crc64_nvme().map(str::to_owned)).build());
    }
    let listed = client.list_parts().bucket(BUCKET).key("parts").upload_id(id).send().await?;
    check(listed.parts().len() == 3, format!("{} parts are listed", listed.parts().len()))?;
    let complete = client.complete_multipart_upload().bucket(BUCKET).key("parts").upload_id(id);
    let whole = CompletedMultipartUpload::builder().set_parts(Some(done)).build();
    let completed = complete.multipart_upload(whole).send().await?;
    check(completed.e_tag().is_some_and(|tag| tag.trim_matches('"').ends_with("-3")), "no ETag of three parts")?;
    let get = client.get_object().bucket(BUCKET).key("parts").send().await?;
    check(get.body.collect().await?.to_vec() == parts.concat(), "other bytes came back")?;
    let given_up = client.create_multipart_upload().bucket(BUCKET).key("given-up").send().await?;
    let id = given_up.upload_id().ok_or("no upload id")?;
    client.abort_multipart_upload().bucket(BUCKET).key("given-up").upload_id(id).send().await?;
    let open = client.list_multipart_uploads().bucket(BUCKET).send().await?;
    check(open.uploads().is_empty(), "an upload that was given up is still listed")
}

async fn list(client: &Client) -> Outcome {
    for number in 0..25 {
        let key = format!("list/{}/{number:02}", number % 5);
        client.put_object().bucket(BUCKET).key(key).body(ByteStream::from_static(b"x")).send().await?;
    }
    let mut keys = Vec::new();
    let request = client.list_objects_v2().bucket(BUCKET).prefix("list/");
    let mut pages = request.into_paginator().page_size(7).send();
    while let Some(page) = pages.next().await {
        keys.extend(page?.contents().iter().filter_map(|object| object.key().map(str::to_owned)));
    }
    check(keys.len() == 25 && keys.is_sorted(), format!("listed: {keys:?}"))?;
    let folders = client.list_objects_v2().bucket(BUCKET).prefix("list/").delimiter("/").send().await?;
    check(folders.common_prefixes().len() == 5 && folders.contents().is_empty(), "the folders are not listed")
}

async fn presign(client: &Client) -> Outcome {
    let minute = PresigningConfig::expires_in(Duration::from_secs(60))?;
    let http = reqwest::Client::new();
    let put = client.put_object().bucket(BUCKET).key("signed + ü").presigned(minute.clone()).await?;
    let mut request = http.put(put.uri()).body("by address");
    for (name, value) in put.headers() {
        request = request.header(name, value);
    }
    request.send().await?.error_for_status()?;
    let get = client.get_object().bucket(BUCKET).key("signed + ü").presigned(minute).await?;
    let text = http.get(get.uri()).send().await?.error_for_status()?.text().await?;
    check(text == "by address", format!("{text:?} came back"))?;
    let bent = get.uri().replace("signed", "sighed");
    check(http.get(bent).send().await?.status() == 403, "an address that was bent is answered")
}

async fn conditions(client: &Client) -> Outcome {
    let put = || client.put_object().bucket(BUCKET).key("once").body(ByteStream::from_static(b"first"));
    let first = put().if_none_match("*").send().await?;
    let again = put().if_none_match("*").send().await.err().ok_or("a second put of a new object succeeded")?;
    check(again.code() == Some("PreconditionFailed"), format!("{:?}", again.code()))?;
    put().if_match(first.e_tag().ok_or("no ETag")?).send().await?;
    let stale =
        put().if_match("\"00000000000000000000000000000000\"").send().await.err().ok_or("a stale put succeeded")?;
    check(stale.code() == Some("PreconditionFailed"), format!("{:?}", stale.code()))?;
    let get = client.get_object().bucket(BUCKET).key("once").if_none_match(first.e_tag().unwrap_or_default());
    let unchanged = get.send().await.err().ok_or("an unchanged object was sent again")?;
    check(unchanged.raw_response().is_some_and(|raw| raw.status().as_u16() == 304), "not 304")
}

async fn copy(client: &Client) -> Outcome {
    let request = client.copy_object().bucket(BUCKET).key("copy").copy_source(format!("{BUCKET}/parts"));
    let copied = request.send().await?;
    check(copied.copy_object_result().and_then(|result| result.e_tag()).is_some(), "the copy answers no ETag")?;
    let (from, to) = tokio::try_join!(
        client.head_object().bucket(BUCKET).key("parts").send(),
        client.head_object().bucket(BUCKET).key("copy").send(),
    )?;
    check(from.content_length() == to.content_length(), "the copy has another length")
}

async fn errors(client: &Client, server: &Server) -> Outcome {
    let absent = client.get_object().bucket(BUCKET).key("absent").send().await.err().ok_or("an absent object")?;
    check(absent.as_service_error().is_some_and(|error| error.is_no_such_key()), "not NoSuchKey")?;
    let head = client.head_object().bucket(BUCKET).key("absent").send().await.err().ok_or("an absent object")?;
    check(head.as_service_error().is_some_and(|error| error.is_not_found()), "not NotFound")?;
    let nowhere =
        client.list_objects_v2().bucket("aws-sdk-rust-absent").send().await.err().ok_or("an absent bucket")?;
    check(nowhere.as_service_error().is_some_and(|error| error.is_no_such_bucket()), "not NoSuchBucket")?;
    let wrong = Credentials::new(&server.access_key, "not-the-secret", None, None, "wrong");
    let wrong = Client::from_conf(sdk::settings(server).credentials_provider(wrong).build());
    let refused = wrong.list_buckets().send().await.err().ok_or("a wrong secret key opens the server")?;
    check(refused.code() == Some("SignatureDoesNotMatch"), format!("{:?}", refused.code()))
}

async fn remove(client: &Client) -> Outcome {
    let full = client.delete_bucket().bucket(BUCKET).send().await.err().ok_or("a full bucket was removed")?;
    check(full.code() == Some("BucketNotEmpty"), format!("{:?}", full.code()))?;
    let mut pages = client.list_objects_v2().bucket(BUCKET).into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page?;
        let keys = page.contents().iter().filter_map(|object| object.key());
        let keys = keys.map(|key| ObjectIdentifier::builder().key(key).build()).collect::<Result<Vec<_>, _>>()?;
        let deleted = client.delete_objects().bucket(BUCKET);
        let deleted = deleted.delete(Delete::builder().set_objects(Some(keys)).build()?).send().await?;
        check(deleted.errors().is_empty(), format!("{:?}", deleted.errors()))?;
    }
    client.delete_bucket().bucket(BUCKET).send().await?;
    Ok(())
}
