"""`check-config`: what it tells of the file, of what the file names, and with which status."""

import os

import pytest
from click.testing import CliRunner
from unprivileged import unprivileged_folder

from sydentish.cli import main

INIT = "or start once with: sydentish serve --init"
MINIMUM = "[general]\nserver_name = example.org\npublic_base_url = https://id.example.org\n"


@pytest.fixture
def conf(tmp_path):
    file = tmp_path / "sydentish.conf"
    (tmp_path / "data").mkdir()
    file.write_text(f"{MINIMUM}data_dir = {tmp_path}/data\n")
    return file


def checked(*arguments):
    done = CliRunner().invoke(main, ["check-config", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.output.splitlines()


def with_key(conf):
    assert CliRunner().invoke(main, ["keys", "generate", "-c", str(conf)]).exit_code == 0


def everything_in(folder):
    return {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def test_what_is_right_is_ok(conf):
    with_key(conf)
    before = everything_in(conf.parent)
    assert checked("-c", conf) == (0, [f"{conf}: ok"])
    assert everything_in(conf.parent) == before


def test_a_file_that_is_not_there(tmp_path):
    status, lines = checked("-c", tmp_path / "no.conf")
    assert status == os.EX_CONFIG
    (line,) = lines
    assert line.startswith(f"{tmp_path}/no.conf: cannot be read: No such file or directory; ")
    assert "-c" in line
    assert "sydentish.conf.sample" in line


def test_a_directory(tmp_path):
    assert checked("-c", tmp_path) == (os.EX_CONFIG, [f"{tmp_path}: cannot be read: Is a directory"])


@pytest.mark.parametrize("command", [["check-config"], ["serve"], ["keys", "generate"]])
def test_an_empty_name(command):
    done = CliRunner().invoke(main, [*command, "-c", ""])
    assert (done.exit_code, done.output) == (
        os.EX_CONFIG,
        "-c: must name the configuration file, but is empty\n",
    )


def test_a_file_that_may_not_be_read():
    with unprivileged_folder() as (folder, unprivileged):
        file = folder / "sydentish.conf"
        file.write_text(MINIMUM)
        file.chmod(0o600)
        with unprivileged(file):
            told = checked("-c", file)
    assert told == (os.EX_CONFIG, [f"{file}: cannot be read: Permission denied"])


def test_all_mistakes_in_templates_and_the_surroundings_are_told_at_once(conf, tmp_path):
    with_key(conf)
    (tmp_path / "brands" / "acme").mkdir(parents=True)
    (tmp_path / "brands" / "acme" / "verification.eml.txt").write_text("")
    conf.write_text(
        f"{conf.read_text()}templates_path = {tmp_path}/brands\ndefault_brand = acmee\n"
        f"[log]\nfile = {tmp_path}/no/x.log\n"
    )
    status, lines = checked("-c", conf)
    assert status == os.EX_CONFIG
    assert [line.split(":")[0] for line in lines] == [
        "[log] file",
        "[general] default_brand",
        "brand 'acme'",
        "brand 'acme'",
    ]


def test_a_data_dir_that_is_not_there_is_no_mistake(conf, tmp_path):
    with_key(conf)
    conf.write_text(f"{MINIMUM}data_dir = {tmp_path}/later\nkey_dir = {tmp_path}/data/keys\n")
    status, lines = checked("-c", conf)
    assert status == 0
    assert lines == [
        f"warning: [general] data_dir: {tmp_path}/later: there is no such directory: make it, {INIT}",
        f"{conf}: ok",
    ]
    assert not (tmp_path / "later").exists()
