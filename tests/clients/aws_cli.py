"""Proves that aws-cli works unchanged: buckets, copies in one piece and in parts, sync with --delete, signed addresses, and
the conditions of s3api. Its settings are the endpoint, the key, and for signed addresses SigV4."""

import json
import time
import urllib.error
import urllib.request

from steps import ENDPOINT, MIB, WORK, check, equal, file, main, noise, refused, run, same, step, tree

BUCKET = "aws-cli"


def s3(*words):
    return run("aws", "--endpoint-url", ENDPOINT, "s3", *words)


def api(*words):
    return ("aws", "--endpoint-url", ENDPOINT, "s3api", *words)


def asked(*words):
    return json.loads(run(*api(*words)) or "null")


@step("mb and ls")
def make():
    s3("mb", f"s3://{BUCKET}")
    check(BUCKET in s3("ls"), "the new bucket is not listed")


@step("cp up and down in one piece")
def small():
    path = file("small.bin", noise(1, 100_000))
    s3("cp", "--no-progress", path, f"s3://{BUCKET}/small.bin")
    s3("cp", "--no-progress", f"s3://{BUCKET}/small.bin", WORK / "small.back")
    equal((WORK / "small.back").read_bytes(), path.read_bytes())


@step("cp up and down in parts")
def parts():
    path = file("large.bin", noise(2, 40 * MIB + 12_345))
    s3("cp", "--no-progress", path, f"s3://{BUCKET}/large.bin")
    check(asked("head-object", "--bucket", BUCKET, "--key", "large.bin")["ETag"].endswith('-6"'), "not six parts")
    s3("cp", "--no-progress", f"s3://{BUCKET}/large.bin", WORK / "large.back")
    check((WORK / "large.back").read_bytes() == path.read_bytes(), "other bytes came back")


@step("cp from and to a pipe")
def pipe():
    run(*("aws", "--endpoint-url", ENDPOINT, "s3", "cp", "-", f"s3://{BUCKET}/piped"), text="by the pipe\n")
    equal(s3("cp", f"s3://{BUCKET}/piped", "-"), "by the pipe\n")


@step("cp between keys, also of an object in parts")
def copy():
    s3("cp", "--no-progress", f"s3://{BUCKET}/small.bin", f"s3://{BUCKET}/copies/small.bin")
    s3("cp", "--no-progress", f"s3://{BUCKET}/large.bin", f"s3://{BUCKET}/copies/large.bin")
    listed = s3("ls", "--recursive", f"s3://{BUCKET}/copies/")
    check("41955385 copies/large.bin" in listed and "100000 copies/small.bin" in listed, listed)


@step("mv")
def move():
    s3("mv", "--no-progress", f"s3://{BUCKET}/copies/small.bin", f"s3://{BUCKET}/moved/small.bin")
    check("small.bin" not in s3("ls", "--recursive", f"s3://{BUCKET}/copies/"), "the old name is still there")


@step("sync up, sync down, sync --delete")
def sync():
    folder = tree("tree")
    # Among them is an empty file, of which aws-cli expects a "100 Continue"; a wait for the server's time limit shows here.
    began = time.monotonic()
    s3("sync", "--no-progress", folder, f"s3://{BUCKET}/tree")
    check(time.monotonic() - began < 20, f"60 small files took {time.monotonic() - began:.0f} s")
    s3("sync", "--no-progress", f"s3://{BUCKET}/tree", WORK / "tree.back")
    same(folder, WORK / "tree.back")
    equal(s3("sync", "--no-progress", folder, f"s3://{BUCKET}/tree"), "")
    (folder / "000.txt").unlink()
    file("tree/new.txt", b"new")
    said = s3("sync", "--no-progress", "--delete", folder, f"s3://{BUCKET}/tree")
    check("delete: " in said and "upload: " in said and len(said.splitlines()) == 2, said)
    s3("sync", "--no-progress", "--delete", f"s3://{BUCKET}/tree", WORK / "tree.back")
    same(folder, WORK / "tree.back")


