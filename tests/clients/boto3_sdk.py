"""Proves that programs on boto3 work unchanged: its default trailing checksums, the transfer manager's threads and parts,
paginators, signed addresses and forms, conditional writes, batch deletes, copies, ranges, and metadata in any language."""

import io
import urllib.error
import urllib.request
import uuid

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

import tls
from steps import ACCESS_KEY, ENDPOINT, MIB, WORK, check, equal, file, main, noise, step

BUCKET = "boto3"
s3 = boto3.client("s3", endpoint_url=ENDPOINT)
# Left alone, boto3 signs addresses for us-east-1 with SigV2, which is refused.
signer = boto3.client("s3", endpoint_url=ENDPOINT, config=Config(signature_version="s3v4"))
PARTS = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=5 * MIB, max_concurrency=6)


def refusal(call, **arguments):
    """The HTTP status and error code with which a call is refused."""
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
    return 200, "success"


def fetch(request):
    """The status, headers and body that a plain HTTP client gets."""
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@step("buckets")
def buckets():
    s3.create_bucket(Bucket=BUCKET)
    s3.head_bucket(Bucket=BUCKET)
    check(BUCKET in [each["Name"] for each in s3.list_buckets()["Buckets"]], "the new bucket is not listed")
    equal(s3.get_bucket_location(Bucket=BUCKET)["LocationConstraint"], None)
    equal(refusal(s3.head_bucket, Bucket="boto3-absent")[0], 404)


@step("default checksums, in one piece")
def checksums():
    body = noise(1, 300_000)
    put = s3.put_object(Bucket=BUCKET, Key="crc", Body=body)
    sent = put.get("ChecksumCRC64NVME") or put.get("ChecksumCRC32")
    check(sent, f"the put answers no checksum: {sorted(put)}")
    got = s3.get_object(Bucket=BUCKET, Key="crc", ChecksumMode="ENABLED")
    equal(got.get("ChecksumCRC64NVME") or got.get("ChecksumCRC32"), sent)
    equal(got["Body"].read(), body)


@step("trailing checksums, as over TLS")
def trailing():
    # boto3 sends its checksum behind the body where the connection is encrypted, so this goes through a TLS front.
    with tls.Front() as front:
        secure = boto3.client("s3", endpoint_url=front.endpoint, verify=front.authority)
        sent = []
        secure.meta.events.register("before-send.s3.PutObject", lambda request, **_: sent.append(request.headers))
        body = noise(2, 3 * MIB + 5)
        secure.put_object(Bucket=BUCKET, Key="stream", Body=io.BytesIO(body))
        equal((sent[0]["X-Amz-Content-SHA256"], b"x-amz-trailer" in str(sent[0]).lower().encode()),
              (b"STREAMING-UNSIGNED-PAYLOAD-TRAILER", True))
        check(secure.get_object(Bucket=BUCKET, Key="stream")["Body"].read() == body, "other bytes came back")
        path = file("large", noise(3, 33 * MIB + 1))
        secure.upload_file(str(path), BUCKET, "large", Config=PARTS)
        secure.download_file(BUCKET, "large", str(WORK / "back"), Config=PARTS)
        check((WORK / "back").read_bytes() == path.read_bytes(), "other bytes came back")


@step("each checksum algorithm")
def algorithms():
    for name in ("CRC32", "SHA1", "SHA256"):
        put = s3.put_object(Bucket=BUCKET, Key=f"sum-{name}", Body=io.BytesIO(b"summed"), ChecksumAlgorithm=name)
        head = s3.head_object(Bucket=BUCKET, Key=f"sum-{name}", ChecksumMode="ENABLED")
        equal(head.get(f"Checksum{name}"), put[f"Checksum{name}"])


@step("a wrong checksum leaves nothing")
def wrong_checksum():
    wrong = {"Bucket": BUCKET, "Key": "wrong", "Body": b"summed", "ChecksumSHA256": "A" * 43 + "="}
    equal(refusal(s3.put_object, **wrong), (400, "BadDigest"))
    equal(refusal(s3.head_object, Bucket=BUCKET, Key="wrong")[0], 404)


@step("transfer manager in parts and threads")
def transfer():
    path = file("large", noise(3, 33 * MIB + 1))
    s3.upload_file(str(path), BUCKET, "large", Config=PARTS, ExtraArgs={"Metadata": {"who": "me"}})
    head = s3.head_object(Bucket=BUCKET, Key="large")
    check(head["ETag"].endswith('-7"') and head["Metadata"] == {"who": "me"}, str(head))
    s3.download_file(BUCKET, "large", str(WORK / "back"), Config=PARTS)
    check((WORK / "back").read_bytes() == path.read_bytes(), "other bytes came back")
    stream = io.BytesIO()
    s3.download_fileobj(BUCKET, "large", stream, Config=PARTS)
    check(stream.getvalue() == path.read_bytes(), "other bytes came back")


