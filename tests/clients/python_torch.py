"""Proves that PyTorch trains from and saves to a bucket that `bedplate mount` shows, and to S3 without a mount: a DataLoader with
workers over a snapshot, memory-mapped safetensors and arrays, WebDataset tars, torch.save, and distributed checkpoints of two
processes; and that what a mount refuses it refuses aloud. docs/python.md has each as a recipe. Needs /dev/fuse."""

import errno
import fcntl
import mmap
import os
import pathlib
import socket
import tarfile
import tempfile
import zipfile

import numpy
import safetensors
import torch
import torch.distributed.checkpoint as dcp
import torch.multiprocessing
import webdataset
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.fsspec_filesystem import FsspecReader, FsspecWriter
from torch.utils.data import DataLoader, Dataset

from mounting import bedplate, figures, mounted, snapshot
from steps import ENDPOINT, MIB, WORK, check, equal, file, main, noise, step

BUCKET = "python-torch"
S3 = {"endpoint_url": ENDPOINT}
samples = {f"{number % 8}/{number:04}.bin": noise(number, 900 + 97 * number) for number in range(240)}


class Files(Dataset):
    """Every file below a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.paths = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        path = self.paths[index]
        return str(path.relative_to(self.folder)), path.read_bytes()


def two_layers(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(1200, 1500), torch.nn.Linear(1500, 900))


def same_state(found, wanted):
    for name, tensor in wanted.items():
        check(torch.equal(found[name], tensor), f"{name} came back different")


@step("DataLoader with workers over a mounted snapshot, two shuffled epochs")
def loader():
    for name, body in samples.items():
        file(f"samples/{name}", body)
    bedplate("bucket", "create", BUCKET)
    bedplate("put", "--recursive", WORK / "samples", f"{BUCKET}/samples")
    snapshot(BUCKET, "v1")
    with mounted(f"{BUCKET}@v1/samples") as folder:
        data = Files(folder)
        equal(len(data), len(samples))
        for _ in range(2):
            batches = DataLoader(data, batch_size=16, shuffle=True, num_workers=2, collate_fn=list)
            found = dict(pair for batch in batches for pair in batch)
            check(found == samples, "some sample came back different")
        seen = figures(folder)
        check(seen["errors"] == 0 and seen["network_bytes"] > 0, f"{seen}")
    # Mounted again, the node has all of it.
    with mounted(f"{BUCKET}@v1/samples") as folder:
        check(dict(Files(folder)[at] for at in range(len(samples))) == samples, "some sample came back different")
        seen = figures(folder)
        equal((seen["cache_misses"], seen["cache_hits"] > 0), (0, True))


@step("safetensors: saved to a mount, memory-mapped from it")
def tensors():
    state = two_layers(1).state_dict()
    with mounted(BUCKET, "--read-write") as folder:
        save_file(state, folder / "model.safetensors", metadata={"step": "1"})
        same_state(load_file(folder / "model.safetensors"), state)
        with safetensors.safe_open(folder / "model.safetensors", framework="pt") as source:
            equal((source.metadata(), sorted(source.keys())), ({"step": "1"}, sorted(state)))
            rows = source.get_slice("0.weight")[100:110]
            check(torch.equal(rows, state["0.weight"][100:110]), "a slice came back different")
        # A newer one takes its place while the older is still mapped.
        with safetensors.safe_open(folder / "model.safetensors", framework="pt") as older:
            newer = two_layers(2).state_dict()
            save_file(newer, folder / "model.tmp")
            os.replace(folder / "model.tmp", folder / "model.safetensors")
            same_state(load_file(folder / "model.safetensors"), newer)
            check(torch.equal(older.get_tensor("1.bias"), state["1.bias"]), "what was mapped has changed")


@step("torch.save and torch.load, mapped too")
def whole():
    state = two_layers(3).state_dict() | {"large": torch.randn(2_600_000)}
    with mounted(BUCKET, "--read-write") as folder:
        for epoch in range(2):
            torch.save(state, folder / "last.tmp")
            os.replace(folder / "last.tmp", folder / "last.pt")
        for mapped in [False, True]:
            same_state(torch.load(folder / "last.pt", weights_only=True, mmap=mapped), state)


@step("NumPy: savez, memory-mapped arrays, and no shared map for writing")
def arrays():
    array = numpy.arange(600_000, dtype=numpy.float64).reshape(600, 1000)
    with mounted(BUCKET, "--read-write") as folder:
        numpy.save(folder / "array.npy", array)
        numpy.savez(folder / "arrays.npz", first=array, second=array[:10])
        mapped = numpy.load(folder / "array.npy", mmap_mode="r")
        check((mapped[77:99] == array[77:99]).all(), "rows came back different")
        with numpy.load(folder / "arrays.npz") as several:
            check((several["second"] == array[:10]).all(), "an array came back different")
        private = numpy.load(folder / "array.npy", mmap_mode="c")
        private[0, 0] = 7
        equal(float(numpy.load(folder / "array.npy")[0, 0]), 0.0)
        try:
            numpy.load(folder / "array.npy", mmap_mode="r+")
        except OSError as error:
            equal(error.errno, errno.ENODEV)
        else:
            check(False, "a map was made whose writes would be lost")


@step("ordinary files: logs, zips, locks, temporary files")
def ordinary():
    with mounted(BUCKET, "--read-write") as folder:
        for line in range(30):
            with open(folder / "train.log", "a") as log:
                log.write(f"step {line}\n")
        equal((folder / "train.log").read_text().count("\n"), 30)
        with zipfile.ZipFile(folder / "a.zip", "w") as archive:
            archive.writestr("one", b"1" * 70_000)
            archive.write(folder / "train.log", "log")
        with zipfile.ZipFile(folder / "a.zip") as archive:
            equal((archive.testzip(), archive.read("one")), (None, b"1" * 70_000))
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with tempfile.TemporaryFile(dir=folder) as nameless:
            nameless.write(b"x" * 100_000)
            nameless.seek(5)
            equal(len(nameless.read()), 99_995)
        with open(folder / "train.log", "rb") as source, mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ) as view:
            check(view[:7] == b"step 0\n", "a map shows something else")


@step("WebDataset: tars written to and read from a mount, with workers")
def tars():
    with mounted(BUCKET, "--read-write") as folder:
        (folder / "shards").mkdir()
        with webdataset.ShardWriter(f"{folder}/shards/%04d.tar", maxcount=40, verbose=0) as sink:
            for number in range(120):
                sink.write({"__key__": f"{number:05}", "bin": noise(number, 5000), "cls": number % 10})
        equal(len(list((folder / "shards").iterdir())), 3)
    snapshot(BUCKET, "v2")
    with mounted(f"{BUCKET}@v2") as folder:
        read_tars(f"{folder}/shards/{{0000..0002}}.tar")
        with tarfile.open(folder / "shards/0001.tar") as archive:
            equal(len(archive.getnames()), 80)


@step("WebDataset: the same tars over S3")
def tars_over_s3():
    command = f"aws --endpoint-url {ENDPOINT} s3 cp s3://{BUCKET}/shards/{{0000..0002}}.tar -"
    read_tars(f"pipe:{command}")


def read_tars(urls):
    data = webdataset.WebDataset(urls, shardshuffle=False).decode().to_tuple("__key__", "bin", "cls")
    found = {key: (body, cls) for key, body, cls in DataLoader(data, batch_size=None, num_workers=2)}
    wanted = {f"{number:05}": (noise(number, 5000), number % 10) for number in range(120)}
    check(found == wanted, f"{len(found)} samples, some different")


def rank(number, port, places):
    """One of two processes that save checkpoints together, and load them."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=number, world_size=2)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (2,))
        for seed, place in places:
            # With the checkpoint's id as well, DCP would forget the options.
            is_s3 = place.startswith("s3://")
            save = {"storage_writer": FsspecWriter(place, **S3)} if is_s3 else {"checkpoint_id": place}
            load = {"storage_reader": FsspecReader(place, **S3)} if is_s3 else {"checkpoint_id": place}
            model = torch.distributed.tensor.distribute_module(two_layers(seed), mesh, shard)
            wanted = {"model": model.state_dict(), "step": torch.tensor(seed)}
            dcp.save(wanted, **save)
            fresh = torch.distributed.tensor.distribute_module(two_layers(99), mesh, shard)
            found = {"model": fresh.state_dict(), "step": torch.tensor(0)}
            dcp.load(found, **load)
            assert found["step"] == seed
            for name, tensor in wanted["model"].items():
                assert torch.equal(found["model"][name].to_local(), tensor.to_local()), name
    finally:
        torch.distributed.destroy_process_group()


