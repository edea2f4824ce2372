"""Changes of signing keys in processes that are killed before any one of their steps on disk.

Run as a program, it forks a process for each change: starting an interpreter each time would take long.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from sydentish import keyfiles

STEPS = {
    "open",
    "tempfile.mkstemp",
    "os.mkdir",
    "os.chown",
    "os.chmod",
    "os.utime",
    "os.link",
    "os.rename",
    "os.remove",
}
REFUSED = 3
SURVIVED = 0


class Dying:
    """Makes changes for as long as it is entered."""

    def __enter__(self):
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def change(self, key_dir, limit, name, *arguments):
        """Makes a change; SURVIVED, REFUSED, or the negative number of the signal that has killed it.

        Args:
            key_dir: where.
            limit: after how many steps on disk it is killed; None for never.
            name: of a function of `keyfiles`, or `rotate`.
            arguments: what it gets after the directory.
        """
        print(json.dumps([str(key_dir), limit, name, arguments]), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


def rotate(key_dir, seed):
    """As the command does it."""
    leaving = keyfiles.load_keys(key_dir, "id.example.org").active.key_id
    if not keyfiles.finish_rotation(key_dir):
        keyfiles.rotate_key(key_dir, None, seed, leaving)


def generate(key_dir, version, seed, ahead):
    keyfiles.generate_key(key_dir, version, bytes.fromhex(seed), ahead=ahead)


DOES = {
    "generate": generate,
    "rotate": lambda key_dir, seed: rotate(key_dir, bytes.fromhex(seed)),
    "retire": keyfiles.retire_key,
    "revoke": keyfiles.revoke_key,
}


def die_after(limit):
    """Kills this process before the step on disk that comes after so many."""
    left = limit

    def hear(event, arguments):
        nonlocal left
        if event not in STEPS or (event == "open" and not arguments[2] & os.O_CREAT):
            return
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    sys.addaudithook(hear)


def serve():
    for line in sys.stdin:
        key_dir, limit, name, arguments = json.loads(line)
        child = os.fork()
        if not child:
            if limit is not None:
                die_after(limit)
            try:
                DOES[name](Path(key_dir), *arguments)
            except keyfiles.KeyProblem:
                os._exit(REFUSED)
            os._exit(SURVIVED)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
