"""What is handed out: wheel, sdist, Debian package and container image, each installed where there is nothing else."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import orjson
import pytest
from e2e.debian import LONG, Root, plain_debian, unpacked
from e2e.dockerfile import Build
from standins.ports import free_port

TOP = Path(__file__).parents[2]
SECONDS = 60
CONF = "/etc/sydentish/sydentish.conf"
USER = "sydentish"

pytestmark = [pytest.mark.packages, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The sources as they are checked out, and nothing that lies beside them."""
    folder = tmp_path_factory.mktemp("tree") / "sydentish"
    listed = subprocess.run(
        ["git", "-C", str(TOP), "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        capture_output=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("the sources are no checkout")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (TOP / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TOP / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def distributions(tree, tmp_path_factory):
    """A wheel that was made from the sdist, and the sdist."""
    if os.environ.get("SYDENTISH_REQUIRE_PACKAGES") != "1":
        pytest.skip("building needs the network: SYDENTISH_REQUIRE_PACKAGES=1")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", str(folder), str(tree))
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def debian(tmp_path_factory):
    if os.environ.get("SYDENTISH_REQUIRE_PACKAGES") != "1":
        pytest.skip("building needs the network: SYDENTISH_REQUIRE_PACKAGES=1")
    if os.geteuid() != 0:
        pytest.skip("only root may enter a system of its own")
    return plain_debian(tmp_path_factory.mktemp("debian") / "debian.tar")


def run(*arguments, **options):
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=LONG, check=False, **options)
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def fetch(url):
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        return answer.status, answer.read()


def serves(process, port):
    """Waits until a server says that it is ready, and asks it who it is."""
    for line in process.stdout:
        if "is ready" in line:
            break
    else:
        pytest.fail("it ended without being ready")
    status, body = fetch(f"http://127.0.0.1:{port}/_matrix/identity/v2/pubkey/ed25519:0")
    assert (status, list(orjson.loads(body))) == (200, ["public_key"])


def ends(process):
    process.send_signal(signal.SIGTERM)
    process.stdout.read()
    assert process.wait(SECONDS) == 0


def test_the_wheel_is_all_that_is_needed(distributions, tmp_path):
    wheel, sdist = distributions
    with zipfile.ZipFile(wheel) as archive, tarfile.open(sdist) as source:
        inside = set(archive.namelist())
        names = {name.partition("/")[2] for name in source.getnames()}
    modules = {str(path.relative_to(TOP)) for path in (TOP / "sydentish").rglob("*.py")}
    assert modules <= inside
    assert {
        name.replace("res/templates/", "sydentish/templates/") for name in names if "res/templates/d" in name
    } - {"sydentish/templates/default"} <= inside
    assert not [
        name
        for name in inside
        if name.split("/")[0] not in {"sydentish", wheel.name.rsplit("-", 3)[0] + ".dist-info"}
    ]
    assert {"sydentish.conf.sample", "LICENSE", "docs/install.md", "scripts/sydentish.service"} <= names
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", str(environment))
    run(str(environment / "bin" / "pip"), "install", "--quiet", str(wheel))
    command, port = str(environment / "bin" / "sydentish"), free_port()
    conf = tmp_path / "sydentish.conf"
    conf.write_text(
        "[general]\nserver_name = id.example.org\npublic_base_url = https://id.example.org\n"
        f"data_dir = {tmp_path}/data\n[http]\nlisteners = tcp:{port}:interface=127.0.0.1\n"
    )
    assert "version" in run(command, "--version", cwd=tmp_path)
    run(command, "keys", "generate", "-c", str(conf), cwd=tmp_path)
    process = subprocess.Popen(
        [command, "serve", "-c", str(conf)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
    )  # fmt: skip
    with process:
        serves(process, port)
        ends(process)


@pytest.fixture(scope="module")
def installed(debian, tree, tmp_path_factory):
    """A system in which the Debian package was installed, and what that has said."""
    folder = tmp_path_factory.mktemp("package")
    package = run("bash", str(tree / "scripts" / "build-deb"), str(folder)).strip()
    root = unpacked(debian, folder / "root")
    root.run("apt-get", "-qq", "update")
    root.run(
        "apt-get",
        "-qq",
        "install",
        "--yes",
        "--no-install-recommends",
        "python3",
        "adduser",
        "ca-certificates",
        "procps",
        "systemd",
    )
    root.said = run("dpkg", f"--root={root.path}", "--install", package)
    return root


def as_user(root: Root, *arguments, **options):
    return root.run("runuser", "-u", USER, "--", *arguments, **options)


def test_the_debian_package_serves_once_it_is_configured(installed):
    root = installed
    # What it says is what helps, in that order.
    assert "make its signing key:  runuser -u sydentish -- sydentish keys generate" in installed.said
    conf = root.path / CONF.lstrip("/")
    assert oct(conf.stat().st_mode & 0o777) == "0o640"
    port = free_port()
    # Unconfigured, it says what is missing.
    assert "server_name: must be set" in as_user(root, "sydentish", "check-config", check=False).stderr
    text = re.sub("^#(server_name|public_base_url) =", r"\1 =", conf.read_text(), flags=re.MULTILINE)
    conf.write_text(text.replace("#listeners = tcp:8090:", f"listeners = tcp:{port}:"))
    as_user(root, "sydentish", "keys", "generate")
    assert "ok" in as_user(root, "sydentish", "check-config").stdout
    refused = as_user(root, "sh", "-c", "echo x >/usr/lib/sydentish/x", check=False)
    assert refused.returncode != 0
    server = Root(root.path)
    server.user = USER
    with server.start("sydentish", "serve") as process:
        serves(process, port)
        as_user(root, "sydentish", "backup", "/var/lib/sydentish/copy.db")
        ends(process)
    written = root.run("find", "/usr/lib/sydentish", "-newer", CONF).stdout
    assert written == ""


def test_nothing_of_the_place_where_it_was_built_is_in_the_package(installed):
    found = installed.run(
        "grep",
        "-rlI",
        "-e",
        "/tmp/",
        "-e",
        str(TOP),
        "/usr/lib/sydentish/bin",
        "/usr/share/doc/sydentish",
        check=False,
    )
    assert found.stdout == ""
    config = (installed.path / "usr/lib/sydentish/pyvenv.cfg").read_text()
    assert config == "home = /usr/bin\ninclude-system-site-packages = false\n"


def test_systemd_has_nothing_against_the_units_of_the_package(installed):
    for unit in ("sydentish.service", "sydentish.socket"):
        done = installed.run("systemd-analyze", "verify", "--man=no", f"/lib/systemd/system/{unit}")
        assert (done.stdout, done.stderr) == ("", "")


def test_removing_the_package_keeps_the_keys_and_purging_says_so(installed):
    root = installed
    assert run("dpkg", f"--root={root.path}", "--remove", "sydentish")
    assert not (root.path / "usr/lib/sydentish").exists()
    assert (root.path / CONF.lstrip("/")).exists()
    done = subprocess.run(
        ["dpkg", f"--root={root.path}", "--purge", "sydentish"],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=True,
    )
    assert "/var/lib/sydentish" in done.stderr
    assert not (root.path / CONF.lstrip("/")).exists()
    assert (root.path / "var/lib/sydentish/keys").is_dir()


def test_the_container_runs_without_privileges_and_tells_its_health(debian, tree, tmp_path):
    build = Build(tree, debian, tmp_path / "image")
    build._folder.mkdir()
    root = build.run(tree / "scripts" / "Dockerfile").root
    command = [*build.settings["entrypoint"], *build.settings["cmd"]]
    assert root.user == USER
    # Unconfigured, it says what is missing.
    missing = root.run(*command, check=False)
    assert missing.returncode == os.EX_CONFIG
    assert "server_name" in missing.stderr
    port, metrics_port = free_port(), free_port()
    root.env |= {
        "SYDENTISH_GENERAL__SERVER_NAME": "id.example.org",
        "SYDENTISH_GENERAL__PUBLIC_BASE_URL": "https://id.example.org",
        # Containers have ports of their own; here they are shared.
        "SYDENTISH_HTTP__LISTENERS": f"tcp:{port}",
        "SYDENTISH_HTTP__METRICS_LISTENERS": f"tcp:{metrics_port}",
    }
    root.run("sydentish", "keys", "generate")
    process = root.start(*command)
    healthy = [each.replace("9110", str(metrics_port)) for each in build.settings["healthcheck"]]
    with process:
        serves(process, port)
        root.run(*healthy)
        ends(process)
    assert root.run(*healthy, check=False).returncode != 0
