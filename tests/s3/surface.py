"""What S3's documentation promises, asked of a running server through the AWS SDK for Python, each promise a function.

Proves that versions, tags, locks, checksums, policies, CORS, lifecycle rules, conditions, copies and multipart uploads answer as
documented, refusals included. Usage: surface.py ENDPOINT ACCESS_KEY SECRET_KEY OTHER_ACCESS_KEY OTHER_SECRET_KEY [NAME...]
"""

import base64
import datetime
import hashlib
import hmac
import itertools
import json
import sys
import threading
import traceback
import urllib.error
import urllib.parse
import urllib.request
import zlib

import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT, ACCESS, SECRET, OTHER_ACCESS, OTHER_SECRET = sys.argv[1:6]
COUNT = itertools.count()
PART = 5 * 1024 * 1024


def client(access=ACCESS, secret=SECRET, **config):
    config = {"s3": {"addressing_style": "path"}, "retries": {"total_max_attempts": 1}, "signature_version": "s3v4", **config}
    session = botocore.session.get_session()
    return session.create_client(
        "s3", region_name="us-east-1", endpoint_url=ENDPOINT, aws_access_key_id=access,
        aws_secret_access_key=secret, config=Config(**config),
    )


s3 = client()
other = client(OTHER_ACCESS, OTHER_SECRET)
nobody = client(signature_version=UNSIGNED)


def bucket(versions=False, **options):
    name = f"surface-{next(COUNT)}"
    s3.create_bucket(Bucket=name, **options)
    if versions:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


