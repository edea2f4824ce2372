"""Runs the steps of a Dockerfile in systems of their own: only as much of its language as ours uses."""

import json
import shlex
import shutil
from pathlib import Path

from e2e.debian import Root, unpacked


class Build:
    """What comes of a Dockerfile.

    Attributes:
        stages: the systems, by name or number.
        settings: what the last stage says of how it is run: entrypoint, command, healthcheck, volumes, ports.
    """

    def __init__(self, context: Path, debian: Path, folder: Path) -> None:
        self._context = context
        self._debian = debian
        self._folder = folder
        self.stages: dict[str, Root] = {}
        self.settings: dict[str, list[str]] = {}
        self._root: Root | None = None

    @property
    def root(self) -> Root:
        """The system of the stage that was begun last."""
        assert self._root is not None, "a Dockerfile begins with FROM"
        return self._root

    def run(self, dockerfile: Path) -> "Build":
        text = dockerfile.read_text().replace("\\\n", " ")
        for line in text.splitlines():
            if line and not line.startswith("#"):
                word, _, rest = line.partition(" ")
                getattr(self, f"_{word.lower()}")(rest.strip())
        return self

    def _from(self, rest: str) -> None:
        image, *name = rest.split(" AS ")
        assert image == "debian:bookworm-slim", image
        number = str(len(self.stages))
        self._root = unpacked(self._debian, self._folder / number)
        self.stages[name[0] if name else number] = self._root
        self.settings = {}

    def _run(self, rest: str) -> None:
        self.root.run("/bin/sh", "-ec", rest)

    def _workdir(self, rest: str) -> None:
        (self.root.path / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        self.root.folder = rest

    def _copy(self, rest: str) -> None:
        words = rest.split()
        source = self._context
        if words[0].startswith("--from="):
            source = self.stages[words.pop(0).removeprefix("--from=")].path
        *names, target = words
        place = self.root.path / Path(self.root.folder, target).relative_to("/")
        for name in names:
            self._copy_one(source / name.lstrip("/"), place, into=target.endswith("/"))

    def _copy_one(self, source: Path, place: Path, *, into: bool) -> None:
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True, ignore=ignored)
            return
        place = place / source.name if into else place
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, place)

    def _env(self, rest: str) -> None:
        self.root.env.update(each.split("=", 1) for each in shlex.split(rest))

    def _user(self, rest: str) -> None:
        self.root.user = rest

    def _healthcheck(self, rest: str) -> None:
        self.settings["healthcheck"] = json.loads(rest[rest.index("CMD ") + 4 :])

    def _entrypoint(self, rest: str) -> None:
        self.settings["entrypoint"] = json.loads(rest)

    def _cmd(self, rest: str) -> None:
        self.settings["cmd"] = json.loads(rest)

    def _volume(self, rest: str) -> None:
        self.settings["volume"] = rest.split()

    def _expose(self, rest: str) -> None:
        self.settings["expose"] = rest.split()

    def _stopsignal(self, rest: str) -> None:
        self.settings["stopsignal"] = [rest]
