"""A bucket mounted by `bedplate mount`, for the scripts that use one: BEDPLATE names the program, BEDPLATE_URL the appliance, and
BEDPLATE_DATA the folder with its operator's key."""

import contextlib
import json
import os
import subprocess
import time

from steps import ACCESS_KEY, ENDPOINT, SECRET_KEY, WORK, check, run

PROGRAM = os.environ["BEDPLATE"]
os.environ.update(BEDPLATE_S3_URL=ENDPOINT, BEDPLATE_ACCESS_KEY=ACCESS_KEY, BEDPLATE_SECRET_KEY=SECRET_KEY)


def bedplate(*words):
    """Runs a command of bedplate's, and returns what it printed."""
    return run(PROGRAM, *words)


def snapshot(bucket, name):
    """Keeps a bucket as it is: the operator's part."""
    own = ["env", "-u", "BEDPLATE_ACCESS_KEY", "-u", "BEDPLATE_SECRET_KEY"]
    run(*own, PROGRAM, "snapshot", "create", bucket, name)


def figures(folder):
    """What a mount has done so far."""
    return json.loads(bedplate("--output", "json", "mount", "--stats", folder))


@contextlib.contextmanager
def mounted(place, *options):
    """A mount in the foreground, unmounted and ended by its id whatever happens."""
    folder = WORK / f"mnt-{place.replace('/', '-')}"
    folder.mkdir(exist_ok=True)
    words = [PROGRAM, "mount", place, str(folder), "--cache", str(WORK / "chunks"), *options]
    with open(WORK / "mount.log", "ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        limit = time.monotonic() + 30
        while not os.path.ismount(folder):
            said = (WORK / "mount.log").read_text()[-400:]
            check(process.poll() is None and time.monotonic() < limit, f"it did not mount: {said}")
            time.sleep(0.05)
        yield folder
    finally:
        process.terminate()
        try:
            check(process.wait(timeout=30) == 0, f"the mount ended with {process.returncode}")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)