def refused(code, status, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ClientError as error:
        found = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        assert found == (code, status), f"refused with {found} instead of {(code, status)}"
        return error.response
    raise AssertionError(f"{call.__name__ if hasattr(call, '__name__') else call} succeeded")


def body(answer):
    return answer["Body"].read()


def http(method, url, data=None, headers=None):
    request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


# --- versions ---------------------------------------------------------------------------------------------------------


def versions_are_kept_and_found():
    b = bucket()
    assert "VersionId" not in s3.put_object(Bucket=b, Key="k", Body=b"zero")
    assert "Status" not in s3.get_bucket_versioning(Bucket=b)
    s3.put_bucket_versioning(Bucket=b, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=b)["Status"] == "Enabled"
    first = s3.put_object(Bucket=b, Key="k", Body=b"one")["VersionId"]
    second = s3.put_object(Bucket=b, Key="k", Body=b"two")["VersionId"]
    assert body(s3.get_object(Bucket=b, Key="k")) == b"two"
    assert body(s3.get_object(Bucket=b, Key="k", VersionId=first)) == b"one"
    assert body(s3.get_object(Bucket=b, Key="k", VersionId="null")) == b"zero"
    listed = s3.list_object_versions(Bucket=b)
    assert [v["VersionId"] for v in listed["Versions"]] == [second, first, "null"]
    assert [v["IsLatest"] for v in listed["Versions"]] == [True, False, False]
    refused("NoSuchVersion", 404, s3.get_object, Bucket=b, Key="k", VersionId="0" * 31 + "1")
    refused("InvalidArgument", 400, s3.get_object, Bucket=b, Key="k", VersionId="nonsense")


def deletes_leave_markers_and_removals_bring_back():
    b = bucket(versions=True)
    first = s3.put_object(Bucket=b, Key="k", Body=b"one")["VersionId"]
    deleted = s3.delete_object(Bucket=b, Key="k")
    assert deleted["DeleteMarker"] is True
    answer = refused("NoSuchKey", 404, s3.get_object, Bucket=b, Key="k")
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-amz-delete-marker"] == "true" and headers["x-amz-version-id"] == deleted["VersionId"]
    refused("MethodNotAllowed", 405, s3.get_object, Bucket=b, Key="k", VersionId=deleted["VersionId"])
    assert "Contents" not in s3.list_objects_v2(Bucket=b)
    assert len(s3.list_object_versions(Bucket=b)["DeleteMarkers"]) == 1
    gone = s3.delete_object(Bucket=b, Key="k", VersionId=deleted["VersionId"])
    assert gone["DeleteMarker"] is True and gone["VersionId"] == deleted["VersionId"]
    assert body(s3.get_object(Bucket=b, Key="k")) == b"one"
    refused("BucketNotEmpty", 409, s3.delete_bucket, Bucket=b)
    s3.delete_object(Bucket=b, Key="k", VersionId=first)
    s3.delete_bucket(Bucket=b)


def suspended_buckets_replace_the_null_version():
    b = bucket(versions=True)
    kept = s3.put_object(Bucket=b, Key="k", Body=b"kept")["VersionId"]
    s3.put_bucket_versioning(Bucket=b, VersioningConfiguration={"Status": "Suspended"})
    for text in [b"first", b"second"]:
        s3.put_object(Bucket=b, Key="k", Body=text)
    listed = [v["VersionId"] for v in s3.list_object_versions(Bucket=b)["Versions"]]
    assert listed == ["null", kept], listed
    s3.put_bucket_versioning(Bucket=b, VersioningConfiguration={"Status": "Enabled"})
    newest = s3.put_object(Bucket=b, Key="k", Body=b"newest")["VersionId"]
    s3.put_bucket_versioning(Bucket=b, VersioningConfiguration={"Status": "Suspended"})
    marker = s3.delete_object(Bucket=b, Key="k")
    assert marker["DeleteMarker"] and marker["VersionId"] == "null"
    listed = s3.list_object_versions(Bucket=b)
    assert [v["VersionId"] for v in listed["Versions"]] == [newest, kept]
    refused("MalformedXML", 400, s3.put_bucket_versioning, Bucket=b, VersioningConfiguration={"Status": "Maybe"})


def version_lists_are_paged_and_grouped():
    b = bucket(versions=True)
    expected = []
    for key in ["a", "dir/x", "dir/y", "z"]:
        ids = [s3.put_object(Bucket=b, Key=key, Body=b"%d" % n)["VersionId"] for n in range(3)]
        expected += [(key, version) for version in reversed(ids)]
    for size in [1, 2, 5, 100]:
        found, markers = [], {}
        while True:
            page = s3.list_object_versions(Bucket=b, MaxKeys=size, **markers)
            assert len(page.get("Versions", [])) <= size
            found += [(v["Key"], v["VersionId"]) for v in page.get("Versions", [])]
            if not page["IsTruncated"]:
                break
            markers = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
        assert found == expected, size
    page = s3.list_object_versions(Bucket=b, Delimiter="/")
    assert [p["Prefix"] for p in page["CommonPrefixes"]] == ["dir/"] and len(page["Versions"]) == 6
    page = s3.list_object_versions(Bucket=b, Prefix="dir/", KeyMarker="dir/x")
    assert {v["Key"] for v in page["Versions"]} == {"dir/y"}


def batch_deletes_name_versions():
    b = bucket(versions=True)
    ids = [s3.put_object(Bucket=b, Key="k", Body=b"x")["VersionId"] for _ in range(2)]
    answer = s3.delete_objects(Bucket=b, Delete={"Objects": [{"Key": "k", "VersionId": ids[0]}, {"Key": "k"}]})
    by = {entry.get("VersionId"): entry for entry in answer["Deleted"]}
    assert ids[0] in by and by[None]["DeleteMarker"] is True and by[None]["DeleteMarkerVersionId"]
    assert [v["VersionId"] for v in s3.list_object_versions(Bucket=b)["Versions"]] == [ids[1]]


def copies_come_from_versions():
    b = bucket(versions=True)
    first = s3.put_object(Bucket=b, Key="k", Body=b"one")["VersionId"]
    s3.put_object(Bucket=b, Key="k", Body=b"two")
    answer = s3.copy_object(Bucket=b, Key="c", CopySource={"Bucket": b, "Key": "k", "VersionId": first})
    assert answer["CopySourceVersionId"] == first and answer["VersionId"]
    assert body(s3.get_object(Bucket=b, Key="c")) == b"one"
    s3.copy_object(Bucket=b, Key="k", CopySource={"Bucket": b, "Key": "k", "VersionId": first})
    assert body(s3.get_object(Bucket=b, Key="k")) == b"one"


# --- tags -------------------------------------------------------------------------------------------------------------


def objects_and_buckets_have_tags():
    b = bucket()
    tags = [{"Key": "colour", "Value": "light blue"}, {"Key": "empty", "Value": ""}]
    s3.put_object(Bucket=b, Key="k", Body=b"x", Tagging=urllib.parse.urlencode({t["Key"]: t["Value"] for t in tags}))
    assert s3.get_object_tagging(Bucket=b, Key="k")["TagSet"] == tags
    assert s3.head_object(Bucket=b, Key="k")["ResponseMetadata"]["HTTPHeaders"]["x-amz-tagging-count"] == "2"
    s3.copy_object(Bucket=b, Key="c", CopySource=f"{b}/k")
    assert s3.get_object_tagging(Bucket=b, Key="c")["TagSet"] == tags
    s3.copy_object(Bucket=b, Key="c", CopySource=f"{b}/k", TaggingDirective="REPLACE", Tagging="only=this")
    assert s3.get_object_tagging(Bucket=b, Key="c")["TagSet"] == [{"Key": "only", "Value": "this"}]
    etag = s3.head_object(Bucket=b, Key="k")["ETag"]
    s3.put_object_tagging(Bucket=b, Key="k", Tagging={"TagSet": tags[:1]})
    assert s3.get_object_tagging(Bucket=b, Key="k")["TagSet"] == tags[:1]
    s3.delete_object_tagging(Bucket=b, Key="k")
    assert s3.get_object_tagging(Bucket=b, Key="k")["TagSet"] == [] and s3.head_object(Bucket=b, Key="k")["ETag"] == etag
    many = [{"Key": f"k{n}", "Value": ""} for n in range(11)]
    refused("InvalidTag", 400, s3.put_object_tagging, Bucket=b, Key="k", Tagging={"TagSet": many})
    long = [{"Key": "k" * 129, "Value": ""}]
    refused("InvalidTag", 400, s3.put_object_tagging, Bucket=b, Key="k", Tagging={"TagSet": long})
    refused("NoSuchTagSet", 404, s3.get_bucket_tagging, Bucket=b)
    s3.put_bucket_tagging(Bucket=b, Tagging={"TagSet": tags})
    assert s3.get_bucket_tagging(Bucket=b)["TagSet"] == tags
    s3.delete_bucket_tagging(Bucket=b)
    refused("NoSuchTagSet", 404, s3.get_bucket_tagging, Bucket=b)


# --- locks ------------------------------------------------------------------------------------------------------------


def soon(days=1):
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + datetime.timedelta(days=days)


def locked_versions_stay():
    b = bucket(ObjectLockEnabledForBucket=True)
    assert s3.get_bucket_versioning(Bucket=b)["Status"] == "Enabled"
    refused("InvalidBucketState", 409, s3.put_bucket_versioning, Bucket=b, VersioningConfiguration={"Status": "Suspended"})
    until = soon()
    v = s3.put_object(Bucket=b, Key="k", Body=b"x", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until)["VersionId"]
    head = s3.head_object(Bucket=b, Key="k")
    assert head["ObjectLockMode"] == "GOVERNANCE" and head["ObjectLockRetainUntilDate"] == until
    refused("AccessDenied", 403, s3.delete_object, Bucket=b, Key="k", VersionId=v)
    refused("AccessDenied", 403, s3.put_object_retention, Bucket=b, Key="k", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": soon(0.5)})
    s3.put_object_retention(Bucket=b, Key="k", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": soon(2)})
    marker = s3.delete_object(Bucket=b, Key="k")["VersionId"]
    s3.delete_object(Bucket=b, Key="k", VersionId=marker)
    s3.delete_object(Bucket=b, Key="k", VersionId=v, BypassGovernanceRetention=True)
    v = s3.put_object(Bucket=b, Key="k", Body=b"x", ObjectLockLegalHoldStatus="ON")["VersionId"]
    refused("AccessDenied", 403, s3.delete_object, Bucket=b, Key="k", VersionId=v, BypassGovernanceRetention=True)
    assert s3.get_object_legal_hold(Bucket=b, Key="k")["LegalHold"]["Status"] == "ON"
    s3.put_object_legal_hold(Bucket=b, Key="k", LegalHold={"Status": "OFF"})
    s3.delete_object(Bucket=b, Key="k", VersionId=v)
    v = s3.put_object(Bucket=b, Key="c", Body=b"x", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)["VersionId"]
    refused("AccessDenied", 403, s3.delete_object, Bucket=b, Key="c", VersionId=v, BypassGovernanceRetention=True)
    refused("InvalidArgument", 400, s3.put_object, Bucket=b, Key="k", Body=b"x", ObjectLockMode="GOVERNANCE")
    refused("InvalidArgument", 400, s3.put_object, Bucket=b, Key="k", Body=b"x", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=soon(-1))
    plain = bucket()
    refused("InvalidRequest", 400, s3.put_object, Bucket=plain, Key="k", Body=b"x", ObjectLockLegalHoldStatus="ON")
    refused("InvalidRequest", 400, s3.get_object_retention, Bucket=plain, Key="k")
    refused("InvalidBucketState", 409, s3.put_object_lock_configuration, Bucket=plain, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    refused("ObjectLockConfigurationNotFoundError", 404, s3.get_object_lock_configuration, Bucket=plain)


def buckets_lock_by_default():
    b = bucket(ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    wanted = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    s3.put_object_lock_configuration(Bucket=b, ObjectLockConfiguration=wanted)
    assert s3.get_object_lock_configuration(Bucket=b)["ObjectLockConfiguration"] == wanted
    v = s3.put_object(Bucket=b, Key="k", Body=b"x")["VersionId"]
    assert s3.get_object_retention(Bucket=b, Key="k")["Retention"]["Mode"] == "GOVERNANCE"
    refused("AccessDenied", 403, s3.delete_object, Bucket=b, Key="k", VersionId=v)
    s3.delete_object(Bucket=b, Key="k", VersionId=v, BypassGovernanceRetention=True)
    for wrong in [{"Mode": "GOVERNANCE"}, {"Mode": "GOVERNANCE", "Days": 1, "Years": 1}, {"Mode": "LOOSE", "Days": 1}]:
        wanted = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": wrong}}
        refused("MalformedXML", 400, s3.put_object_lock_configuration, Bucket=b, ObjectLockConfiguration=wanted)


# --- checksums --------------------------------------------------------------------------------------------------------


def checksums_are_verified_kept_and_told():
    b = bucket()
    for algorithm in ["CRC32", "SHA1", "SHA256"]:
        put = s3.put_object(Bucket=b, Key=algorithm, Body=b"hello", ChecksumAlgorithm=algorithm)
        name = "Checksum" + algorithm
        assert put[name]
        head = s3.head_object(Bucket=b, Key=algorithm, ChecksumMode="ENABLED")
        assert head[name] == put[name] and head["ChecksumType"] == "FULL_OBJECT"
        assert name not in s3.head_object(Bucket=b, Key=algorithm)
        attributes = s3.get_object_attributes(Bucket=b, Key=algorithm, ObjectAttributes=["Checksum", "ETag", "ObjectSize", "StorageClass"])
        assert attributes["Checksum"][name] == put[name] and attributes["ObjectSize"] == 5
        assert attributes["ETag"] == hashlib.md5(b"hello").hexdigest() and attributes["StorageClass"] == "STANDARD"
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    refused("BadDigest", 400, s3.put_object, Bucket=b, Key="wrong", Body=b"hello", ChecksumSHA256=wrong)
    refused("InvalidRequest", 400, s3.put_object, Bucket=b, Key="wrong", Body=b"hello", ChecksumSHA256="bad")
    refused("BadDigest", 400, s3.put_object, Bucket=b, Key="wrong", Body=b"hello", ContentMD5=base64.b64encode(b"0" * 16).decode())
    refused("InvalidDigest", 400, s3.put_object, Bucket=b, Key="wrong", Body=b"hello", ContentMD5="bad")
    refused("404", 404, s3.head_object, Bucket=b, Key="wrong")
    copied = s3.copy_object(Bucket=b, Key="c", CopySource=f"{b}/CRC32", ChecksumAlgorithm="SHA256")
    assert copied["CopyObjectResult"]["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(b"hello").digest()).decode()


def multipart_checksums_are_of_parts_or_of_the_whole():
    b = bucket()
    parts = [b"a" * PART, b"b" * 100]
    for algorithm, kind in [("SHA256", "COMPOSITE"), ("CRC32", "FULL_OBJECT")]:
        upload = s3.create_multipart_upload(Bucket=b, Key=kind, ChecksumAlgorithm=algorithm, ChecksumType=kind)
        assert upload["ChecksumAlgorithm"] == algorithm and upload["ChecksumType"] == kind
        where = {"Bucket": b, "Key": kind, "UploadId": upload["UploadId"]}
        named = []
        for number, part in enumerate(parts, 1):
            put = s3.upload_part(**where, PartNumber=number, Body=part, ChecksumAlgorithm=algorithm)
            named.append({"PartNumber": number, "ETag": put["ETag"], "Checksum" + algorithm: put["Checksum" + algorithm]})
        listed = s3.list_parts(**where)
        assert listed["ChecksumAlgorithm"] == algorithm
        assert [p["Checksum" + algorithm] for p in listed["Parts"]] == [p["Checksum" + algorithm] for p in named]
        done = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": named})
        if kind == "COMPOSITE":
            digests = b"".join(hashlib.sha256(part).digest() for part in parts)
            expected = base64.b64encode(hashlib.sha256(digests).digest()).decode() + "-2"
        else:
            expected = base64.b64encode(zlib.crc32(b"".join(parts)).to_bytes(4, "big")).decode()
        assert done["Checksum" + algorithm] == expected, done
        head = s3.head_object(Bucket=b, Key=kind, ChecksumMode="ENABLED")
        assert head["ChecksumType"] == kind and head["Checksum" + algorithm] == expected
    attributes = s3.get_object_attributes(Bucket=b, Key="COMPOSITE", ObjectAttributes=["ObjectParts"], MaxParts=1)
    parts_told = attributes["ObjectParts"]
    assert parts_told["TotalPartsCount"] == 2 and parts_told["IsTruncated"] and parts_told["Parts"][0]["Size"] == PART
    upload = s3.create_multipart_upload(Bucket=b, Key="k", ChecksumAlgorithm="SHA1")["UploadId"]
    refused("InvalidRequest", 400, s3.upload_part, Bucket=b, Key="k", UploadId=upload, PartNumber=1, Body=b"x", ChecksumAlgorithm="CRC32")
    refused("InvalidRequest", 400, s3.create_multipart_upload, Bucket=b, Key="k", ChecksumAlgorithm="SHA1", ChecksumType="FULL_OBJECT")


# --- multipart --------------------------------------------------------------------------------------------------------


def parts_are_read_by_number():
    b = bucket()
    parts = {1: b"a" * PART, 3: b"b" * PART, 7: b"c" * 10}
    upload = s3.create_multipart_upload(Bucket=b, Key="k", Metadata={"who": "me"}, Tagging="a=b", StorageClass="STANDARD_IA")
    where = {"Bucket": b, "Key": "k", "UploadId": upload["UploadId"]}
    named = [{"PartNumber": n, "ETag": s3.upload_part(**where, PartNumber=n, Body=p)["ETag"]} for n, p in parts.items()]
    listed = s3.list_multipart_uploads(Bucket=b)["Uploads"]
    assert [u["UploadId"] for u in listed] == [upload["UploadId"]] and listed[0]["StorageClass"] == "STANDARD_IA"
    page = s3.list_parts(**where, MaxParts=2)
    assert page["IsTruncated"] and page["NextPartNumberMarker"] == 3
    assert [p["PartNumber"] for p in s3.list_parts(**where, PartNumberMarker=3)["Parts"]] == [7]
    refused("InvalidPart", 400, s3.complete_multipart_upload, **where, MultipartUpload={"Parts": [{"PartNumber": 2, "ETag": "x"}]})
    refused("InvalidPartOrder", 400, s3.complete_multipart_upload, **where, MultipartUpload={"Parts": named[::-1]})
    done = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": named})
    digests = b"".join(hashlib.md5(part).digest() for part in parts.values())
    assert done["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-3"'
    assert s3.complete_multipart_upload(**where, MultipartUpload={"Parts": named})["ETag"] == done["ETag"]
    refused("NoSuchUpload", 404, s3.complete_multipart_upload, **where, MultipartUpload={"Parts": named[:1]})
    part = s3.get_object(Bucket=b, Key="k", PartNumber=7)
    assert body(part) == parts[7] and part["PartsCount"] == 3 and part["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert part["ContentRange"] == f"bytes {2 * PART}-{2 * PART + 9}/{2 * PART + 10}"
    assert s3.head_object(Bucket=b, Key="k", PartNumber=3)["ContentLength"] == PART
    refused("InvalidPart", 400, s3.get_object, Bucket=b, Key="k", PartNumber=2)
    head = s3.head_object(Bucket=b, Key="k")
    assert head["Metadata"] == {"who": "me"} and head["StorageClass"] == "STANDARD_IA"
    assert s3.get_object_tagging(Bucket=b, Key="k")["TagSet"] == [{"Key": "a", "Value": "b"}]
    refused("NoSuchUpload", 404, s3.list_parts, **where)
    refused("NoSuchUpload", 404, s3.abort_multipart_upload, **where)


def small_parts_and_wrong_sizes_are_refused():
    b = bucket()
    where = {"Bucket": b, "Key": "k", "UploadId": s3.create_multipart_upload(Bucket=b, Key="k")["UploadId"]}
    named = [{"PartNumber": n, "ETag": s3.upload_part(**where, PartNumber=n, Body=b"small")["ETag"]} for n in [1, 2]]
    refused("EntityTooSmall", 400, s3.complete_multipart_upload, **where, MultipartUpload={"Parts": named})
    refused("InvalidRequest", 400, s3.complete_multipart_upload, **where, MultipartUpload={"Parts": named[:1]}, MpuObjectSize=99)
    refused("MalformedXML", 400, s3.complete_multipart_upload, **where, MultipartUpload={"Parts": []})
    s3.abort_multipart_upload(**where)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=b)


def upload_lists_are_grouped():
    b = bucket()
    for key in ["a", "dir/x", "dir/y"]:
        s3.create_multipart_upload(Bucket=b, Key=key)
    page = s3.list_multipart_uploads(Bucket=b, Delimiter="/")
    assert [u["Key"] for u in page["Uploads"]] == ["a"] and [p["Prefix"] for p in page["CommonPrefixes"]] == ["dir/"]
    page = s3.list_multipart_uploads(Bucket=b, MaxUploads=1)
    assert page["IsTruncated"] and page["NextKeyMarker"] == "a"
    page = s3.list_multipart_uploads(Bucket=b, KeyMarker=page["NextKeyMarker"], UploadIdMarker=page["NextUploadIdMarker"])
    assert [u["Key"] for u in page["Uploads"]] == ["dir/x", "dir/y"]


def part_copies_take_ranges_and_conditions():
    b = bucket()
    source = s3.put_object(Bucket=b, Key="source", Body=bytes(range(256)) * 100)
    where = {"Bucket": b, "Key": "k", "UploadId": s3.create_multipart_upload(Bucket=b, Key="k")["UploadId"]}
    copy = {"CopySource": f"{b}/source", "CopySourceRange": "bytes=10-19"}
    part = s3.upload_part_copy(**where, PartNumber=1, **copy, CopySourceIfMatch=source["ETag"])["CopyPartResult"]
    refused("PreconditionFailed", 412, s3.upload_part_copy, **where, PartNumber=2, **copy, CopySourceIfNoneMatch=source["ETag"])
    refused("InvalidRange", 416, s3.upload_part_copy, **where, PartNumber=2, CopySource=f"{b}/source", CopySourceRange="bytes=0-99999")
    refused("NoSuchKey", 404, s3.upload_part_copy, **where, PartNumber=2, CopySource=f"{b}/absent")
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    assert body(s3.get_object(Bucket=b, Key="k")) == bytes(range(10, 20))


# --- conditions -------------------------------------------------------------------------------------------------------


def writes_and_deletes_have_conditions():
    b = bucket()
    refused("NoSuchKey", 404, s3.put_object, Bucket=b, Key="k", Body=b"x", IfMatch="*")
    etag = s3.put_object(Bucket=b, Key="k", Body=b"x", IfNoneMatch="*")["ETag"]
    refused("PreconditionFailed", 412, s3.put_object, Bucket=b, Key="k", Body=b"y", IfNoneMatch="*")
    refused("PreconditionFailed", 412, s3.put_object, Bucket=b, Key="k", Body=b"y", IfMatch='"other"')
    etag = s3.put_object(Bucket=b, Key="k", Body=b"y", IfMatch=etag)["ETag"]
    refused("PreconditionFailed", 412, s3.delete_object, Bucket=b, Key="k", IfMatch='"other"')
    refused("PreconditionFailed", 412, s3.copy_object, Bucket=b, Key="k", CopySource=f"{b}/k", MetadataDirective="REPLACE", IfNoneMatch="*")
    answer = s3.delete_objects(Bucket=b, Delete={"Objects": [{"Key": "k", "ETag": "other"}]})
    assert answer["Errors"][0]["Code"] == "PreconditionFailed"
    s3.delete_object(Bucket=b, Key="k", IfMatch=etag)
    versioned = bucket(versions=True)
    s3.put_object(Bucket=versioned, Key="k", Body=b"x")
    s3.delete_object(Bucket=versioned, Key="k")
    s3.put_object(Bucket=versioned, Key="k", Body=b"x", IfNoneMatch="*")
    wins = []

    def race(n):
        try:
            s3.put_object(Bucket=b, Key="race", Body=b"%d" % n, IfNoneMatch="*")
            wins.append(n)
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict")

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(wins) == 1, wins


def reads_have_conditions():
    b = bucket()
    etag = s3.put_object(Bucket=b, Key="k", Body=b"x")["ETag"]
    future = soon(1)
    past = soon(-1)
    refused("304", 304, s3.get_object, Bucket=b, Key="k", IfNoneMatch=etag)
    refused("PreconditionFailed", 412, s3.get_object, Bucket=b, Key="k", IfMatch='"other"')
    refused("PreconditionFailed", 412, s3.get_object, Bucket=b, Key="k", IfUnmodifiedSince=past)
    refused("304", 304, s3.get_object, Bucket=b, Key="k", IfModifiedSince=future - datetime.timedelta(days=0.9999))
    body(s3.get_object(Bucket=b, Key="k", IfMatch=etag, IfUnmodifiedSince=past))
    refused("InvalidRange", 416, s3.get_object, Bucket=b, Key="k", Range="bytes=5-9")


def objects_are_renamed_and_appended_to():
    b = bucket()
    etag = s3.put_object(Bucket=b, Key="a b", Body=b"one", WriteOffsetBytes=0)["ETag"]
    refused("InvalidWriteOffset", 400, s3.put_object, Bucket=b, Key="a b", Body=b"x", WriteOffsetBytes=2)
    whole = b"one"
    for piece in [b"two" * 5_000, b"", b"three" * 100_000]:
        put = s3.put_object(Bucket=b, Key="a b", Body=piece, WriteOffsetBytes=len(whole))
        whole += piece
        assert put["Size"] == len(whole) and put["ETag"] != etag
    assert body(s3.get_object(Bucket=b, Key="a b")) == whole
    head = s3.head_object(Bucket=b, Key="a b", ChecksumMode="ENABLED")
    s3.put_object(Bucket=b, Key="whole", Body=whole)
    same = s3.head_object(Bucket=b, Key="whole", ChecksumMode="ENABLED")
    assert head["ChecksumCRC64NVME"] == same["ChecksumCRC64NVME"], (head, same)
    refused("NoSuchKey", 404, s3.rename_object, Bucket=b, Key="c", RenameSource="absent")
    refused("PreconditionFailed", 412, s3.rename_object, Bucket=b, Key="whole", RenameSource="a%20b", DestinationIfNoneMatch="*")
    s3.rename_object(Bucket=b, Key="c", RenameSource=f"/{b}/a%20b")
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=b)["Contents"]] == ["c", "whole"]
    assert body(s3.get_object(Bucket=b, Key="c")) == whole
    versioned = bucket(versions=True)
    s3.put_object(Bucket=versioned, Key="k", Body=b"x")
    refused("InvalidBucketState", 409, s3.rename_object, Bucket=versioned, Key="l", RenameSource="k")


# --- access -----------------------------------------------------------------------------------------------------------


def allow(b, action, principal="*", resource=None, effect="Allow", **more):
    resource = resource or [f"arn:aws:s3:::{b}", f"arn:aws:s3:::{b}/*"]
    return {"Effect": effect, "Principal": principal, "Action": action, "Resource": resource, **more}


def set_policy(b, *statements):
    s3.put_bucket_policy(Bucket=b, Policy=json.dumps({"Version": "2012-10-17", "Statement": list(statements)}))


def policies_decide():
    b = bucket()
    s3.put_object(Bucket=b, Key="k", Body=b"x", Tagging="open=yes")
    s3.put_object(Bucket=b, Key="secret", Body=b"x")
    for who in [other, nobody]:
        refused("AccessDenied", 403, who.get_object, Bucket=b, Key="k")
        refused("AccessDenied", 403, who.list_objects_v2, Bucket=b)
    refused("NoSuchBucketPolicy", 404, s3.get_bucket_policy, Bucket=b)
    set_policy(b, allow(b, "s3:GetObject"), allow(b, "s3:*", resource=f"arn:aws:s3:::{b}/secret", effect="Deny"))
    assert body(nobody.get_object(Bucket=b, Key="k")) == b"x" and body(other.get_object(Bucket=b, Key="k")) == b"x"
    for who in [nobody, other, s3]:
        refused("AccessDenied", 403, who.get_object, Bucket=b, Key="secret")
    refused("AccessDenied", 403, nobody.get_object, Bucket=b, Key="absent")
    refused("AccessDenied", 403, other.put_object, Bucket=b, Key="k", Body=b"y")
    assert s3.get_bucket_policy_status(Bucket=b)["PolicyStatus"]["IsPublic"] is True
    tagged = {"StringEquals": {"s3:ExistingObjectTag/open": "yes"}}
    set_policy(b, allow(b, "s3:GetObject", Condition=tagged), allow(b, "s3:ListBucket", Condition={"StringEquals": {"s3:prefix": "k"}}))
    body(other.get_object(Bucket=b, Key="k"))
    refused("AccessDenied", 403, other.get_object, Bucket=b, Key="secret")
    assert [o["Key"] for o in other.list_objects_v2(Bucket=b, Prefix="k")["Contents"]] == ["k"]
    refused("AccessDenied", 403, other.list_objects_v2, Bucket=b)
    refused("MalformedPolicy", 400, s3.put_bucket_policy, Bucket=b, Policy="{}")
    elsewhere = json.dumps({"Version": "2012-10-17", "Statement": [allow("elsewhere", "s3:GetObject")]})
    refused("MalformedPolicy", 400, s3.put_bucket_policy, Bucket=b, Policy=elsewhere)
    s3.delete_bucket_policy(Bucket=b)
    refused("AccessDenied", 403, other.get_object, Bucket=b, Key="k")
    mine = bucket()
    refused("AccessDenied", 403, other.copy_object, Bucket=mine, Key="c", CopySource=f"{b}/k")


def batch_deletes_ask_for_each_key():
    b = bucket()
    for key in ["mine", "yours"]:
        s3.put_object(Bucket=b, Key=key, Body=b"x")
    set_policy(b, allow(b, "s3:DeleteObject", resource=f"arn:aws:s3:::{b}/yours"))
    answer = other.delete_objects(Bucket=b, Delete={"Objects": [{"Key": "mine"}, {"Key": "yours"}]})
    assert [d["Key"] for d in answer["Deleted"]] == ["yours"]
    assert [(e["Key"], e["Code"]) for e in answer["Errors"]] == [("mine", "AccessDenied")]


def writes_ask_for_all_that_they_do():
    b = bucket()
    set_policy(b, allow(b, "s3:PutObject"))
    other.put_object(Bucket=b, Key="k", Body=b"x")
    refused("AccessDenied", 403, other.put_object, Bucket=b, Key="k", Body=b"x", Tagging="a=b")
    refused("AccessDenied", 403, other.create_multipart_upload, Bucket=b, Key="k", Tagging="a=b")
    refused("AccessDenied", 403, s3.copy_object, Bucket=b, Key="c", CopySource=f"{b}/k", ExpectedSourceBucketOwner="somebody")
    set_policy(b, allow(b, "s3:PutObject", resource=f"arn:aws:s3:::{b}/secret/*", effect="Deny"))
    post = s3.generate_presigned_post(b, "secret/f.txt", ExpiresIn=60)
    data, headers = form(post["fields"], b"hello")
    assert http("POST", post["url"], data, headers)[0] == 403
    for condition in [{"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, {"Bool": {"aws:SecureTransport": "false"}}]:
        set_policy(b, allow(b, "s3:GetObject", effect="Deny", Condition=condition))
        refused("AccessDenied", 403, s3.get_object, Bucket=b, Key="k")


def governance_is_bypassed_by_whom_the_policy_lets():
    b = bucket(ObjectLockEnabledForBucket=True)
    set_policy(b, allow(b, "s3:DeleteObjectVersion"), allow(b, "s3:BypassGovernanceRetention", resource=f"arn:aws:s3:::{b}/*", effect="Deny"))
    v = s3.put_object(Bucket=b, Key="k", Body=b"x", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=soon())["VersionId"]
    for text in ["true", "True", "TRUE"]:
        url, headers = sign("DELETE", f"/{b}/k", headers={"x-amz-bypass-governance-retention": text}, query=f"versionId={v}")
        assert http("DELETE", url, headers=headers)[0] in (400, 403), text
    answer = s3.delete_objects(Bucket=b, Delete={"Objects": [{"Key": "k", "VersionId": v}]}, BypassGovernanceRetention=True)
    assert answer["Errors"][0]["Code"] == "AccessDenied", answer
    s3.put_object_lock_configuration(Bucket=b, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}})
    s3.put_object(Bucket=b, Key="log", Body=b"x", WriteOffsetBytes=0)
    v = s3.put_object(Bucket=b, Key="log", Body=b"y", WriteOffsetBytes=1)["VersionId"]
    refused("AccessDenied", 403, s3.delete_object, Bucket=b, Key="log", VersionId=v)


def documents_have_their_digests():
    b = bucket()
    s3.put_object(Bucket=b, Key="k", Body=b"x")
    document = b"<Delete><Object><Key>k</Key></Object></Delete>"
    for wrong in [{"content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="}, {"x-amz-checksum-crc32": "AAAAAA=="}]:
        url, headers = sign("POST", f"/{b}", headers=wrong, data=document, query="delete=")
        status, _, text = http("POST", url, document, headers)
        assert status == 400 and b"BadDigest" in text, (status, text)
    assert body(s3.get_object(Bucket=b, Key="k")) == b"x"
    where = {"Bucket": b, "Key": "m", "UploadId": s3.create_multipart_upload(Bucket=b, Key="m")["UploadId"]}
    part = s3.upload_part(**where, PartNumber=1, Body=b"x")
    named = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    refused("BadDigest", 400, s3.complete_multipart_upload, **where, MultipartUpload=named, ChecksumSHA256="A" * 43 + "=")


def buckets_with_open_uploads_go():
    b = bucket()
    s3.create_multipart_upload(Bucket=b, Key="k")
    s3.delete_bucket(Bucket=b)
    s3.create_bucket(Bucket=b)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=b)


def appends_do_not_overwrite_each_other():
    b = bucket()
    wins = []

    def begin(n):
        try:
            s3.put_object(Bucket=b, Key="k", Body=b"%d" % n, WriteOffsetBytes=0)
            wins.append(n)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "InvalidWriteOffset", error

    threads = [threading.Thread(target=begin, args=(n,)) for n in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(wins) == 1 and body(s3.get_object(Bucket=b, Key="k")) == b"%d" % wins[0]


def public_access_is_blocked():
    b = bucket()
    s3.put_object(Bucket=b, Key="k", Body=b"x")
    refused("NoSuchPublicAccessBlockConfiguration", 404, s3.get_public_access_block, Bucket=b)
    set_policy(b, allow(b, "s3:GetObject"))
    block = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True}
    s3.put_public_access_block(Bucket=b, PublicAccessBlockConfiguration=block)
    assert s3.get_public_access_block(Bucket=b)["PublicAccessBlockConfiguration"] == block
    refused("AccessDenied", 403, nobody.get_object, Bucket=b, Key="k")
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow(b, "s3:GetObject")]})
    refused("AccessDenied", 403, s3.put_bucket_policy, Bucket=b, Policy=policy)
    s3.delete_public_access_block(Bucket=b)
    body(nobody.get_object(Bucket=b, Key="k"))


def lists_of_grants_are_the_owners():
    b = bucket()
    s3.put_object(Bucket=b, Key="k", Body=b"x", ACL="bucket-owner-full-control")
    for acl in [s3.get_bucket_acl(Bucket=b), s3.get_object_acl(Bucket=b, Key="k")]:
        assert len(acl["Grants"]) == 1 and acl["Grants"][0]["Permission"] == "FULL_CONTROL"
        assert acl["Grants"][0]["Grantee"]["ID"] == acl["Owner"]["ID"]
    s3.put_bucket_acl(Bucket=b, ACL="private")
    for call in [lambda: s3.put_bucket_acl(Bucket=b, ACL="public-read"), lambda: s3.put_object_acl(Bucket=b, Key="k", ACL="public-read"),
                 lambda: s3.put_object(Bucket=b, Key="k", Body=b"x", ACL="public-read")]:
        refused("AccessControlListNotSupported", 400, call)
    refused("OwnershipControlsNotFoundError", 404, s3.get_bucket_ownership_controls, Bucket=b)
    rules = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    s3.put_bucket_ownership_controls(Bucket=b, OwnershipControls=rules)
    assert s3.get_bucket_ownership_controls(Bucket=b)["OwnershipControls"] == rules


def links_work_for_whom_they_were_signed():
    b = bucket()
    s3.put_object(Bucket=b, Key="k ü+", Body=b"x")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": b, "Key": "k ü+"}, ExpiresIn=60)
    assert http("GET", url)[2] == b"x"
    assert http("GET", url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"))[0] == 403
    assert http("PUT", url, b"y")[0] == 403
    week = s3.generate_presigned_url("get_object", Params={"Bucket": b, "Key": "k ü+"}, ExpiresIn=8 * 24 * 3600)
    assert http("GET", week)[0] in (400, 403)
    url = s3.generate_presigned_url("put_object", Params={"Bucket": b, "Key": "up"}, ExpiresIn=60)
    assert http("PUT", url, b"body")[0] == 200 and body(s3.get_object(Bucket=b, Key="up")) == b"body"
    url = other.generate_presigned_url("get_object", Params={"Bucket": b, "Key": "up"}, ExpiresIn=60)
    assert http("GET", url)[0] == 403


def form(fields, file):
    mark = "form-mark-7d81"
    out = b""
    for name, value in fields.items():
        out += f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    out += f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="f.txt"\r\nContent-Type: text/plain\r\n\r\n'.encode()
    return out + file + f"\r\n--{mark}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={mark}"}


def forms_upload():
    b = bucket()
    post = s3.generate_presigned_post(b, "up/${filename}", Conditions=[["content-length-range", 1, 10]], ExpiresIn=60)
    data, headers = form(post["fields"], b"hello")
    status, answer_headers, text = http("POST", post["url"], data, headers)
    assert status == 204, (status, text)
    assert body(s3.get_object(Bucket=b, Key="up/f.txt")) == b"hello"
    data, headers = form(post["fields"], b"hello, this is too long")
    status, _, text = http("POST", post["url"], data, headers)
    assert status == 400 and b"EntityTooLarge" in text, (status, text)
    wrong = {**post["fields"], "key": "elsewhere/x"}
    data, headers = form(wrong, b"hello")
    status, _, text = http("POST", post["url"], data, headers)
    assert status == 403 and b"AccessDenied" in text, (status, text)


def sign(method, path, headers=None, data=b"", access=ACCESS, secret=SECRET, now=None, query="", expires=None, leave_out=()):
    """A signed request's URL and headers, by the documents of Signature Version 4; with `expires` a presigned address."""
    now = now or datetime.datetime.now(datetime.timezone.utc)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    scope = f"{day}/us-east-1/s3/aws4_request"
    host = urllib.parse.urlsplit(ENDPOINT).netloc
    payload = "UNSIGNED-PAYLOAD" if expires else hashlib.sha256(data).hexdigest()
    sent = {"host": host, **(headers or {})}
    if not expires:
        sent |= {"x-amz-date": stamp, "x-amz-content-sha256": payload}
    names = sorted(name for name in sent if name not in leave_out)
    pairs = urllib.parse.parse_qsl(query, keep_blank_values=True)
    if expires:
        pairs += [("X-Amz-Algorithm", "AWS4-HMAC-SHA256"), ("X-Amz-Credential", f"{access}/{scope}"), ("X-Amz-Date", stamp),
                  ("X-Amz-Expires", str(expires)), ("X-Amz-SignedHeaders", ";".join(names))]
    quoted = "&".join(f"{urllib.parse.quote(k, safe='-_.~')}={urllib.parse.quote(v, safe='-_.~')}" for k, v in sorted(pairs))
    canonical = "\n".join([method, path, quoted, *[f"{name}:{sent[name]}" for name in names], "", ";".join(names), payload])
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for part in [day, "us-east-1", "s3", "aws4_request"]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    if expires:
        return f"{ENDPOINT}{path}?{quoted}&X-Amz-Signature={signature}", sent
    sent["authorization"] = f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
    return f"{ENDPOINT}{path}" + (f"?{quoted}" if quoted else ""), sent


def signatures_are_checked():
    b = bucket()
    s3.put_object(Bucket=b, Key="k", Body=b"x")

    def ask(code, status, method="GET", path=f"/{b}/k", data=b"", change=None, url_change=None, send=None, **how):
        url, headers = sign(method, path, data=data, **how)
        headers |= change or {}
        url = url_change(url) if url_change else url
        sent = send if send is not None else data
        found, _, text = http(method, url, sent if method == "PUT" else None, headers)
        assert found == status and (code is None or f"<Code>{code}</Code>".encode() in text), (code, status, found, text)

    ask(None, 200)
    ask(None, 200, method="PUT", path=f"/{b}/p", data=b"body", headers={"x-amz-meta-a": "1"})
    ask("SignatureDoesNotMatch", 403, secret="wrong")
    ask("InvalidAccessKeyId", 403, access="AKIANOBODY")
    for minutes in [-20, 20]:
        at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=minutes)
        ask("RequestTimeTooSkewed", 403, now=at)
    ask("SignatureDoesNotMatch", 403, method="PUT", path=f"/{b}/p", data=b"b", headers={"x-amz-meta-a": "1"}, change={"x-amz-meta-a": "2"})
    ask("AccessDenied", 403, method="PUT", path=f"/{b}/p", data=b"b", headers={"x-amz-meta-a": "1"}, leave_out=("x-amz-meta-a",))
    ask("XAmzContentSHA256Mismatch", 400, method="PUT", path=f"/{b}/p", data=b"body", send=b"BODY")
    ask("SignatureDoesNotMatch", 403, url_change=lambda url: url.replace("/k", "/other"))
    assert body(s3.get_object(Bucket=b, Key="p")) == b"body"
    ask(None, 200, expires=60)
    past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=5)
    ask("AccessDenied", 403, expires=60, now=past)
    ask("SignatureDoesNotMatch", 403, expires=60, secret="wrong")
    ask("AuthorizationQueryParametersError", 400, expires=7 * 24 * 3600 + 1)
    ask("SignatureDoesNotMatch", 403, expires=60, url_change=lambda url: url + "&versionId=null")
    ask("AccessDenied", 403, access=OTHER_ACCESS, secret=OTHER_SECRET)
