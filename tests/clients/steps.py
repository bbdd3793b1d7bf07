"""What the scripts share: the server to talk to, and steps that each pass or fail on their own.

A step's line on standard output is `ok SECONDS NAME` or `failed NAME: WHY`; `cargo xtask clients` counts them. It also sets
the environment: S3_ENDPOINT, the AWS_ variables of the tenant's key, and WORK, an empty folder that is HOME too.
"""

import filecmp
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

ENDPOINT = os.environ.get("S3_ENDPOINT") or sys.exit("S3_ENDPOINT is not set: run `cargo xtask clients`")
ADDRESS = ENDPOINT.removeprefix("http://")
ACCESS_KEY = os.environ["AWS_ACCESS_KEY_ID"]
SECRET_KEY = os.environ["AWS_SECRET_ACCESS_KEY"]
REGION = os.environ["AWS_REGION"]
WORK = pathlib.Path(os.environ["WORK"])
MIB = 1 << 20
PATIENCE = 120

found = []


def step(name):
    """Makes a function a step; steps run in the order in which they are written."""
    return lambda function: found.append((name, function))


# Told to end, a script still puts away what it has mounted and started.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def main(version):
    """Runs every step, a failed one too not ending the run, and exits with 1 when one failed."""
    print("version", version, flush=True)
    failed = 0
    for name, function in found:
        began = time.monotonic()
        try:
            function()
        except Exception as error:  # whatever a client raises is the step's failure
            failed += 1
            said = " ".join(str(error).split()) or "no words"
            print(f"failed {name}: {type(error).__name__}: {said[:600]}", flush=True)
        else:
            print(f"ok {time.monotonic() - began:.2f} {name}", flush=True)
    sys.exit(1 if failed else 0)


class Failed(Exception):
    """A command ended badly, or well where it must not."""


def run(*command, text=None):
    """Runs a command to its end and returns what it printed; raises with what it said when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode != 0:
        raise Failed(f"`{' '.join(words)}` ended with {done.returncode}: {(done.stderr.strip() or done.stdout)[-500:]}")
    return done.stdout


def refused(*command):
    """Runs a command that must fail, and returns what it said."""
    try:
        run(*command)
    except Failed as error:
        return str(error)
    raise Failed(f"`{' '.join(map(str, command))}` succeeded")


def check(holds, what):
    """Fails the step with `what` unless `holds`."""
    if not holds:
        raise Failed(what)


def equal(found_value, wanted):
    """Fails the step unless both are the same."""
    check(found_value == wanted, f"{short(found_value)} came instead of {short(wanted)}")


def short(value):
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text)} characters)"


def noise(seed, length):
    """Bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(length)


def file(name, content):
    """Writes a file below WORK, an hour old, with the folders on its way; returns its path.

    S3 tells times in whole seconds: to a client that compares times, a file of this second is newer than its own copy.
    """
    path = WORK / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    hour_ago = time.time() - 3600
    os.utime(path, (hour_ago, hour_ago))
    return path


def tree(name, files=60):
    """A folder of small files with blanks, unicode and depth in their names; returns its path."""
    for number in range(files):
        leaf = f"sub {number % 7}/häß+{number:03}.bin" if number % 3 else f"{number:03}.txt"
        file(f"{name}/{leaf}", noise(number, number * 211))
    return WORK / name


def files(folder):
    """The paths of the files below a folder, relative to it."""
    folder = pathlib.Path(folder)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def same(left, right):
    """Fails the step unless both folders hold the same files with the same bytes."""
    equal(files(right), files(left))
    names = files(left)
    _, other, unread = filecmp.cmpfiles(left, right, names, shallow=False)
    check(not other and not unread, f"these came back different: {other + unread}")
