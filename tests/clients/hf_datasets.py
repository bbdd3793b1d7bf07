"""Proves that Hugging Face datasets works over s3:// through fsspec's s3fs: save_to_disk and load_from_disk, streamed and
cached reads of Parquet and JSON lines; and that s3fs itself writes, appends, lists, moves and removes."""

import json
import sys

import datasets
import s3fs
from datasets import Dataset, load_dataset, load_from_disk

from steps import ENDPOINT, MIB, WORK, check, equal, file, files, main, noise, run, step

BUCKET = "hf-datasets"
OPTIONS = {"endpoint_url": ENDPOINT}
datasets.disable_progress_bars()
fs = s3fs.S3FileSystem(**OPTIONS)
rows = Dataset.from_dict({
    "id": list(range(20_000)),
    "text": [f"line {number} of the set — Zeile" for number in range(20_000)],
    "vector": [[number / 3, number / 7] for number in range(20_000)],
})


@step("bucket")
def bucket():
    fs.mkdir(BUCKET)
    check(BUCKET in fs.ls(""), "the new bucket is not listed")


@step("save_to_disk and load_from_disk")
def disk():
    rows.save_to_disk(f"s3://{BUCKET}/saved", storage_options=OPTIONS, num_shards=4)
    equal(len(fs.glob(f"{BUCKET}/saved/data-*.arrow")), 4)
    back = load_from_disk(f"s3://{BUCKET}/saved", storage_options=OPTIONS)
    equal((len(back), back[12_345]), (len(rows), rows[12_345]))


@step("save a changed set over it")
def again():
    changed = rows.map(lambda row: {"text": row["text"].upper()})
    changed.save_to_disk(f"s3://{BUCKET}/saved", storage_options=OPTIONS, num_shards=4)
    # In a process of its own: datasets keeps what a process has loaded from an address.
    load = f"print(datasets.load_from_disk('s3://{BUCKET}/saved', storage_options={OPTIONS!r})[7]['text'])"
    equal(run(sys.executable, "-c", f"import datasets; {load}").strip(), rows[7]["text"].upper())


@step("stream Parquet")
def stream():
    for shard in range(3):
        part = rows.shard(3, shard)
        part.to_parquet(f"s3://{BUCKET}/parquet/{shard}.parquet", storage_options=OPTIONS)
    found = load_dataset(
        "parquet", data_files=f"s3://{BUCKET}/parquet/*.parquet", storage_options=OPTIONS, split="train", streaming=True
    )
    equal(sum(1 for _ in found), len(rows))
    equal(next(iter(found.skip(19_990)))["id"], 19_990)


@step("load JSON lines")
def lines():
    text = "".join(json.dumps({"id": number, "text": f"ü {number}"}) + "\n" for number in range(5_000))
    fs.pipe(f"{BUCKET}/lines/a.jsonl", text.encode())
    found = load_dataset(
        "json", data_files=f"s3://{BUCKET}/lines/*.jsonl", storage_options=OPTIONS, split="train", cache_dir=str(WORK / "cache")
    )
    equal((len(found), found[-1]), (5_000, {"id": 4_999, "text": "ü 4999"}))


@step("s3fs: write in parts, read in the middle, append")
def parts():
    body = noise(1, 61 * MIB)
    with fs.open(f"{BUCKET}/large", "wb", block_size=10 * MIB) as out:
        out.write(body)
    equal(fs.info(f"{BUCKET}/large")["size"], len(body))
    with fs.open(f"{BUCKET}/large", "rb") as source:
        source.seek(40 * MIB)
        equal(source.read(64), body[40 * MIB:40 * MIB + 64])
    with fs.open(f"{BUCKET}/large", "ab") as out:
        out.write(b"the end")
    equal(fs.cat_file(f"{BUCKET}/large", start=-7), b"the end")
    fs.pipe(f"{BUCKET}/small", b"one")
    with fs.open(f"{BUCKET}/small", "ab") as out:
        out.write(b" two")
    equal(fs.cat(f"{BUCKET}/small"), b"one two")


@step("s3fs: put, find, copy, move, get, remove")
def whole_folders():
    for number in range(40):
        file(f"up/{number % 4}/ü {number}", noise(number, 100 * number))
    fs.put(str(WORK / "up"), f"{BUCKET}/up", recursive=True)
    fs.copy(f"{BUCKET}/up", f"{BUCKET}/copied", recursive=True)
    fs.rm(f"{BUCKET}/up", recursive=True)
    equal((len(fs.find(f"{BUCKET}/copied")), fs.exists(f"{BUCKET}/up")), (40, False))
    fs.get(f"{BUCKET}/copied", str(WORK / "down"), recursive=True)
    equal(files(WORK / "down"), files(WORK / "up"))
    fs.mv(f"{BUCKET}/copied/1/ü 1", f"{BUCKET}/moved")
    equal((fs.cat(f"{BUCKET}/moved"), fs.exists(f"{BUCKET}/copied/1/ü 1")), (noise(1, 100), False))
    fs.touch(f"{BUCKET}/touched")
    equal(fs.info(f"{BUCKET}/touched")["size"], 0)
    fs.rm(BUCKET, recursive=True)
    check(not fs.exists(BUCKET), "the bucket is still there")


main(f"{datasets.__version__} (s3fs {s3fs.__version__})")