# --- encryption -------------------------------------------------------------------------------------------------------

CUSTOMER = "x-amz-server-side-encryption-customer-"
SOURCE = "x-amz-copy-source-server-side-encryption-customer-"
TEXT = bytes(range(256)) * 4096


def customer(byte, prefix="SSE"):
    return {f"{prefix}CustomerAlgorithm": "AES256", f"{prefix}CustomerKey": bytes([byte]) * 32}


def key_headers(key, prefix=CUSTOMER, algorithm="AES256", md5=None):
    digest = base64.b64encode(hashlib.md5(key).digest()).decode() if md5 is None else md5
    return {prefix + "algorithm": algorithm, prefix + "key": base64.b64encode(key).decode(), prefix + "key-MD5": digest}


def sending(headers):
    sender = client()
    sender.meta.events.register("before-call.s3", lambda params, **_: params["headers"].update(headers))
    return sender


def md5(text):
    return hashlib.md5(text).hexdigest()


def ends(text):
    """Ranges at every alignment to a cipher block, and the last bytes."""
    return [(0, 0), (1, 15), (15, 16), (16, 31), (17, 100), (31, 33), (255, 70000), (len(text) - 33, len(text) - 1)]


def objects_are_encrypted_under_the_customers_key():
    b = bucket(versions=True)
    for text in [b"", b"x", TEXT[:8191], TEXT]:
        put = s3.put_object(Bucket=b, Key="k", Body=text, **customer(1))
        for answer in [put, s3.get_object(Bucket=b, Key="k", **customer(1)), s3.head_object(Bucket=b, Key="k", ChecksumMode="ENABLED", **customer(1))]:
            assert answer["SSECustomerAlgorithm"] == "AES256" and "ServerSideEncryption" not in answer
            assert answer["SSECustomerKeyMD5"] == base64.b64encode(hashlib.md5(b"\1" * 32).digest()).decode()
        assert answer["ContentLength"] == len(text) and answer["ChecksumCRC32"] == base64.b64encode(zlib.crc32(text).to_bytes(4, "big")).decode()
        assert (len(text) < 16 or answer["ETag"].strip('"') != md5(text)) and answer["Metadata"] == {}
        assert "x-bedplate" not in str(answer)
        assert body(s3.get_object(Bucket=b, Key="k", **customer(1))) == text
        assert body(s3.get_object(Bucket=b, Key="k", VersionId=put["VersionId"], **customer(1))) == text
    for first, last in ends(TEXT):
        assert body(s3.get_object(Bucket=b, Key="k", Range=f"bytes={first}-{last}", **customer(1))) == TEXT[first:last + 1]
    refused("InvalidRequest", 400, s3.get_object, Bucket=b, Key="k")
    refused("AccessDenied", 403, s3.get_object, Bucket=b, Key="k", **customer(2))
    refused("400", 400, s3.head_object, Bucket=b, Key="k")
    refused("403", 403, s3.head_object, Bucket=b, Key="k", **customer(2))
    refused("InvalidRequest", 400, s3.get_object_attributes, Bucket=b, Key="k", ObjectAttributes=["ETag"])
    attributes = sending(key_headers(b"\1" * 32)).get_object_attributes(Bucket=b, Key="k", ObjectAttributes=["ObjectSize"])
    assert attributes["ObjectSize"] == len(TEXT)
    s3.put_object(Bucket=b, Key="plain", Body=b"x")
    refused("InvalidRequest", 400, s3.get_object, Bucket=b, Key="plain", **customer(1))
    refused("400", 400, s3.head_object, Bucket=b, Key="plain", **customer(1))
    s3.put_object(Bucket=b, Key="md5", Body=b"x", ContentMD5=base64.b64encode(hashlib.md5(b"x").digest()).decode(), **customer(1))
    refused("BadDigest", 400, s3.put_object, Bucket=b, Key="md5", Body=b"x", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==", **customer(1))
    refused("BadDigest", 400, s3.put_object, Bucket=b, Key="md5", Body=b"x", ChecksumCRC32="AAAAAA==", **customer(1))
    s3.put_object_tagging(Bucket=b, Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert body(s3.get_object(Bucket=b, Key="k", **customer(1))) == TEXT


def customers_keys_are_whole_or_refused():
    b, key = bucket(), b"k" * 32
    whole = key_headers(key)
    cut = [{name: value for name, value in whole.items() if not name.endswith(end)} for end in ("algorithm", "customer-key", "MD5")]
    bad = [key_headers(key, algorithm="AES128"), key_headers(b"short"), key_headers(key + b"x"), key_headers(key, md5="AAAAAAAAAAAAAAAAAAAAAA=="),
           {**whole, CUSTOMER + "key": "?"}, {**whole, "x-amz-server-side-encryption": "AES256"}]
    s3.put_object(Bucket=b, Key="there", Body=b"x", **customer(1))
    for headers in cut + bad:
        refused("InvalidArgument", 400, sending(headers).put_object, Bucket=b, Key="k", Body=b"x")
        refused("InvalidArgument", 400, sending(headers).create_multipart_upload, Bucket=b, Key="k")
        refused("InvalidArgument", 400, sending(headers).get_object, Bucket=b, Key="there")
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=b)["Contents"]] == ["there"]


