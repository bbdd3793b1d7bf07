"""Proves that Hugging Face datasets, Arrow and fsspec work with a bucket that `bedplate mount` shows, offline, and
over S3: load_dataset of JSON lines and Parquet, streamed too, save_to_disk and load_from_disk, the cache of a processed set, and s3fs
beside the mount. docs/python.md has each as a recipe. Needs /dev/fuse."""

import json
import os
import shutil
import sys
import types

import datasets
import fsspec
import pyarrow.dataset
import pyarrow.parquet
import s3fs
from datasets import Dataset, load_dataset, load_from_disk

from mounting import bedplate, mounted, snapshot
from steps import ENDPOINT, WORK, check, equal, main, run, step

BUCKET = "python-datasets"
# datasets adds to the options that it is given.
OPTIONS = types.MappingProxyType({"endpoint_url": ENDPOINT})
datasets.disable_progress_bars()
rows = Dataset.from_dict({
    "id": list(range(9_000)),
    "text": [f"line {number} of the set — Zeile" for number in range(9_000)],
})


def load(kind, files, name, **more):
    return load_dataset(kind, data_files=files, split="train", cache_dir=str(WORK / name), **more)


@step("JSON lines and Parquet, written to a mount")
def write():
    bedplate("bucket", "create", BUCKET)
    with mounted(BUCKET, "--read-write") as folder:
        (folder / "lines").mkdir()
        for shard in range(3):
            part = rows.shard(3, shard)
            part.to_parquet(folder / f"{shard}.parquet")
            with open(folder / f"lines/{shard}.jsonl", "w") as out:
                out.writelines(json.dumps(row) + "\n" for row in part)
        equal(pyarrow.parquet.read_table(folder / "1.parquet").num_rows, 3_000)
    snapshot(BUCKET, "v1")


@step("load_dataset from a mounted snapshot, also offline")
def from_mount():
    with mounted(f"{BUCKET}@v1") as folder:
        offline = (
            "import os; os.environ['HF_HUB_OFFLINE'] = '1'; import datasets; "
            f"print(len(datasets.load_dataset('parquet', data_files='{folder}/*.parquet', split='train')))"
        )
        equal(run(sys.executable, "-c", offline).strip(), "9000")
        found = load("parquet", f"{folder}/*.parquet", "parquet")
        equal((len(found), sorted(found["id"])), (9_000, rows["id"]))
        found = load("json", f"{folder}/lines/*.jsonl", "json")
        equal((len(found), found[8_999]), (9_000, rows[8_999]))
        stream = load("parquet", f"{folder}/*.parquet", "stream", streaming=True)
        equal(sum(row["id"] for row in stream), sum(range(9_000)))
        table = pyarrow.dataset.dataset([f"{folder}/{shard}.parquet" for shard in range(3)])
        equal(table.to_table(filter=pyarrow.dataset.field("id") < 50).num_rows, 50)


@step("load_dataset over S3")
def over_s3():
    found = load("parquet", f"s3://{BUCKET}/*.parquet", "s3", storage_options=dict(OPTIONS))
    equal((len(found), sorted(found["id"])), (9_000, rows["id"]))
    stream = load("json", f"s3://{BUCKET}/lines/*.jsonl", "s3-stream", storage_options=dict(OPTIONS), streaming=True)
    equal(sum(row["id"] for row in stream), sum(range(9_000)))


@step("save_to_disk and load_from_disk on a mount: mapped Arrow files")
def disk():
    with mounted(BUCKET, "--read-write") as folder:
        rows.save_to_disk(folder / "saved", num_shards=3)
        back = load_from_disk(folder / "saved")
        equal((len(back), back[4_321]), (9_000, rows[4_321]))
        upper = back.map(lambda row: {"text": row["text"].upper()}, cache_file_name=str(folder / "saved/upper.arrow"))
        equal(upper[17]["text"], rows[17]["text"].upper())


@step("a cache of datasets on a mount")
def cache():
    with mounted(BUCKET, "--read-write") as folder:
        found = load_dataset(
            "json", data_files=f"{folder}/lines/*.jsonl", split="train", cache_dir=str(folder / "cache")
        )
        equal(len(found), 9_000)
        del found
        shutil.rmtree(folder / "cache")
        check(not (folder / "cache").exists(), "the cache is still there")


@step("fsspec and s3fs see what the mount does, and the other way round")
def beside():
    fs = s3fs.S3FileSystem(**OPTIONS)
    with mounted(BUCKET, "--read-write") as folder:
        (folder / "from-mount").write_text("mount")
        fs.invalidate_cache()  # it keeps the lists that it has seen
        with fsspec.open(f"s3://{BUCKET}/from-mount", "rt", **OPTIONS) as source:
            equal(source.read(), "mount")
        with fsspec.open(f"s3://{BUCKET}/from-s3", "wb", **OPTIONS) as out:
            out.write(b"s3")
        equal((folder / "from-s3").read_text(), "s3")
        with fsspec.open(f"s3://{BUCKET}/from-s3", "wb", **OPTIONS) as out:
            out.write(b"longer than before")
        equal((folder / "from-s3").read_text(), "longer than before")
        (folder / "from-s3").unlink()
        fs.invalidate_cache()
        check(not fs.exists(f"{BUCKET}/from-s3"), "what was removed is still there")
        equal(sorted(os.listdir(folder / "lines")), ["0.jsonl", "1.jsonl", "2.jsonl"])
    equal(json.loads(fs.cat(f"{BUCKET}_at_v1/lines/0.jsonl").splitlines()[0]), rows[0])


main(f"{datasets.__version__} (s3fs {s3fs.__version__})")
