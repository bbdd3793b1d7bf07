"""Proves that s3fs-fuse mounts a bucket and that ordinary programs work in it: folders, writes, appends, large files, reads in
the middle, renames, links, permissions, removal; and that another mount sees the same. Needs /dev/fuse."""

import os
import shutil
import subprocess
import time

from steps import ACCESS_KEY, ENDPOINT, MIB, SECRET_KEY, WORK, check, equal, file, files, main, noise, run, same, step, tree

BUCKET = "s3fs-fuse"
ROOT = WORK / "mnt"


class Mount:
    """One s3fs process in the foreground, unmounted and ended by its id whatever happens."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        secret = file("s3fs.key", f"{ACCESS_KEY}:{SECRET_KEY}".encode())
        secret.chmod(0o600)
        options = f"url={ENDPOINT},use_path_request_style,passwd_file={secret},multipart_size=10,enable_noobj_cache"
        self.log = open(WORK / "s3fs.log", "ab")
        words = ["s3fs", BUCKET, str(folder), "-f", "-o", options]
        self.process = subprocess.Popen(words, stdout=self.log, stderr=self.log)
        limit = time.monotonic() + 30
        while not os.path.ismount(folder):
            if self.process.poll() is not None or time.monotonic() > limit:
                self.end()
                check(False, f"s3fs did not mount: {(WORK / 's3fs.log').read_text()[-400:]}")
            time.sleep(0.1)

    def end(self):
        subprocess.run(["fusermount", "-u", "-z", str(self.folder)], capture_output=True, check=False)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


mounts = []


@step("mount")
def mount():
    run("aws", "--endpoint-url", ENDPOINT, "s3", "mb", f"s3://{BUCKET}")
    mounts.append(Mount(ROOT))
    equal(list(ROOT.iterdir()), [])


@step("copy a folder in, and read it back")
def copy():
    folder = tree("tree", files=30)
    shutil.copytree(folder, ROOT / "tree")
    same(folder, ROOT / "tree")


@step("write, append, overwrite, truncate")
def write():
    path = ROOT / "note.txt"
    path.write_text("one\n")
    with path.open("a") as out:
        out.write("two\n")
    equal(path.read_text(), "one\ntwo\n")
    with path.open("r+") as out:
        out.seek(4)
        out.write("TWO")
    equal(path.read_text(), "one\nTWO\n")
    with path.open("r+") as out:
        out.truncate(4)
    equal((path.read_text(), path.stat().st_size), ("one\n", 4))


@step("a large file, and reads in its middle")
def large():
    body = noise(1, 31 * MIB + 17)
    (ROOT / "large").write_bytes(body)
    check((ROOT / "large").read_bytes() == body, "other bytes came back")
    with (ROOT / "large").open("rb") as source:
        source.seek(20 * MIB)
        equal(source.read(100), body[20 * MIB:20 * MIB + 100])


@step("rename a file, a large file and a folder")
def rename():
    (ROOT / "note.txt").rename(ROOT / "renamed.txt")
    equal(((ROOT / "note.txt").exists(), (ROOT / "renamed.txt").read_text()), (False, "one\n"))
    (ROOT / "tree").rename(ROOT / "moved")
    same(WORK / "tree", ROOT / "moved")
    (ROOT / "large").rename(ROOT / "larger")
    equal((ROOT / "larger").stat().st_size, 31 * MIB + 17)


@step("modes, times and symbolic links")
def attributes():
    path = ROOT / "renamed.txt"
    path.chmod(0o640)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    equal((path.stat().st_mode & 0o777, int(path.stat().st_mtime)), (0o640, 1_000_000_000))
    (ROOT / "link").symlink_to("renamed.txt")
    equal((os.readlink(ROOT / "link"), (ROOT / "link").read_text()), ("renamed.txt", "one\n"))


@step("a second mount sees the same, and other clients too")
def second():
    mounts.append(Mount(WORK / "mnt2"))
    same(WORK / "tree", WORK / "mnt2/moved")
    equal(run("aws", "--endpoint-url", ENDPOINT, "s3", "cp", f"s3://{BUCKET}/renamed.txt", "-"), "one\n")


@step("mkdir, rm, rmdir")
def remove():
    (ROOT / "empty").mkdir()
    check((ROOT / "empty").is_dir(), "the new folder is not there")
    try:
        (ROOT / "moved").rmdir()
    except OSError:
        pass
    else:
        check(False, "a full folder was removed")
    (ROOT / "empty").rmdir()
    shutil.rmtree(ROOT / "moved")
    equal(sorted(files(ROOT)), ["larger", "link", "renamed.txt"])


@step("unmount, and remove the bucket")
def unmount():
    while mounts:
        mounts.pop().end()
    equal(list(ROOT.iterdir()), [])
    run("aws", "--endpoint-url", ENDPOINT, "s3", "rb", "--force", f"s3://{BUCKET}")


try:
    main(run("s3fs", "--version").split(" V")[1].split()[0])
finally:
    for left in mounts:
        left.end()