def parts_are_encrypted_under_one_key():
    b, texts = bucket(), [TEXT * 5 + b"one", TEXT * 5, b"the end"]
    for number_of in [lambda n: n, lambda n: 3 * n]:
        upload = s3.create_multipart_upload(Bucket=b, Key="k", **customer(1))
        assert upload["SSECustomerAlgorithm"] == "AES256"
        at = {"Bucket": b, "Key": "k", "UploadId": upload["UploadId"]}
        refused("InvalidRequest", 400, s3.upload_part, PartNumber=1, Body=b"x", **at)
        refused("InvalidArgument", 400, s3.upload_part, PartNumber=1, Body=b"x", **at, **customer(2))
        parts = []
        for n, text in enumerate(texts, 1):
            s3.upload_part(PartNumber=number_of(n), Body=b"replaced", **at, **customer(1))
            part = s3.upload_part(PartNumber=number_of(n), Body=text, **at, **customer(1))
            assert part["SSECustomerAlgorithm"] == "AES256"
            parts.append({"PartNumber": number_of(n), "ETag": part["ETag"]})
        refused("InvalidArgument", 400, s3.complete_multipart_upload, MultipartUpload={"Parts": parts}, **at, **customer(2))
        s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **at, **customer(1))
        whole = b"".join(texts)
        assert body(s3.get_object(Bucket=b, Key="k", **customer(1))) == whole
        seams = [len(texts[0]), len(texts[0]) + len(texts[1])]
        for first, last in ends(whole) + [(seam - back, seam + on) for seam in seams for back, on in [(1, 0), (17, 5), (0, 6)]]:
            assert body(s3.get_object(Bucket=b, Key="k", Range=f"bytes={first}-{last}", **customer(1))) == whole[first:last + 1], (first, last)
        part = s3.get_object(Bucket=b, Key="k", PartNumber=number_of(2), **customer(1))
        assert body(part) == texts[1] and part["PartsCount"] == 3
        refused("InvalidRequest", 400, s3.get_object, Bucket=b, Key="k")
        refused("AccessDenied", 403, s3.get_object, Bucket=b, Key="k", **customer(2))
    plain = s3.create_multipart_upload(Bucket=b, Key="plain")
    refused("InvalidRequest", 400, s3.upload_part, Bucket=b, Key="plain", UploadId=plain["UploadId"], PartNumber=1, Body=b"x", **customer(1))


