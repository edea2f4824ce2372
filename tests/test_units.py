"""The units for systemd, judged by its own tools; a service is started by them in `e2e/test_systemd.py`."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from standins.systemd import Unit
from tools import tool

from sydentish.config import sections

SCRIPTS = Path(__file__).parents[1] / "scripts"
SERVICE, SOCKET = SCRIPTS / "sydentish.service", SCRIPTS / "sydentish.socket"
TARGETS = Path("/usr/lib/systemd/system")
MOST_EXPOSED = 2.0


def run(program, *arguments):
    command = [tool(program, "systemd"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def root(tmp_path):
    """A root with the units, what they start, and the targets of the system."""
    units = tmp_path / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for unit in (SERVICE, SOCKET, *TARGETS.glob("*.target")):
        shutil.copy(unit, units)
    for program in ("usr/bin/sydentish", "bin/kill"):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o755)
    return tmp_path


def test_systemd_has_nothing_against_the_units(root):
    done = run("systemd-analyze", "verify", f"--root={root}", SERVICE.name, SOCKET.name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verify_would_have_said_what_is_wrong(root):
    unit = root / "usr/lib/systemd/system" / SERVICE.name
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchdogSecond="))
    assert "WatchdogSecond" in run("systemd-analyze", "verify", f"--root={root}", SERVICE.name).stderr


def test_the_service_sees_what_its_metrics_of_the_process_are_made_of():
    """Without /proc/stat they are missing, all of them, and alerts that ask for them are silent."""
    assert not re.search(r"^ProcSubset=", SERVICE.read_text(), re.MULTILINE)


def test_the_service_is_exposed_to_little():
    done = run(
        "systemd-analyze",
        "security",
        "--offline=true",
        "--no-pager",
        f"--threshold={MOST_EXPOSED * 10:.0f}",
        str(SERVICE),
    )
    (level,) = re.findall(r"Overall exposure level for sydentish.service: (\d+\.\d+)", done.stdout)
    assert done.returncode == 0
    assert float(level) <= MOST_EXPOSED


def test_the_service_may_take_as_long_to_stop_as_the_server_does():
    unit = Unit.read(SERVICE)
    stop_timeout = sections.Http.__dataclass_fields__["stop_timeout"].default_factory()
    assert int(unit.one("Service", "TimeoutStopSec")) * 1000 > stop_timeout + 5000


def test_a_database_that_only_waits_for_another_process_is_not_taken_for_a_hung_one():
    """The writer turns at least once in such a time: much more often than the watchdog looks."""
    unit = Unit.read(SERVICE)
    busy_timeout = sections.Database.__dataclass_fields__["busy_timeout"].default_factory()
    assert int(unit.one("Service", "WatchdogSec")) * 1000 / 2 > 3 * busy_timeout


def test_the_documentation_is_where_the_package_puts_it():
    """The package has the documents as they lie here."""
    pages = [page for page in Unit.read(SERVICE).one("Unit", "Documentation").split() if "://" not in page]
    (page,) = [page.removeprefix("file:/usr/share/doc/sydentish/") for page in pages]
    assert (SCRIPTS.parent / page).is_file()


def test_nothing_that_is_missing_keeps_the_service_from_starting():
    """A credential with a path must be there; one without is left out where it is not."""
    unit = Unit.read(SERVICE)
    credentials = unit.all("Service", "LoadCredential")
    assert credentials
    assert all(":" not in each for each in credentials)


def test_the_socket_is_the_service_s_and_has_the_name_of_the_documentation():
    assert SOCKET.stem == SERVICE.stem
    name = Unit.read(SOCKET).one("Socket", "FileDescriptorName")
    assert f"systemd:name={name}" in SOCKET.read_text()
    assert f"systemd:name={name}" in (SCRIPTS.parent / "docs/systemd.md").read_text()
