"""The commands that the documentation shows are run: each page as one script, on a machine of its own."""

import os
import re
import signal
from pathlib import Path

import pytest
import pytest_twisted
from documents import PAGES, ROOT, blocks, commands, lines, name
from e2e.showroom import Machine, World, seconds_for
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol

# What begins so is not run, and why.
_CHANGES_THE_MACHINE = (
    "changes the machine; tests/e2e/test_packages.py and test_systemd.py try it in a root of its own"
)
NOT_RUN = {
    "apt-get install": _CHANGES_THE_MACHINE,
    "scripts/build-deb": _CHANGES_THE_MACHINE,
    "python3 -m venv": _CHANGES_THE_MACHINE,
    "/opt/sydentish/bin/pip": _CHANGES_THE_MACHINE,
    "ln -s": _CHANGES_THE_MACHINE,
    "useradd": _CHANGES_THE_MACHINE,
    "install -": _CHANGES_THE_MACHINE,
    "sed ": _CHANGES_THE_MACHINE,
    "systemctl daemon-reload": _CHANGES_THE_MACHINE,
    "docker ": "no program that builds images; tests/e2e/test_packages.py runs the steps of the Dockerfile",
    "journalctl": "systemd's log needs systemd",
    "scripts/demo": ".ci/run runs it",
    "scripts/test": "runs this test",
    "openid=$(curl": "what a client asks its homeserver, which has no clients here; the answer is made up",
}
# Pages that begin on a machine on which nothing was set up yet, but for the configuration.
NEW = {"README.md", "docs/install.md"}
SYDENT = {"docs/moving-from-sydent.md"}
# What these are answered tells of things that are made up on the page: sessions, codes and tokens.
MADE_UP = re.compile(r"/submitToken$|/sign-ed25519|/3pid/unbind$|/requestToken$")
NOT_THERE = 404
STATUS = re.compile(r"#.*\bexit status (\d+)")


def script(page: Path) -> str:
    """All blocks for the shell of a page, one after the other, each without what is not run."""
    return "\n".join(
        f"AT={block}\n" + "\n".join(map(runnable, lines(block.text))) for block in blocks(page, "sh")
    )


def runnable(line: str) -> str:
    if line.strip().startswith(tuple(NOT_RUN)):
        return ":"
    expected = STATUS.search(line)
    if expected:
        return f"status=0; {line[: expected.start()]} || status=$?; [ $status = {expected[1]} ]"
    return line


PAGES_WITH_COMMANDS = [
    page for page in PAGES if re.search(r"^(?!AT=|:$)", script(page).strip() or ":", re.MULTILINE)
]


@pytest_twisted.async_yield_fixture(scope="module")
async def world():
    world = World()
    world.start()
    yield world
    await world.stop()


@pytest_twisted.async_yield_fixture
async def machine(world, tmp_path_factory):
    # Sockets have short names.
    machine = Machine(tmp_path_factory.mktemp("docs"), world)
    yield machine
    await machine.clean_up()


class Shell(ProcessProtocol):
    """Runs a script.

    Attributes:
        output: what it wrote to either stream.
        ended: fires with its exit status.
    """

    def __init__(self, machine: Machine, text: str) -> None:
        self.output = ""
        self.ended: Deferred[int] = Deferred()
        file, answers = machine.root / "home/script", machine.root / "home/answers"
        file.write_text(text)
        # Whoever asks is answered yes.
        answers.write_text("y\n" * 10_000)
        arguments = ["bash", "-c", f"exec /bin/bash {file} <{answers}"]
        self._process = reactor.spawnProcess(
            self, "/bin/bash", arguments, env=machine.env, path=str(machine.root / "home")
        )

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode(errors="replace")

    errReceived = outReceived

    def processEnded(self, reason) -> None:
        self.ended.callback(reason.value.exitCode)


HEAD = """\
set -eEuo pipefail
trap 'echo "$AT: failed: $BASH_COMMAND"' ERR
trap 'systemctl stop' EXIT
"""


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=name)
@pytest_twisted.ensureDeferred
async def test_the_commands_of_a_page_can_be_run(machine, page):
    where = name(page)
    text = script(page)
    if where in NEW:
        machine.configure()
    elif where in SYDENT:
        machine.leave_a_sydent()
    else:
        await machine.furnish()
        text = f"AT=start\nsystemctl start\n{text}"
    shell = Shell(machine, HEAD + machine.at_home(text))
    try:
        status = await shell.ended.addTimeout(seconds_for(len(commands(text, "sydentish"))), reactor)
    finally:
        pid = machine.root / "run/pid"
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGKILL)
    assert status == 0, shell.output[-4000:]
    assert "Traceback" not in shell.output
    answers = machine.root / "run/answers"
    for line in answers.read_text().splitlines() if answers.exists() else ():
        code, url = int(line.split()[0]), line.split()[1]
        assert 200 <= code < 300 or (code in {400, 403, 404} and MADE_UP.search(url)), line


def test_what_is_not_run_is_shown():
    shown = [line.strip() for page in PAGES for block in blocks(page, "sh") for line in lines(block.text)]
    assert [begin for begin in NOT_RUN if not any(line.startswith(begin) for line in shown)] == []
    assert {page for page in NEW | SYDENT if not (ROOT / page).exists()} == set()