def copies_change_keys():
    b = bucket()
    s3.put_object(Bucket=b, Key="plain", Body=TEXT, Metadata={"a": "b"})
    s3.put_object(Bucket=b, Key="one", Body=TEXT, Metadata={"a": "b"}, **customer(1))
    s3.put_object(Bucket=b, Key="own", Body=TEXT, Metadata={"a": "b"}, ServerSideEncryption="AES256")
    sources = [("plain", {}), ("one", customer(1, "CopySourceSSE")), ("own", {})]
    targets = [({}, {}), (customer(1), customer(1)), (customer(2), customer(2)), ({"ServerSideEncryption": "AES256"}, {})]
    for (source, opening), (sealing, reading) in itertools.product(sources, targets):
        copied = s3.copy_object(Bucket=b, Key="copy", CopySource=f"{b}/{source}", **opening, **sealing)
        got = s3.get_object(Bucket=b, Key="copy", **reading)
        assert body(got) == TEXT and got["Metadata"] == {"a": "b"} and got["ETag"] == copied["CopyObjectResult"]["ETag"]
        # What was encrypted stays so.
        managed = "ServerSideEncryption" in sealing or (not sealing and source != "plain")
        assert got.get("ServerSideEncryption") == copied.get("ServerSideEncryption") == ("AES256" if managed else None)
        assert got.get("SSECustomerKeyMD5") == copied.get("SSECustomerKeyMD5")
        if managed:
            assert got["ETag"].strip('"') == md5(TEXT)
        sums = s3.copy_object(Bucket=b, Key="copy", CopySource=f"{b}/{source}", ChecksumAlgorithm="SHA256", **opening, **sealing)
        assert sums["CopyObjectResult"]["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(TEXT).digest()).decode()
    refused("InvalidRequest", 400, s3.copy_object, Bucket=b, Key="copy", CopySource=f"{b}/one")
    refused("AccessDenied", 403, s3.copy_object, Bucket=b, Key="copy", CopySource=f"{b}/one", **customer(2, "CopySourceSSE"))
    refused("InvalidRequest", 400, s3.copy_object, Bucket=b, Key="copy", CopySource=f"{b}/plain", **customer(1, "CopySourceSSE"))
    bad = key_headers(b"short", SOURCE)
    refused("InvalidArgument", 400, sending(bad).copy_object, Bucket=b, Key="copy", CopySource=f"{b}/one")
    s3.copy_object(Bucket=b, Key="one", CopySource=f"{b}/one", **customer(1, "CopySourceSSE"), **customer(3))
    assert body(s3.get_object(Bucket=b, Key="one", **customer(3))) == TEXT
    upload = s3.create_multipart_upload(Bucket=b, Key="parts", **customer(2))
    at = {"Bucket": b, "Key": "parts", "UploadId": upload["UploadId"]}
    refused("InvalidRequest", 400, s3.upload_part_copy, PartNumber=1, CopySource=f"{b}/one", **at, **customer(2))
    refused("InvalidRequest", 400, s3.upload_part_copy, PartNumber=1, CopySource=f"{b}/plain", **at)
    part = s3.upload_part_copy(PartNumber=1, CopySource=f"{b}/one", CopySourceRange="bytes=1001-99999", **at, **customer(2), **customer(3, "CopySourceSSE"))
    s3.complete_multipart_upload(MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]}, **at)
    assert body(s3.get_object(Bucket=b, Key="parts", **customer(2))) == TEXT[1001:100000]
    s3.copy_object(Bucket=b, Key="again", CopySource=f"{b}/parts", **customer(2, "CopySourceSSE"), **customer(2))
    assert body(s3.get_object(Bucket=b, Key="again", Range="bytes=7-99", **customer(2))) == TEXT[1008:1101]