def shard(_, module, mesh):
    from torch.distributed.tensor import Shard, distribute_tensor

    for name, parameter in list(module.named_parameters(recurse=False)):
        module.register_parameter(name, torch.nn.Parameter(distribute_tensor(parameter, mesh, [Shard(0)])))


@step("distributed checkpoints of two processes, on a mount, there once more, and over S3")
def distributed():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with mounted(BUCKET, "--read-write") as folder:
        places = [(5, f"{folder}/dcp"), (6, f"{folder}/dcp"), (7, f"s3://{BUCKET}/dcp-s3")]
        torch.multiprocessing.spawn(rank, (port, places), nprocs=2)
        equal(sorted(path.name for path in (folder / "dcp").iterdir()), [".metadata", "__0_0.distcp", "__1_0.distcp"])
    # Another process of another world loads both, from another mount.
    with mounted(BUCKET) as folder:
        for seed, name in [(6, "dcp"), (7, "dcp-s3")]:
            state = {"model": two_layers(1).state_dict(), "step": torch.tensor(0)}
            dcp.load(state, checkpoint_id=folder / name, no_dist=True)
            same_state(state["model"], two_layers(seed).state_dict())


@step("what a mount refuses, it refuses aloud")
def refusals():
    with mounted(BUCKET, "--read-write") as folder:
        (folder / "long").write_bytes(noise(1, 17 * MIB))
        for mode in ["ab", "r+b"]:
            try:
                with open(folder / "long", mode) as out:
                    out.write(b"x")
            except OSError as error:
                equal(error.errno, errno.EOPNOTSUPP)
            else:
                check(False, f"a long file was opened with {mode} and changed")
        try:
            os.rename(folder / "shards", folder / "renamed")
        except OSError as error:
            equal(error.errno, errno.EXDEV)
        else:
            check(False, "a folder was renamed")
        equal((folder / "long").stat().st_size, 17 * MIB)


# The processes that are spawned import this file, and do only what they are told.
if __name__ == "__main__":
    main(f"torch {torch.__version__}, webdataset {webdataset.__version__}")