@step("presign and fetch")
def presign():
    # Left alone, aws-cli signs addresses for us-east-1 with SigV2, which is refused.
    run("aws", "configure", "set", "default.s3.signature_version", "s3v4")
    address = s3("presign", f"s3://{BUCKET}/piped", "--expires-in", "60").strip()
    with urllib.request.urlopen(address, timeout=30) as answer:
        equal(answer.read(), b"by the pipe\n")
    try:
        urllib.request.urlopen(address.replace("piped", "small.bin"), timeout=30)
    except urllib.error.HTTPError as error:
        equal(error.code, 403)
    else:
        check(False, "an address signed for one key opens another")


@step("s3api put and get with conditions")
def conditions():
    body = file("once", b"once")
    put = ("put-object", "--bucket", BUCKET, "--key", "once", "--body", str(body))
    etag = asked(*put, "--if-none-match", "*", "--metadata", "who=me")["ETag"]
    check("PreconditionFailed" in refused(*api(*put, "--if-none-match", "*")), "another error")
    asked(*put, "--if-match", etag)
    check("PreconditionFailed" in refused(*api(*put, "--if-match", '"0123456789abcdef0123456789abcdef"')), "another error")
    get = ("get-object", "--bucket", BUCKET, "--key", "once", str(WORK / "once.back"))
    equal(asked(*get, "--if-match", etag)["ETag"], etag)
    check("304" in refused(*api(*get, "--if-none-match", etag)), "another error")


@step("s3api get-object-attributes")
def attributes():
    wanted = ("ETag", "ObjectSize", "ObjectParts", "Checksum", "StorageClass")
    found = asked("get-object-attributes", "--bucket", BUCKET, "--key", "large.bin", "--object-attributes", *wanted)
    equal((found["ObjectSize"], found["ObjectParts"]["TotalPartsCount"]), (40 * MIB + 12_345, 6))


@step("s3api tags")
def tags():
    tagging = '{"TagSet":[{"Key":"stage","Value":"raw data"}]}'
    run(*api("put-object-tagging", "--bucket", BUCKET, "--key", "once", "--tagging", tagging))
    equal(asked("get-object-tagging", "--bucket", BUCKET, "--key", "once")["TagSet"][0]["Value"], "raw data")
    run(*api("delete-object-tagging", "--bucket", BUCKET, "--key", "once"))
    equal(asked("get-object-tagging", "--bucket", BUCKET, "--key", "once")["TagSet"], [])


@step("s3api versions")
def versions():
    run(*api("create-bucket", "--bucket", "aws-cli-versions"))
    status = ("--versioning-configuration", "Status=Enabled")
    run(*api("put-bucket-versioning", "--bucket", "aws-cli-versions", *status))
    put = ("put-object", "--bucket", "aws-cli-versions", "--key", "k", "--body", str(file("v", b"1")))
    first, second = asked(*put)["VersionId"], asked(*put)["VersionId"]
    check(first != second, "two versions with one name")
    run(*api("delete-object", "--bucket", "aws-cli-versions", "--key", "k"))
    listed = asked("list-object-versions", "--bucket", "aws-cli-versions")
    equal((len(listed["Versions"]), len(listed["DeleteMarkers"])), (2, 1))
    get = ("get-object", "--bucket", "aws-cli-versions", "--key", "k", "--version-id", first, str(WORK / "v1"))
    equal(asked(*get)["VersionId"], first)


@step("errors name themselves")
def errors():
    absent = refused(*api("get-object", "--bucket", BUCKET, "--key", "absent", str(WORK / "absent")))
    check("NoSuchKey" in absent, absent)
    check("NoSuchBucket" in refused(*api("list-objects-v2", "--bucket", "aws-cli-absent")), "another error")
    full = refused(*api("delete-bucket", "--bucket", BUCKET))
    check("BucketNotEmpty" in full, full)


@step("rm and rb --force")
def remove():
    s3("rm", "--recursive", f"s3://{BUCKET}/tree")
    equal(s3("rb", "--force", f"s3://{BUCKET}").splitlines()[-1], f"remove_bucket: {BUCKET}")
    check(f"{BUCKET}\n" not in s3("ls"), "the bucket is still listed")


main(run("aws", "--version").split()[0].removeprefix("aws-cli/"))