def objects_are_encrypted_under_the_stores_keys():
    b, managed = bucket(), {"ServerSideEncryption": "AES256"}
    for text in [b"", b"x", TEXT]:
        put = s3.put_object(Bucket=b, Key="k", Body=text, ContentMD5=base64.b64encode(hashlib.md5(text).digest()).decode(), **managed)
        got = s3.get_object(Bucket=b, Key="k")
        assert put["ETag"].strip('"') == md5(text) and put["ServerSideEncryption"] == got["ServerSideEncryption"] == "AES256"
        assert body(got) == text and s3.head_object(Bucket=b, Key="k")["ServerSideEncryption"] == "AES256"
    for first, last in ends(TEXT):
        assert body(s3.get_object(Bucket=b, Key="k", Range=f"bytes={first}-{last}")) == TEXT[first:last + 1]
    refused("BadDigest", 400, s3.put_object, Bucket=b, Key="bad", Body=b"x", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==", **managed)
    refused("InvalidRequest", 400, s3.get_object, Bucket=b, Key="k", **customer(1))
    refused("InvalidArgument", 400, sending({"x-amz-server-side-encryption": "AES256"}).get_object, Bucket=b, Key="k")
    upload = s3.create_multipart_upload(Bucket=b, Key="parts", **managed)
    at = {"Bucket": b, "Key": "parts", "UploadId": upload["UploadId"]}
    refused("InvalidRequest", 400, s3.upload_part, PartNumber=1, Body=b"x", **at, **customer(1))
    texts = [TEXT * 5 + b"!", b"end"]
    parts = [{"PartNumber": n, "ETag": s3.upload_part(PartNumber=n, Body=text, **at)["ETag"]} for n, text in enumerate(texts, 1)]
    assert [part["ETag"].strip('"') for part in parts] == [md5(text) for text in texts]
    done = s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **at)
    assert done["ServerSideEncryption"] == "AES256" and done["ETag"].strip('"') == md5(b"".join(hashlib.md5(text).digest() for text in texts)) + "-2"
    assert body(s3.get_object(Bucket=b, Key="parts")) == b"".join(texts)
    s3.copy_object(Bucket=b, Key="copy", CopySource=f"{b}/parts", StorageClass="STANDARD_IA")
    copy = s3.get_object(Bucket=b, Key="copy")
    assert body(copy) == b"".join(texts) and copy["ETag"] == done["ETag"]
    for method in ["aws:kms", "aws:kms:dsse"]:
        refused("NotImplemented", 501, s3.put_object, Bucket=b, Key="kms", Body=b"x", ServerSideEncryption=method)
        refused("NotImplemented", 501, s3.create_multipart_upload, Bucket=b, Key="kms", ServerSideEncryption=method)
        refused("NotImplemented", 501, s3.copy_object, Bucket=b, Key="kms", CopySource=f"{b}/k", ServerSideEncryption=method)
    refused("InvalidArgument", 400, s3.put_object, Bucket=b, Key="kms", Body=b"x", SSEKMSKeyId="key", **managed)
    refused("InvalidArgument", 400, s3.put_object, Bucket=b, Key="kms", Body=b"x", ServerSideEncryption="ROT13")


