"""Files and directories that options name."""

import stat
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from sydentish.config import files


def refused(parser, value):
    with pytest.raises(ValueError, match="must be") as caught:
        parser(str(value))
    return str(caught.value)


def loop(tmp_path):
    link = tmp_path / "loop"
    link.symlink_to(link)
    return link


def test_paths_need_not_exist(tmp_path):
    missing = tmp_path / "missing"
    assert files.path(str(missing)) == missing
    assert files.data_file(str(missing)) == missing
    assert files.folder(str(missing)) == missing
    assert files.path("relative/one") == Path("relative/one")
    for parser in (
        files.path,
        files.data_file,
        files.folder,
        files.readable_folder,
        files.ca_file,
        files.private_key_file,
    ):
        refused(parser, "")
        refused(parser, "a\x00b")


def test_files_and_directories_are_not_confused(tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert files.folder(str(tmp_path)) == tmp_path
    assert files.data_file(str(file)) == file
    refused(files.folder, file)
    refused(files.data_file, tmp_path)


def test_a_readable_folder_exists(tmp_path):
    assert files.readable_folder(str(tmp_path)) == tmp_path
    file = tmp_path / "file"
    file.touch()
    for bad in (file, tmp_path / "missing", loop(tmp_path), tmp_path / ("x" * 300)):
        refused(files.readable_folder, bad)


def test_a_ca_file_has_a_certificate(tmp_path):
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    assert files.ca_file(str(file)) == file


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no certificate",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"\xff\xfe\x00",
    ],
)
def test_no_ca_file(tmp_path, content):
    file = tmp_path / "ca.pem"
    file.write_bytes(content)
    assert refused(files.ca_file, file) == "must be a file with at least one certificate in PEM form"


def test_a_private_key_is_no_certificate(tmp_path):
    file = tmp_path / "key.pem"
    trustme.CA().private_key_pem.write_to_path(file)
    refused(files.ca_file, file)


def issued(tmp_path, name, ca=None):
    """Files with a private key, and with its certificate and chain."""
    certificate = (ca or trustme.CA()).issue_cert(name, "127.0.0.1", common_name="Id.Example.org")
    key, chain = tmp_path / f"{name}.key", tmp_path / f"{name}.pem"
    certificate.private_key_pem.write_to_path(key)
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    return key, chain


def test_a_private_key(tmp_path):
    key, chain = issued(tmp_path, "a.example")
    assert files.private_key_file(str(key)) == key
    pair = tmp_path / "pair.pem"
    for content in (key.read_bytes() + chain.read_bytes(), chain.read_bytes() + key.read_bytes()):
        pair.write_bytes(content)
        assert files.private_key_file(str(pair)) == pair
        assert files.ca_file(str(pair)) == pair
        assert files.is_key_of(pair, pair)


def test_no_private_key(tmp_path):
    key, chain = issued(tmp_path, "a.example")
    locked = load_pem_private_key(key.read_bytes(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
    )
    for content in (b"", b"\xff", chain.read_bytes(), locked):
        key.write_bytes(content)
        assert refused(files.private_key_file, key) == (
            "must be a file with a private key in PEM form, without a password"
        )


def test_whose_key_it_is(tmp_path):
    (key, chain), (other, _) = issued(tmp_path, "a.example"), issued(tmp_path, "b.example")
    assert files.is_key_of(key, chain)
    assert not files.is_key_of(other, chain)
    assert not files.is_key_of(tmp_path / "missing", chain)
    assert not files.is_key_of(key, key)


def test_the_names_in_a_certificate_are_those_of_the_first(tmp_path):
    ca = trustme.CA()
    (_, one), (_, other) = issued(tmp_path, "A.example", ca), issued(tmp_path, "b.example", ca)
    one.write_bytes(one.read_bytes() + other.read_bytes())
    assert files.names_in_certificate(one) == {"id.example.org", "a.example", "127.0.0.1"}
    assert files.names_in_certificate(tmp_path / "missing") == frozenset()


def test_files_that_cannot_be_read(tmp_path):
    for bad in (tmp_path, tmp_path / "missing", loop(tmp_path), Path("/dev/zero"), tmp_path / ("x" * 300)):
        for parser in (files.ca_file, files.private_key_file, files.read_secret):
            assert refused(parser, bad).startswith("must be a readable file: ")


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"hunter2", "hunter2"), (b"hunter2\n", "hunter2"), (b" a b \r\n", " a b "), ("ö".encode(), "ö")],
)
def test_secrets(tmp_path, content, value):
    file = tmp_path / "secret"
    file.write_bytes(content)
    assert files.read_secret(str(file)) == value


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"hunter2\n\n", b"hunter\n2", b"hunter2\x00", b"hunter2\xff"]
)
def test_no_secrets(tmp_path, content):
    file = tmp_path / "secret"
    file.write_bytes(content)
    assert "hunter" not in refused(files.read_secret, file)


def test_permissions_of_others(tmp_path):
    file = tmp_path / "file"
    file.touch(mode=0o600)
    assert not files.others_may(file, stat.S_IROTH)
    file.chmod(0o604)
    assert files.others_may(file, stat.S_IROTH)
    assert not files.others_may(tmp_path / "missing", stat.S_IROTH)