@step("an upload in parts: list, retry a part, list uploads, abort")
def parts():
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="by-hand")["UploadId"]
    place = {"Bucket": BUCKET, "Key": "by-hand", "UploadId": upload}
    s3.upload_part(**place, PartNumber=1, Body=noise(4, 5 * MIB))
    bodies = [noise(5, 5 * MIB), noise(6, 77)]
    done = [
        {"PartNumber": number, "ETag": s3.upload_part(**place, PartNumber=number, Body=body)["ETag"]}
        for number, body in enumerate(bodies, start=1)
    ]
    equal([part["Size"] for part in s3.list_parts(**place)["Parts"]], [5 * MIB, 77])
    check(upload in [each["UploadId"] for each in s3.list_multipart_uploads(Bucket=BUCKET)["Uploads"]], "not listed")
    wrong = [{**done[0], "ETag": '"0123456789abcdef0123456789abcdef"'}, done[1]]
    equal(refusal(s3.complete_multipart_upload, **place, MultipartUpload={"Parts": wrong}), (400, "InvalidPart"))
    backwards = {"Parts": done[::-1]}
    equal(refusal(s3.complete_multipart_upload, **place, MultipartUpload=backwards), (400, "InvalidPartOrder"))
    s3.complete_multipart_upload(**place, MultipartUpload={"Parts": done})
    check(s3.get_object(Bucket=BUCKET, Key="by-hand")["Body"].read() == b"".join(bodies), "other bytes came back")
    gone = s3.create_multipart_upload(Bucket=BUCKET, Key="gone")["UploadId"]
    s3.abort_multipart_upload(Bucket=BUCKET, Key="gone", UploadId=gone)
    equal(refusal(s3.list_parts, Bucket=BUCKET, Key="gone", UploadId=gone), (404, "NoSuchUpload"))


@step("get and head by part number")
def by_part():
    second = s3.get_object(Bucket=BUCKET, Key="by-hand", PartNumber=2)
    equal((second["PartsCount"], second["ContentLength"], second["Body"].read()), (2, 77, noise(6, 77)))
    equal(s3.head_object(Bucket=BUCKET, Key="by-hand", PartNumber=1)["ContentLength"], 5 * MIB)


@step("paginators")
def paginate():
    for number in range(45):
        s3.put_object(Bucket=BUCKET, Key=f"pages/{number % 9}/{number:02} ü&<+%", Body=b"x")
    for name in ("list_objects_v2", "list_objects"):
        pages = s3.get_paginator(name).paginate(Bucket=BUCKET, Prefix="pages/", PaginationConfig={"PageSize": 7})
        keys = [each["Key"] for page in pages for each in page["Contents"]]
        equal((len(keys), sorted(keys) == keys, len(set(keys))), (45, True, 45))
        shape = {"Bucket": BUCKET, "Prefix": "pages/", "Delimiter": "/", "PaginationConfig": {"PageSize": 4}}
        pages = s3.get_paginator(name).paginate(**shape)
        folders = [each["Prefix"] for page in pages for each in page.get("CommonPrefixes", [])]
        equal(folders, [f"pages/{number}/" for number in range(9)])


@step("signed addresses")
def signed():
    put = signer.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "by address"}, ExpiresIn=60)
    equal(fetch(urllib.request.Request(put, data=b"signed", method="PUT", headers={"Content-Type": ""}))[0], 200)
    shape = {"Bucket": BUCKET, "Key": "by address", "ResponseContentType": "text/x-odd"}
    status, headers, body = fetch(signer.generate_presigned_url("get_object", Params=shape, ExpiresIn=60))
    equal((status, headers["Content-Type"], body), (200, "text/x-odd", b"signed"))
    get = signer.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "by address"}, ExpiresIn=60)
    equal(fetch(get.replace("by%20address", "crc"))[0], 403)
    status, _, body = fetch(s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "crc"}))
    check(status == 403 and b"AccessDenied" in body, f"SigV2: {status} {body[:200]}")


@step("signed forms (POST)")
def form():
    conditions = [["content-length-range", 1, 1000], {"x-amz-meta-who": "me"}]
    post = signer.generate_presigned_post(BUCKET, "form/${filename}", {"x-amz-meta-who": "me"}, conditions, ExpiresIn=60)
    equal(send_form(post, b"from a form")[0] in (200, 204), True)
    got = s3.get_object(Bucket=BUCKET, Key="form/up.bin")
    equal((got["Body"].read(), got["Metadata"]), (b"from a form", {"who": "me"}))
    status, _, body = send_form(post, bytes(2000))
    check(status == 400 and b"EntityTooLarge" in body, f"{status} {body[:200]}")
    post["fields"]["x-amz-meta-who"] = "you"
    status, _, body = send_form(post, b"bent")
    check(status == 403 and b"AccessDenied" in body, f"{status} {body[:200]}")


