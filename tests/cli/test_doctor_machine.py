"""`doctor` looks at the machine: the configuration, the database, the disk, the signing key and the clock."""

import os
import sqlite3
from contextlib import closing
from email.utils import formatdate
from pathlib import Path

import pytest
import pytest_twisted
from cli.doctoring import Patient, of, one
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from standins.ports import free_port
from store_tools import rows
from twisted.internet import reactor
from twisted.web.http_headers import Headers

from sydentish.cli import main
from sydentish.cli.doctor.clocks import Clocks
from sydentish.cli.doctor.findings import failed, ok, summary, warning
from sydentish.cli.doctor.machine import Setup, key_findings, look_at_database, look_at_setup
from sydentish.keyfiles import load_keys
from sydentish.parts.world import make_world
from sydentish.store import peers as peer_rows
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sqlite import SqliteTx, connect

KEY = "KFD2reWSKC6Ebm2yiR7VrOqp1eqGXjCigIpDw80YdD8"


@pytest.fixture
def patient(tmp_path):
    (tmp_path / "data").mkdir(mode=0o700)
    patient = Patient(tmp_path, tmp_path / "data", f"http://localhost:{free_port()}", "tcp:0")
    patient.write()
    assert CliRunner().invoke(main, ["keys", "generate", "-c", str(patient.conf)]).exit_code == 0
    return patient


@pytest.fixture
def path(patient):
    path = patient.data / "sydentish.db"
    migrate_sqlite(path, 5000, 0, shipped_steps())
    return path


async def database(patient):
    return (await look_at_database(patient.config(), make_world(reactor)))[0]


# --- the database and the disk -------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_database_is_written_and_its_disk_looked_at(patient, path):
    findings = await database(patient)
    assert [(each.check, each.result) for each in findings] == [("database", "ok"), ("disk", "ok")]
    assert rows(path, "SELECT name, value FROM counters WHERE name = 'health'") == [("health", 1)]


@pytest_twisted.ensureDeferred
async def test_without_a_database_the_remedy_is_told_and_none_is_made(patient):
    told = one(await database(patient), "database")
    assert told == (
        f"failed: {patient.data}/sydentish.db: there is none yet; start the server, which makes it: sydentish serve"
    )
    assert not (patient.data / "sydentish.db").exists()


@pytest_twisted.ensureDeferred
async def test_a_database_of_an_older_version_is_told(patient):
    migrate_sqlite(patient.data / "sydentish.db", 5000, 0, shipped_steps()[:-1])
    assert "this version needs" in one(await database(patient), "database")


@pytest_twisted.ensureDeferred
async def test_a_database_that_somebody_holds_is_told(patient, path):
    patient.sections = ["[database]\nbusy_timeout = 1s"]
    config = patient.config()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        findings, peers = await look_at_database(config, make_world(reactor))
    assert "cannot do this now: try again soon; is the disk full" in one(findings, "database")
    assert peers == []


@pytest_twisted.ensureDeferred
async def test_too_little_room_is_a_failure(patient, path):
    patient.sections = ["[health]\nmin_free_space = 9999999999M"]
    assert "are free where the database is; make room: [health] min_free_space is" in one(
        await database(patient), "disk"
    )


@pytest_twisted.ensureDeferred
async def test_the_database_of_another_server_is_told(patient, path):
    with closing(connect(path, 5000)) as connection:
        connection.execute(
            "INSERT INTO associations VALUES ('email', 'u@example.org', '@u:example.org', 1, 1, 2, 'old.example.org', 1, NULL)"
        )
    (told,) = [each for each in of(await database(patient), "database") if each.startswith("failed")]
    assert told.startswith(
        "failed: associations in it were stated as old.example.org, and [general] server_name is id.example.org; "
    )


