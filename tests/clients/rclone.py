"""Proves that rclone works unchanged: sync and check (by ETag and by content), many small files, uploads in parts, moves and
copies within the server, deletes and purges. Its only settings are the endpoint, the key and path style."""

import os

from steps import ACCESS_KEY, ENDPOINT, MIB, REGION, SECRET_KEY, WORK, check, equal, file, main, noise, refused, run, same
from steps import step, tree

BUCKET = "s3:rclone"
SETTINGS = {
    "type": "s3", "provider": "Other", "endpoint": ENDPOINT, "region": REGION,
    "access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY, "upload_cutoff": "12Mi", "chunk_size": "5Mi",
}
os.environ["RCLONE_CONFIG"] = str(WORK / "rclone.conf")
os.environ["RCLONE_RETRIES"] = "1"
(WORK / "rclone.conf").write_text("[s3]\n" + "".join(f"{name} = {value}\n" for name, value in SETTINGS.items()))


def rclone(*words):
    return run("rclone", *words)


@step("mkdir and lsd")
def make():
    rclone("mkdir", BUCKET)
    check("rclone" in rclone("lsd", "s3:"), "the new bucket is not listed")


@step("sync up and check, by ETag and by content")
def sync():
    folder = tree("tree")
    file("tree/large.bin", noise(1, 23 * MIB + 11))
    rclone("sync", folder, f"{BUCKET}/tree")
    rclone("check", folder, f"{BUCKET}/tree")
    rclone("check", "--download", folder, f"{BUCKET}/tree")
    equal(rclone("md5sum", f"{BUCKET}/tree").count("large.bin"), 1)


@step("a second sync moves nothing, also by checksum")
def again():
    for extra in ([], ["--checksum"]):
        said = run("rclone", "sync", "--dry-run", *extra, WORK / "tree", f"{BUCKET}/tree")
        equal(said, "")
    stamp = (WORK / "tree/000.txt").stat().st_mtime_ns // 1_000_000
    listed = rclone("lsf", "--format", "tp", "--time-format", "unixmilli", f"{BUCKET}/tree/000.txt") if newer() else None
    check(listed is None or str(stamp) in listed, f"another modification time: {listed} for {stamp}")


def newer():
    """Whether this rclone can print times as numbers."""
    return "unixmilli" in run("rclone", "lsf", "--help")


@step("sync follows changes and deletes")
def follow():
    folder = WORK / "tree"
    (folder / "000.txt").unlink()
    file("tree/003.txt", b"changed")
    rclone("sync", folder, f"{BUCKET}/tree")
    check("000.txt" not in rclone("lsf", "-R", f"{BUCKET}/tree"), "a deleted file is still there")
    rclone("sync", f"{BUCKET}/tree", WORK / "tree.back")
    same(folder, WORK / "tree.back")


@step("check finds a difference")
def differ():
    file("other/003.txt", b"CHANGED")
    said = refused("rclone", "check", "--include", "003.txt", WORK / "other", f"{BUCKET}/tree")
    check("1 differences found" in said, said)


@step("many small files")
def many():
    for number in range(400):
        file(f"many/{number % 20}/{number:04}", noise(number, number))
    rclone("copy", "--transfers", "16", "--checkers", "16", WORK / "many", f"{BUCKET}/many")
    equal(rclone("size", "--json", f"{BUCKET}/many").split(",")[0], '{"count":400')
    rclone("check", "--one-way", WORK / "many", f"{BUCKET}/many")


@step("copy within the server, in one piece and in parts")
def server_side():
    rclone("copy", f"{BUCKET}/tree", f"{BUCKET}/copied", "--s3-copy-cutoff", "10Mi")
    rclone("check", "--download", f"{BUCKET}/tree", f"{BUCKET}/copied")


@step("move within the server")
def move():
    rclone("move", f"{BUCKET}/copied", f"{BUCKET}/moved")
    equal(rclone("lsf", f"{BUCKET}/copied"), "")
    rclone("check", WORK / "tree", f"{BUCKET}/moved")
    rclone("moveto", f"{BUCKET}/moved/003.txt", f"{BUCKET}/moved/renamed.txt")
    equal(rclone("cat", f"{BUCKET}/moved/renamed.txt"), "changed")


@step("rcat, cat a range, touch a file's time")
def pipe():
    run("rclone", "rcat", f"{BUCKET}/piped", text="0123456789")
    equal(rclone("cat", "--offset", "3", "--count", "4", f"{BUCKET}/piped"), "3456")
    rclone("touch", "--timestamp", "2001-02-03T04:05:06", f"{BUCKET}/piped")
    check("2001-02-03 04:05:06" in rclone("lsl", f"{BUCKET}/piped"), "the new time is not kept")


@step("link (a signed address)")
def link():
    import urllib.request

    with urllib.request.urlopen(rclone("link", "--expire", "1m", f"{BUCKET}/piped").strip(), timeout=30) as answer:
        equal(answer.read(), b"0123456789")


@step("delete, purge, cleanup")
def remove():
    rclone("delete", "--include", "*.txt", f"{BUCKET}/moved")
    check(".txt" not in rclone("lsf", "-R", f"{BUCKET}/moved"), "some are left")
    rclone("purge", f"{BUCKET}/many")
    rclone("cleanup", BUCKET)
    rclone("purge", BUCKET)
    check("rclone" not in rclone("lsd", "s3:"), "the bucket is still listed")


main(run("rclone", "version").split()[1].removeprefix("v"))