def send_form(post, content):
    mark = uuid.uuid4().hex
    lines = [f'--{mark}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in post["fields"].items()]
    lines.append(f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="up.bin"\r\n\r\n')
    body = "".join(lines).encode() + content + f"\r\n--{mark}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
    return fetch(urllib.request.Request(post["url"], data=body, headers=kind, method="POST"))


@step("conditional writes and reads")
def conditions():
    place = {"Bucket": BUCKET, "Key": "once"}
    etag = s3.put_object(**place, Body=b"1", IfNoneMatch="*")["ETag"]
    equal(refusal(s3.put_object, **place, Body=b"2", IfNoneMatch="*"), (412, "PreconditionFailed"))
    later = s3.put_object(**place, Body=b"3", IfMatch=etag)["ETag"]
    equal(refusal(s3.put_object, **place, Body=b"4", IfMatch=etag), (412, "PreconditionFailed"))
    equal(refusal(s3.put_object, Bucket=BUCKET, Key="never", Body=b"", IfMatch=etag), (404, "NoSuchKey"))
    equal(refusal(s3.get_object, **place, IfNoneMatch=later)[0], 304)
    equal(refusal(s3.get_object, **place, IfMatch=etag)[0], 412)
    modified = s3.head_object(**place)["LastModified"]
    equal(refusal(s3.get_object, **place, IfModifiedSince=modified)[0], 304)
    equal(s3.get_object(**place, IfUnmodifiedSince=modified)["Body"].read(), b"3")


@step("conditional deletes")
def conditional_delete():
    place = {"Bucket": BUCKET, "Key": "guarded"}
    etag = s3.put_object(**place, Body=b"1")["ETag"]
    stale = '"0123456789abcdef0123456789abcdef"'
    equal(refusal(s3.delete_object, **place, IfMatch=stale), (412, "PreconditionFailed"))
    s3.delete_object(**place, IfMatch=etag)
    equal(refusal(s3.head_object, **place)[0], 404)


@step("batch delete")
def batch():
    keys = [f"batch/{number} <ä>" for number in range(30)]
    for key in keys:
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    gone = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in [*keys, "batch/absent"]]})
    equal((len(gone["Deleted"]), "Errors" in gone), (31, False))
    equal(s3.list_objects_v2(Bucket=BUCKET, Prefix="batch/")["KeyCount"], 0)
    s3.put_object(Bucket=BUCKET, Key="batch/quiet", Body=b"x")
    quiet = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "batch/quiet"}], "Quiet": True})
    check("Deleted" not in quiet, "a quiet delete lists what it deleted")


@step("copy, with old and with new metadata")
def copy():
    kinds = {"ContentType": "text/plain", "Metadata": {"a": "1"}}
    s3.put_object(Bucket=BUCKET, Key="from ü+", Body=b"copied", **kinds)
    source = {"Bucket": BUCKET, "Key": "from ü+"}
    s3.copy_object(Bucket=BUCKET, Key="to", CopySource=source)
    head = s3.head_object(Bucket=BUCKET, Key="to")
    equal((head["ContentType"], head["Metadata"]), ("text/plain", {"a": "1"}))
    s3.copy_object(Bucket=BUCKET, Key="to", CopySource=source, MetadataDirective="REPLACE", Metadata={"b": "2"})
    equal(s3.head_object(Bucket=BUCKET, Key="to")["Metadata"], {"b": "2"})
    itself = {"Bucket": BUCKET, "Key": "from ü+", "CopySource": source}
    equal(refusal(s3.copy_object, **itself), (400, "InvalidRequest"))
    stale = '"0123456789abcdef0123456789abcdef"'
    equal(refusal(s3.copy_object, **{**itself, "Key": "no"}, CopySourceIfMatch=stale), (412, "PreconditionFailed"))


@step("copy in parts")
def copy_parts():
    s3.copy({"Bucket": BUCKET, "Key": "large"}, BUCKET, "large copy", Config=PARTS)
    head = s3.head_object(Bucket=BUCKET, Key="large copy")
    equal((head["ContentLength"], head["ETag"][-3:]), (33 * MIB + 1, '-7"'))
    check(s3.get_object(Bucket=BUCKET, Key="large copy")["Body"].read() == noise(3, 33 * MIB + 1), "other bytes")


