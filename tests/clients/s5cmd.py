"""Proves that s5cmd works unchanged: copies with wildcards both ways, parts, sync with --delete, ls, du, cat, mv, presign,
batches of commands, and rm. Its only settings are the endpoint and the key."""

import urllib.request

from steps import ENDPOINT, MIB, WORK, check, equal, file, main, noise, refused, run, same, step, tree

BUCKET = "s3://s5cmd"


def s5(*words, text=None):
    return run("s5cmd", "--endpoint-url", ENDPOINT, *words, text=text)


@step("mb and ls")
def make():
    s5("mb", BUCKET)
    check(BUCKET in s5("ls"), "the new bucket is not listed")


@step("cp a folder up, cp with a wildcard down")
def wildcard():
    folder = tree("tree")
    s5("cp", f"{folder}/", f"{BUCKET}/tree/")
    s5("cp", f"{BUCKET}/tree/*", f"{WORK}/back/")
    same(folder, WORK / "back")
    s5("cp", f"{BUCKET}/tree/*.txt", f"{WORK}/texts/")
    equal(len(list((WORK / "texts").iterdir())), 20)


@step("cp in parts")
def parts():
    path = file("large", noise(1, 33 * MIB + 3))
    s5("cp", "--part-size", "5", "--concurrency", "6", path, f"{BUCKET}/large")
    s5("cp", "--part-size", "5", f"{BUCKET}/large", WORK / "large.back")
    check((WORK / "large.back").read_bytes() == path.read_bytes(), "other bytes came back")


@step("sync, and sync --delete")
def sync():
    folder = WORK / "tree"
    equal(s5("sync", f"{folder}/", f"{BUCKET}/tree/"), "")
    (folder / "000.txt").unlink()
    file("tree/fresh.txt", b"fresh")
    said = s5("sync", "--delete", f"{folder}/", f"{BUCKET}/tree/").splitlines()
    equal(sorted(line.split()[0] for line in said), ["cp", "rm"])
    s5("sync", "--delete", f"{BUCKET}/tree/*", f"{WORK}/back/")
    same(folder, WORK / "back")


@step("ls, du, cat, head")
def look():
    equal(len(s5("ls", f"{BUCKET}/tree/*").splitlines()), 60)
    total = sum(path.stat().st_size for path in (WORK / "tree").rglob("*") if path.is_file())
    equal(s5("du", f"{BUCKET}/tree/*").split()[0], str(total))
    equal(s5("cat", f"{BUCKET}/tree/fresh.txt"), "fresh")
    check('"size":5' in s5("head", f"{BUCKET}/tree/fresh.txt").replace(" ", ""), "another size")


@step("cp and mv within the server")
def server_side():
    s5("cp", f"{BUCKET}/tree/*", f"{BUCKET}/copied/")
    s5("mv", f"{BUCKET}/copied/fresh.txt", f"{BUCKET}/moved/fresh.txt")
    equal(s5("cat", f"{BUCKET}/moved/fresh.txt"), "fresh")
    check("no object found" in refused("s5cmd", "--endpoint-url", ENDPOINT, "ls", f"{BUCKET}/copied/fresh.txt"), "still there")


@step("pipe, and a signed address")
def pipe():
    s5("pipe", f"{BUCKET}/piped", text="by the pipe")
    with urllib.request.urlopen(s5("presign", "--expire", "1m", f"{BUCKET}/piped").strip(), timeout=30) as answer:
        equal(answer.read(), b"by the pipe")


@step("run a batch of commands")
def batch():
    lines = "".join(f"cp {WORK}/large {BUCKET}/batch/{number}\n" for number in range(4))
    s5("run", text=lines)
    equal(len(s5("ls", f"{BUCKET}/batch/").splitlines()), 4)


@step("rm and rb")
def remove():
    s5("rm", f"{BUCKET}/tree/*.txt")
    check(".txt" not in s5("ls", f"{BUCKET}/tree/*"), "some are left")
    s5("rm", f"{BUCKET}/*")
    s5("rb", BUCKET)
    check(BUCKET not in s5("ls"), "the bucket is still listed")


main(run("s5cmd", "version").split("-")[0].removeprefix("v").strip())