@pytest_twisted.ensureDeferred
async def test_the_peers_that_were_added_by_command_are_known(patient, path):
    with closing(connect(path, 5000)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        added = peer_rows.Peer("a.example.net", "https://127.0.0.1:1", {"ed25519:0": KEY}, ("a.example.net",))
        peer_rows.add(SqliteTx(connection), added, 0)
        connection.execute("COMMIT")
    assert (await look_at_database(patient.config(), make_world(reactor)))[1] == [added]
    told = one(patient.examined_alone(), "peers")
    assert told.startswith("failed: nothing can be exchanged: [replication] certificate_file is not set")


# --- the configuration and the key ---------------------------------------------------------------------


def test_what_check_config_tells_comes_first(patient, tmp_path):
    patient.sections = [f"[log]\nfile = {tmp_path}/no/x.log"]
    findings = patient.examined_alone()
    assert findings[0].result == "failed"
    assert findings[0].told.endswith(f"[log] file: {tmp_path}/no: there is no such directory: make it")
    lines = CliRunner().invoke(main, ["check-config", "-c", str(patient.conf)]).output.splitlines()
    told = [each.told for each in findings if each.check == "configuration"]
    assert [line.removeprefix("warning: ") for line in lines] == [*told[1:], told[0]]


def test_a_configuration_that_cannot_be_read_ends_it_as_every_command(patient):
    patient.sections = ["[htp]"]
    patient.write()
    done = CliRunner().invoke(main, ["doctor", "-c", str(patient.conf)])
    assert done.exit_code == os.EX_CONFIG
    assert "[htp]" in done.output


def test_without_a_key_the_rest_is_looked_at(patient):
    for file in (patient.data / "keys").iterdir():
        file.unlink()
    findings = patient.examined_alone()
    assert "sydentish keys generate" in of(findings, "configuration")[0]
    assert {"database", "mail relay", "clock"} <= {each.check for each in findings}
    assert of(findings, "public URL") == of(findings, "server") == []


@pytest.mark.parametrize(
    ("problem", "is_told"),
    [
        ("/var/lib/sydentish: is no directory", True),
        ("x.conf:3: [general] data_dir: /var/lib/sydentish: is no directory", True),
        ("x.conf:3: [general] data_dir: /var/lib/sydentish/sydentish.db-wal: Permission denied", False),
        ("/var/lib/sydentish-keys: there is no signing key", False),
        ("/srv/var/lib/sydentish: is no directory", False),
    ],
)
def test_what_a_problem_is_about(problem, is_told):
    assert Setup((), (problem,)).is_told_of(Path("/var/lib/sydentish")) is is_told


@pytest.mark.parametrize("ending", ["", "-wal", "-shm", "-journal"])
def test_a_problem_of_what_is_beside_the_database_is_one_of_the_database(ending):
    setup = Setup((), (f"x.conf: [database] path: /data/sydentish.db{ending}: Permission denied",))
    assert setup.is_told_of(Path("/data/sydentish.db"))


def test_a_problem_of_another_directory_keeps_nobody_from_looking_at_the_database(patient, path):
    keys = patient.data.with_name(f"{patient.data.name}-keys")
    patient.sections = [f"[general]\nkey_dir = {keys}"]
    findings = patient.examined_alone()
    assert f"{keys}: " in of(findings, "configuration")[0]
    assert one(findings, "database").startswith("ok: ")


def test_a_key_that_others_can_have_is_a_failure(patient):
    folder = patient.data / "keys"
    config = patient.config()
    keys = load_keys(folder, "id.example.org")
    assert [each.result for each in key_findings(config, keys)] == ["ok"]
    (folder / "ed25519_0.key").chmod(0o644)
    folder.chmod(0o777)
    told = of(key_findings(config, keys), "signing key")
    assert "its mode 0644 lets others read or change the signing key: chmod 600" in told[0]
    assert "its mode 0777 lets others replace the signing key: chmod 700" in told[1]
    assert [each.check for each in look_at_setup(config, patient.conf).findings if "0644" in each.told] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_is_told_that_it_may_more_than_the_server(patient):
    assert [
        each for each in look_at_setup(patient.config(), patient.conf).findings if each.check == "user"
    ] == []
    os.chown(patient.data, 65534, -1)
    (told,) = [
        each for each in look_at_setup(patient.config(), patient.conf).findings if each.check == "user"
    ]
    assert "this is root" in told.told
    assert told.remedy.startswith("run it as ")


@pytest.mark.parametrize("options", [["--homeserver", "a b"], ["--ca-file", "/nowhere.pem"]])
def test_options_are_read_as_in_the_configuration(patient, options):
    done = CliRunner().invoke(main, ["doctor", *options, "-c", str(patient.conf)])
    assert done.exit_code == 2


# --- the clock -----------------------------------------------------------------------------------------

NOW_MS = 1_800_000_000_000


def judged(offset_ms, took_ms=0):
    """What is said when the other clock shows so much more than ours, and the answer takes so long."""
    clocks = Clocks()
    # They answer in the middle.
    theirs = NOW_MS + took_ms // 2 + offset_ms
    headers = Headers({"Date": [formatdate(theirs // 1000, usegmt=True)]})
    clocks.note("hs", headers, NOW_MS, NOW_MS + took_ms)
    (finding,) = clocks.findings(NOW_MS)
    return finding


@given(st.integers(-4000, 4000), st.integers(0, 20_000))
def test_a_clock_that_is_right_is_never_said_to_be_wrong(offset_ms, took_ms):
    assert judged(offset_ms, took_ms).result == "ok"


@given(st.integers(63_000, 10**9), st.booleans(), st.integers(0, 2000))
def test_a_clock_that_is_a_minute_wrong_is_a_failure_with_the_right_sign(offset_ms, ahead, took_ms):
    finding = judged(offset_ms if ahead else -offset_ms, took_ms)
    assert finding.result == "failed"
    assert f" s {'behind' if ahead else 'ahead of'} that of hs" in finding.told
    assert "NTP" in finding.remedy


def test_a_few_seconds_are_a_warning_and_nobody_to_ask_is_one():
    assert judged(20_000).result == judged(-20_000).result == "warning"
    clocks = Clocks()
    clocks.note("hs", Headers({"Date": ["yesterday"]}), NOW_MS, NOW_MS)
    (finding,) = clocks.findings(NOW_MS)
    assert (finding.result, finding.told) == (
        "warning",
        "nobody has told the time; here it is 2027-01-15 08:00:00 UTC",
    )


# --- what it says at the end ---------------------------------------------------------------------------


def test_the_last_line_counts():
    well, odd, wrong = ok("a", ""), warning("a", ""), failed("a", "")
    assert summary([well]) == "All is well: 1 finding, and nothing to do."
    assert summary([well, odd]) == "no failures and 1 warning in 2 findings."
    assert summary([odd, odd, wrong]) == "1 failure and 2 warnings in 3 findings."
