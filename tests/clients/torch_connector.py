"""Proves that PyTorch's S3 connector trains from and saves to this server: map-style and iterable datasets through a
DataLoader with workers, range reads, checkpoints written and read back, and a distributed checkpoint."""

import io
import os

import s3torchconnector
import torch
import torch.distributed.checkpoint as dcp
from s3torchconnector import S3Checkpoint, S3ClientConfig, S3IterableDataset, S3MapDataset, S3ReaderConstructor
from s3torchconnector.dcp import S3StorageReader, S3StorageWriter
from torch.utils.data import DataLoader

from steps import ENDPOINT, REGION, check, equal, main, noise, run, step

BUCKET = "s3://torch"
CONFIG = S3ClientConfig(force_path_style=True)
PLACE = {"region": REGION, "endpoint": ENDPOINT, "s3client_config": CONFIG}
samples = {f"samples/{number:03}": noise(number, 1000 + 331 * number) for number in range(120)}


def item(source):
    return source.key, source.read()


@step("write samples with a checkpoint writer")
def write():
    run("aws", "--endpoint-url", ENDPOINT, "s3", "mb", BUCKET)
    checkpoint = S3Checkpoint(**PLACE)
    for key, body in samples.items():
        with checkpoint.writer(f"{BUCKET}/{key}") as out:
            out.write(body)


@step("map-style dataset, with workers")
def map_style():
    dataset = S3MapDataset.from_prefix(f"{BUCKET}/samples/", transform=item, **PLACE)
    equal(len(dataset), 120)
    equal(dataset[17], ("samples/017", samples["samples/017"]))
    loaded = {}
    for batch in DataLoader(dataset, batch_size=8, num_workers=2, collate_fn=list):
        loaded.update(batch)
    equal(loaded == samples, True)


@step("iterable dataset, with workers that share the keys")
def iterable():
    dataset = S3IterableDataset.from_prefix(f"{BUCKET}/samples/", transform=item, enable_sharding=True, **PLACE)
    found = [pair for batch in DataLoader(dataset, batch_size=8, num_workers=2, collate_fn=list) for pair in batch]
    equal((len(found), dict(found) == samples), (120, True))


@step("range reads")
def ranges():
    reader = S3ReaderConstructor.range_based(buffer_size=64 * 1024)
    uris = [f"{BUCKET}/samples/119"]
    dataset = S3MapDataset.from_objects(uris, reader_constructor=reader, transform=middle, **PLACE)
    equal(dataset[0], samples["samples/119"][20_000:20_100])


def middle(source):
    source.seek(20_000)
    return source.read(100)


@step("checkpoint, written and read back")
def checkpoint():
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(1500, 2000), torch.nn.Linear(2000, 1000))
    place = S3Checkpoint(**PLACE)
    for epoch in range(2):
        with place.writer(f"{BUCKET}/checkpoints/{epoch}.ckpt") as out:
            torch.save(model.state_dict(), out)
    with place.reader(f"{BUCKET}/checkpoints/1.ckpt") as source:
        back = torch.load(io.BytesIO(source.read()), weights_only=True)
    for name, tensor in model.state_dict().items():
        check(torch.equal(back[name], tensor), f"{name} came back different")


@step("a write that fails leaves nothing")
def interrupted():
    try:
        with S3Checkpoint(**PLACE).writer(f"{BUCKET}/checkpoints/half.ckpt") as out:
            out.write(noise(1, 20_000_000))
            raise RuntimeError("the training process broke off")
    except RuntimeError:
        pass
    listed = run("aws", "--endpoint-url", ENDPOINT, "s3", "ls", f"{BUCKET}/checkpoints/")
    check("half.ckpt" not in listed, "half a checkpoint is there")


@step("distributed checkpoint (DCP)")
def distributed():
    state = {"weight": torch.randn(800, 900), "step": torch.tensor(7)}
    os.environ["AWS_ENDPOINT_URL"] = ENDPOINT  # its writer and reader take no endpoint
    path = f"{BUCKET}/dcp/step-7/"
    dcp.save(state, storage_writer=S3StorageWriter(REGION, path, s3client_config=CONFIG), no_dist=True)
    back = {"weight": torch.zeros(800, 900), "step": torch.tensor(0)}
    dcp.load(back, storage_reader=S3StorageReader(REGION, path, s3client_config=CONFIG), no_dist=True)
    check(torch.equal(back["weight"], state["weight"]) and back["step"] == 7, "the state came back different")


main(f"{s3torchconnector.__version__} (torch {torch.__version__})")
