"""Debian systems of their own, below a directory: without anything, and with what a Dockerfile or a package brings."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from tools import tool

# How this machine reaches the network is how they do; it may trust authorities of its own.
NETWORK = {"etc/resolv.conf": "etc/resolv.conf", "etc/hosts": "etc/hosts"}
AUTHORITIES = {"etc/ssl/certs/ca-certificates.crt": "run/authorities.pem"}
LONG = 600


class Root:
    """A system below a directory, entered by chroot.

    Attributes:
        path: the directory.
        env: the environment of what runs there.
        user: who runs it.
        folder: where it runs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND": "noninteractive",
            "LC_ALL": "C.UTF-8",
        }
        self.user = "root"
        self.folder = "/"

    def connect(self) -> None:
        """Gives it the network that this machine has."""
        for name, there in {**NETWORK, **AUTHORITIES}.items():
            source, target = Path("/", name), self.path / there
            if source.exists() and not target.exists():
                shutil.copyfile(source, target)
        for there in AUTHORITIES.values():
            self.env |= {"PIP_CERT": f"/{there}", "SSL_CERT_FILE": f"/{there}"}
        self.env |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}

    def command(self, *arguments: str) -> list[str]:
        """What runs a command there."""
        inner = f"cd {shlex.quote(self.folder)} && exec {shlex.join(arguments)}"
        user = [] if self.user == "root" else ["--userspec", f"{self.user}:{self.user}"]
        clean = ["env", "-i", *(f"{name}={value}" for name, value in self.env.items())]
        return ["chroot", *user, str(self.path), *clean, "/bin/sh", "-c", inner]

    def run(self, *arguments: str, check: bool = True, **options) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=LONG, check=False, **options
        )
        assert not check or done.returncode == 0, (
            f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
        )


def plain_debian(archive: Path) -> Path:
    """A tar of a system with nothing but apt."""
    make = tool("mmdebstrap", "mmdebstrap")
    done = subprocess.run(
        [make, "--quiet", "--variant=apt", "bookworm", str(archive)],
        capture_output=True, text=True, timeout=LONG, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return archive


def unpacked(archive: Path, folder: Path) -> Root:
    folder.mkdir()
    subprocess.run(["tar", "-C", str(folder), "-xf", str(archive)], check=True)
    root = Root(folder)
    root.connect()
    return root
