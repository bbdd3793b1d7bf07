"""Proves that Apache Arrow's S3 file system (the AWS SDK for C++) works here: partitioned datasets, streams in parts, reads in
the middle, folders, moves and removal."""

import pyarrow
import pyarrow.compute
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet

from steps import ACCESS_KEY, ADDRESS, MIB, REGION, SECRET_KEY, check, equal, main, noise, step

BUCKET = "arrow"
fs = pyarrow.fs.S3FileSystem(
    access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, scheme="http", endpoint_override=ADDRESS,
    allow_bucket_creation=True, allow_bucket_deletion=True,
)
table = pyarrow.table({"id": range(200_000), "part": [n % 5 for n in range(200_000)], "x": [n / 3 for n in range(200_000)]})


@step("bucket")
def bucket():
    fs.create_dir(BUCKET)
    equal(fs.get_file_info(BUCKET).type, pyarrow.fs.FileType.Directory)


@step("a partitioned dataset, written and read")
def dataset():
    shape = pyarrow.dataset.partitioning(pyarrow.schema([("part", pyarrow.int64())]), flavor="hive")
    pyarrow.dataset.write_dataset(table, f"{BUCKET}/set", filesystem=fs, format="parquet", partitioning=shape)
    found = pyarrow.dataset.dataset(f"{BUCKET}/set", filesystem=fs, partitioning=shape)
    equal(found.count_rows(), 200_000)
    some = found.to_table(columns=["id"], filter=pyarrow.compute.field("part") == 3)
    equal((some.num_rows, pyarrow.compute.sum(some["id"]).as_py()), (40_000, sum(range(3, 200_000, 5))))


@step("one Parquet file, one column of it")
def parquet():
    pyarrow.parquet.write_table(table, f"{BUCKET}/one.parquet", filesystem=fs)
    equal(pyarrow.parquet.read_table(f"{BUCKET}/one.parquet", columns=["x"], filesystem=fs)["x"], table["x"])


@step("a stream in parts, read in the middle")
def stream():
    body = noise(1, 40 * MIB + 9)
    with fs.open_output_stream(f"{BUCKET}/large", metadata={"Content-Type": "application/x-tensor"}) as out:
        for start in range(0, len(body), 3 * MIB):
            out.write(body[start:start + 3 * MIB])
    with fs.open_input_file(f"{BUCKET}/large") as source:
        equal((source.size(), source.read_at(50, 30 * MIB)), (len(body), body[30 * MIB:30 * MIB + 50]))
        check(source.read() == body, "other bytes came back")


@step("folders, copies, moves, removal")
def folders():
    fs.create_dir(f"{BUCKET}/deep/er", recursive=True)
    fs.copy_file(f"{BUCKET}/one.parquet", f"{BUCKET}/deep/er/copy")
    fs.move(f"{BUCKET}/deep/er/copy", f"{BUCKET}/deep/moved")
    names = [each.path for each in fs.get_file_info(pyarrow.fs.FileSelector(f"{BUCKET}/deep", recursive=True))]
    equal(sorted(names), [f"{BUCKET}/deep/er", f"{BUCKET}/deep/moved"])
    fs.delete_dir_contents(BUCKET)
    fs.delete_dir(BUCKET)
    equal(fs.get_file_info(BUCKET).type, pyarrow.fs.FileType.NotFound)


main(pyarrow.__version__)
