"""Proves that plain Python, and a torch-like iterable dataset over it, read many small objects in one signed request as docs/python.md
writes it: in order, ranges, snapshots, what is missing, a cut stream; and that boto3's gets of the same objects say the same, timed."""

import json
import random
import tarfile
import threading
import time
import urllib.error
import urllib.request
import zlib

import boto3
import botocore
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from steps import ENDPOINT, REGION, check, equal, main, noise, step

BUCKET = "boto3-batches"
session = boto3.Session(region_name=REGION)
s3 = session.client("s3", endpoint_url=ENDPOINT)
KEYS = [f"set/{number:05}" for number in range(2_000)]
LONG = "name/" + "ä" * 200


def batch(bucket, objects, on_error="stop"):
    """The objects of one request, in the order of the list: pairs of an error, or None, and bytes."""
    body = json.dumps({"objects": objects, "on_error": on_error}).encode()
    request = AWSRequest("POST", f"{ENDPOINT}/{bucket}?batch-get", data=body)
    # The signature covers the list.
    request.headers["X-Amz-Content-SHA256"] = SigV4Auth(None, "s3", REGION).payload(request)
    SigV4Auth(session.get_credentials(), "s3", REGION).add_auth(request)
    answer = urllib.request.urlopen(urllib.request.Request(request.url, body, dict(request.headers)))
    found = 0
    with answer, tarfile.open(fileobj=answer, mode="r|") as tar:
        for member in tar:
            found += 1
            yield member.pax_headers.get("BEDPLATE.error"), tar.extractfile(member).read()
    if found != len(objects):
        raise EOFError(f"the stream ended after {found} of {len(objects)} objects")


class Batches:
    """What `torch.utils.data.IterableDataset` is subclassed for: keys in shuffled order, a batch a request, shared out among workers."""

    def __init__(self, bucket, keys, size=256, worker=0, workers=1, seed=0):
        self.bucket, self.size = bucket, size
        shuffled = random.Random(seed).sample(keys, len(keys))
        self.names = shuffled[worker::workers]

    def __iter__(self):
        for start in range(0, len(self.names), self.size):
            keys = self.names[start : start + self.size]
            objects = batch(self.bucket, [{"key": key} for key in keys])
            yield from zip(keys, (content for _, content in objects))


def content_of(key):
    return noise(zlib.crc32(key.encode()), 10_000)


@step("put small objects")
def put():
    s3.create_bucket(Bucket=BUCKET)

    def some(part):
        client = session.client("s3", endpoint_url=ENDPOINT)
        for key in [*KEYS, LONG][part::8]:
            client.put_object(Bucket=BUCKET, Key=key, Body=content_of(key))

    workers = [threading.Thread(target=some, args=(part,)) for part in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


@step("an epoch in shuffled order, shared out among workers")
def epoch():
    seen = {}
    for worker in range(2):
        seen.update(Batches(BUCKET, KEYS, worker=worker, workers=2))
    equal(sorted(seen), KEYS)
    check(all(content == content_of(key) for key, content in seen.items()), "an object came back different")


@step("ranges, repeats, long names and what is missing")
def entries():
    objects = [{"key": LONG}, {"key": KEYS[3], "range": "bytes=10-19"}, {"key": "gone"}, {"key": LONG}]
    whole = content_of(LONG)
    equal(list(batch(BUCKET, objects, "mark")),
          [(None, whole), (None, content_of(KEYS[3])[10:20]), ("NoSuchKey", b""), (None, whole)])
    try:
        list(batch(BUCKET, objects))
    except urllib.error.HTTPError as error:
        equal(error.code, 404)
        check("gone" in error.read().decode(), "the error does not name the key")
    else:
        check(False, "a missing object was no error")


@step("one batch of 1,000 objects says what 1,000 gets say")
def same():
    keys = random.Random(7).sample(KEYS, 1_000)
    began = time.monotonic()
    one_by_one = [s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys]
    middle = time.monotonic()
    together = [content for _, content in batch(BUCKET, [{"key": key} for key in keys])]
    gets, batched = middle - began, time.monotonic() - middle
    equal(together, one_by_one)
    print(f"  1,000 objects of 10 KB: {gets:.2f} s by gets, {batched:.2f} s in a batch", flush=True)


main(botocore.__version__)