@step("ranges")
def ranges():
    body = noise(1, 300_000)
    for text, part in (("0-0", body[:1]), ("1000-", body[1000:]), ("-7", body[-7:]), ("299999-400000", body[-1:])):
        got = s3.get_object(Bucket=BUCKET, Key="crc", Range=f"bytes={text}")
        equal((got["ResponseMetadata"]["HTTPStatusCode"], got["Body"].read() == part), (206, True))
    equal(refusal(s3.get_object, Bucket=BUCKET, Key="crc", Range="bytes=300000-"), (416, "InvalidRange"))


@step("metadata and headers")
def metadata():
    headers = {
        "CacheControl": "max-age=60", "ContentDisposition": 'attachment; filename="a b.txt"', "ContentEncoding": "gzip",
        "ContentLanguage": "de", "ContentType": "text/html; charset=utf-8",
    }
    s3.put_object(Bucket=BUCKET, Key="headers", Body=b"x", Metadata={"who": "me", "empty": "", "Mixed-Case": "yes"}, **headers)
    head = s3.head_object(Bucket=BUCKET, Key="headers")
    equal({name: head.get(name) for name in headers}, headers)
    equal(head["Metadata"], {"who": "me", "empty": "", "mixed-case": "yes"})


@step("metadata in any language")
def unicode_metadata():
    # boto3 sends nothing but ASCII in metadata; S3's documentation carries other text as RFC 2047 has it.
    word = "=?UTF-8?B?R3LDvMOfZSDkuJbnlYw=?="
    s3.put_object(Bucket=BUCKET, Key="grüße 世界", Body=b"x", Metadata={"who": word})
    equal(s3.head_object(Bucket=BUCKET, Key="grüße 世界")["Metadata"], {"who": word})


@step("tags")
def tags():
    wanted = [{"Key": "stage", "Value": "raw + ü"}]
    s3.put_object(Bucket=BUCKET, Key="tagged", Body=b"x", Tagging="stage=raw%20%2B%20%C3%BC")
    equal(s3.get_object_tagging(Bucket=BUCKET, Key="tagged")["TagSet"], wanted)
    equal(s3.get_object(Bucket=BUCKET, Key="tagged")["TagCount"], 1)
    s3.put_object_tagging(Bucket=BUCKET, Key="tagged", Tagging={"TagSet": []})
    equal(s3.get_object_tagging(Bucket=BUCKET, Key="tagged")["TagSet"], [])


@step("object attributes")
def attributes():
    wanted = ["ETag", "ObjectSize", "ObjectParts", "StorageClass", "Checksum"]
    found = s3.get_object_attributes(Bucket=BUCKET, Key="by-hand", ObjectAttributes=wanted)
    equal((found["ObjectSize"], found["ObjectParts"]["TotalPartsCount"]), (5 * MIB + 77, 2))


@step("versions")
def versions():
    bucket = "boto3-versions"
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["VersionId"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"2")
    marker = s3.delete_object(Bucket=bucket, Key="k")
    equal(marker["DeleteMarker"], True)
    equal(refusal(s3.get_object, Bucket=bucket, Key="k"), (404, "NoSuchKey"))
    equal(s3.get_object(Bucket=bucket, Key="k", VersionId=first)["Body"].read(), b"1")
    s3.delete_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    equal(s3.get_object(Bucket=bucket, Key="k")["Body"].read(), b"2")
    boto3.resource("s3", endpoint_url=ENDPOINT).Bucket(bucket).object_versions.delete()
    s3.delete_bucket(Bucket=bucket)


@step("wrong keys and none are refused")
def wrong_key():
    absent = boto3.client("s3", endpoint_url=ENDPOINT, aws_access_key_id="absent", aws_secret_access_key="wrong")
    equal(refusal(absent.list_buckets), (403, "InvalidAccessKeyId"))
    wrong = boto3.client("s3", endpoint_url=ENDPOINT, aws_access_key_id=ACCESS_KEY, aws_secret_access_key="wrong")
    equal(refusal(wrong.list_buckets), (403, "SignatureDoesNotMatch"))
    unsigned = boto3.client("s3", endpoint_url=ENDPOINT, config=Config(signature_version=UNSIGNED))
    equal(refusal(unsigned.get_object, Bucket=BUCKET, Key="crc"), (403, "AccessDenied"))


@step("remove everything")
def remove():
    equal(refusal(s3.delete_bucket, Bucket=BUCKET), (409, "BucketNotEmpty"))
    boto3.resource("s3", endpoint_url=ENDPOINT).Bucket(BUCKET).objects.delete()
    s3.delete_bucket(Bucket=BUCKET)


main(boto3.__version__)