def buckets_encrypt_by_default():
    b = bucket()
    refused("ServerSideEncryptionConfigurationNotFoundError", 404, s3.get_bucket_encryption, Bucket=b)
    rule = lambda algorithm, **more: {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": algorithm, **more}, "BucketKeyEnabled": True}]}
    set_rule = lambda rules: s3.put_bucket_encryption(Bucket=b, ServerSideEncryptionConfiguration=rules)
    refused("NotImplemented", 501, set_rule, rule("aws:kms"))
    refused("NotImplemented", 501, set_rule, rule("aws:kms:dsse", KMSMasterKeyID="key"))
    refused("InvalidArgument", 400, set_rule, rule("AES256", KMSMasterKeyID="key"))
    refused("MalformedXML", 400, set_rule, rule("ROT13"))
    refused("MalformedXML", 400, set_rule, {"Rules": []})
    refused("MalformedXML", 400, set_rule, {"Rules": [{"BucketKeyEnabled": True}]})
    refused("ServerSideEncryptionConfigurationNotFoundError", 404, s3.get_bucket_encryption, Bucket=b)
    s3.put_object(Bucket=b, Key="before", Body=b"x")
    set_rule(rule("AES256"))
    assert s3.get_bucket_encryption(Bucket=b)["ServerSideEncryptionConfiguration"] == rule("AES256")
    assert s3.put_object(Bucket=b, Key="k", Body=TEXT)["ServerSideEncryption"] == "AES256"
    assert body(s3.get_object(Bucket=b, Key="k")) == TEXT
    assert "ServerSideEncryption" not in s3.head_object(Bucket=b, Key="before")
    assert s3.copy_object(Bucket=b, Key="copy", CopySource=f"{b}/before")["ServerSideEncryption"] == "AES256"
    assert s3.create_multipart_upload(Bucket=b, Key="parts")["ServerSideEncryption"] == "AES256"
    assert "ServerSideEncryption" not in s3.put_object(Bucket=b, Key="own", Body=b"x", **customer(1))
    refused("AccessDenied", 403, other.get_bucket_encryption, Bucket=b)
    s3.delete_bucket_encryption(Bucket=b)
    s3.delete_bucket_encryption(Bucket=b)
    assert "ServerSideEncryption" not in s3.put_object(Bucket=b, Key="after", Body=b"x")
    assert body(s3.get_object(Bucket=b, Key="k")) == TEXT


def forms_encrypt():
    b = bucket()
    for fields, reading in [(key_headers(b"k" * 32), {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": b"k" * 32}), ({"x-amz-server-side-encryption": "AES256"}, {})]:
        post = s3.generate_presigned_post(b, "up", Fields=dict(fields), Conditions=[{name: value} for name, value in fields.items()], ExpiresIn=60)
        data, headers = form(post["fields"], b"hello")
        status, answer_headers, text = http("POST", post["url"], data, headers)
        assert status == 204, (status, text)
        got = s3.get_object(Bucket=b, Key="up", **reading)
        assert body(got) == b"hello" and ("ServerSideEncryption" in got) == (not reading)
    refused("InvalidRequest", 400, s3.get_object, Bucket=b, Key="up", **customer(1))


# --- CORS -------------------------------------------------------------------------------------------------------------


def pages_elsewhere_are_admitted_by_rules():
    b = bucket()
    refused("NoSuchCORSConfiguration", 404, s3.get_bucket_cors, Bucket=b)
    rules = [{"AllowedOrigins": ["https://*.example"], "AllowedMethods": ["GET", "PUT"], "AllowedHeaders": ["x-amz-*"], "ExposeHeaders": ["ETag"], "MaxAgeSeconds": 60}]
    s3.put_bucket_cors(Bucket=b, CORSConfiguration={"CORSRules": rules})
    assert s3.get_bucket_cors(Bucket=b)["CORSRules"] == rules
    ask = {"Origin": "https://a.example", "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x-amz-date"}
    status, headers, _ = http("OPTIONS", f"{ENDPOINT}/{b}/k", headers=ask)
    headers = {name.lower(): value for name, value in headers.items()}
    assert status == 200 and headers["access-control-allow-origin"] == "https://a.example", headers
    assert headers["access-control-allow-headers"] == "x-amz-date" and headers["access-control-max-age"] == "60"
    for change in [{"Origin": "https://evil.test"}, {"Access-Control-Request-Method": "DELETE"}, {"Access-Control-Request-Headers": "x-other"}]:
        assert http("OPTIONS", f"{ENDPOINT}/{b}/k", headers={**ask, **change})[0] == 403
    assert http("OPTIONS", f"{ENDPOINT}/{b}/k")[0] == 400
    set_policy(b, allow(b, "s3:GetObject"))
    s3.put_object(Bucket=b, Key="k", Body=b"x")
    _, headers, _ = http("GET", f"{ENDPOINT}/{b}/k", headers={"Origin": "https://a.example"})
    headers = {name.lower(): value for name, value in headers.items()}
    assert headers["access-control-allow-origin"] == "https://a.example" and headers["access-control-expose-headers"] == "ETag"
    _, headers, _ = http("GET", f"{ENDPOINT}/{b}/k", headers={"Origin": "https://evil.test"})
    assert "access-control-allow-origin" not in {name.lower() for name in headers}
    s3.delete_bucket_cors(Bucket=b)
    assert http("OPTIONS", f"{ENDPOINT}/{b}/k", headers=ask)[0] == 403


# --- lifecycle and other settings -------------------------------------------------------------------------------------


def lifecycle_rules_are_kept_and_told():
    b = bucket()
    refused("NoSuchLifecycleConfiguration", 404, s3.get_bucket_lifecycle_configuration, Bucket=b)
    rules = [{"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "log/"}, "Expiration": {"Days": 3}},
             {"ID": "more", "Status": "Disabled", "Filter": {"Tag": {"Key": "a", "Value": "b"}}, "NoncurrentVersionExpiration": {"NoncurrentDays": 2}}]
    s3.put_bucket_lifecycle_configuration(Bucket=b, LifecycleConfiguration={"Rules": rules})
    assert s3.get_bucket_lifecycle_configuration(Bucket=b)["Rules"] == rules
    put = s3.put_object(Bucket=b, Key="log/a", Body=b"x")
    assert 'rule-id="old"' in put["Expiration"] and "GMT" in put["Expiration"]
    assert s3.head_object(Bucket=b, Key="log/a")["Expiration"] == put["Expiration"]
    assert "Expiration" not in s3.put_object(Bucket=b, Key="data/a", Body=b"x")
    for wrong, code in [({"Days": 0}, "InvalidArgument"), ({}, "MalformedXML")]:
        bad = [{"ID": "x", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": wrong}]
        refused(code, 400, s3.put_bucket_lifecycle_configuration, Bucket=b, LifecycleConfiguration={"Rules": bad})
    s3.delete_bucket_lifecycle(Bucket=b)
    refused("NoSuchLifecycleConfiguration", 404, s3.get_bucket_lifecycle_configuration, Bucket=b)


def settings_that_cannot_be_changed_are_told():
    b = bucket()
    refused("ReplicationConfigurationNotFoundError", 404, s3.get_bucket_replication, Bucket=b)
    assert s3.get_bucket_request_payment(Bucket=b)["Payer"] == "BucketOwner"
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=b)
    s3.get_bucket_notification_configuration(Bucket=b)
    refused("NoSuchWebsiteConfiguration", 404, s3.get_bucket_website, Bucket=b)
    refused("InvalidStorageClass", 400, s3.put_object, Bucket=b, Key="k", Body=b"x", StorageClass="NOWHERE")
    s3.put_object(Bucket=b, Key="k", Body=b"x", WebsiteRedirectLocation="/elsewhere", StorageClass="STANDARD_IA")
    head = s3.head_object(Bucket=b, Key="k")
    assert head["WebsiteRedirectLocation"] == "/elsewhere" and head["StorageClass"] == "STANDARD_IA"
    far = bucket(CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert s3.get_bucket_location(Bucket=far)["LocationConstraint"] == "eu-west-1"
    assert s3.get_bucket_location(Bucket=b)["LocationConstraint"] is None
    refused("BucketAlreadyOwnedByYou", 409, s3.create_bucket, Bucket=b)
    refused("BucketAlreadyExists", 409, other.create_bucket, Bucket=b)


def main():
    wanted = sys.argv[6:]
    tests = [f for name, f in list(globals().items()) if callable(f) and getattr(f, "__module__", "") == "__main__" and f.__code__.co_argcount == 0 and name not in ("main",)]
    failed = 0
    for test in tests:
        if wanted and test.__name__ not in wanted:
            continue
        try:
            test()
            print("ok     ", test.__name__)
        except Exception:
            failed += 1
            print("FAILED ", test.__name__)
            traceback.print_exc(file=sys.stdout)
    sys.exit(1 if failed else 0)


main()
