import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st
from standins.certificates import Authority

from sydentish.domain.certificates import names_in, shortcomings

KEY = Ed25519PrivateKey.generate()
DNS, IP = x509.DNSName, x509.IPAddress


def certificate(*extensions, common_names=()):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names])
    builder = x509.CertificateBuilder(subject, subject, KEY.public_key(), 1)
    builder = builder.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
    builder = builder.not_valid_after(datetime(2030, 1, 1, tzinfo=UTC))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, None)


def alternative(*names):
    return x509.SubjectAlternativeName(names)


def unread(oid, value=b"\x30\x03garbage"):
    return x509.UnrecognizedExtension(oid, value)


def test_alternative_names_come_first_and_each_name_once():
    made = certificate(
        alternative(DNS("B.example.org"), DNS("a.example.org"), DNS("b.example.org")),
        common_names=["A.Example.org", "Name of a Person", "id.example.org"],
    )
    assert names_in(made) == ("b.example.org", "a.example.org", "name of a person", "id.example.org")


def test_addresses_are_in_their_canonical_form():
    made = certificate(
        alternative(IP(ipaddress.ip_address("2001:0DB8::0:1")), IP(ipaddress.ip_address("192.0.2.1")))
    )
    assert names_in(made) == ("2001:db8::1", "192.0.2.1")


def test_wildcards_stay_what_they_are():
    assert names_in(certificate(alternative(DNS("*.Example.org")))) == ("*.example.org",)


def test_names_of_other_kinds_do_not_count():
    others = (x509.RFC822Name("id.example.org"), x509.UniformResourceIdentifier("https://id.example.org"))
    assert names_in(certificate(alternative(*others, DNS("")), common_names=["a.org"])) == ("a.org",)


@pytest.mark.parametrize("names", [(), ("id.example.org",)])
def test_without_alternative_names_the_common_name_counts(names):
    assert names_in(certificate(common_names=names)) == names


@pytest.mark.parametrize(
    "extensions",
    [
        (unread(ExtensionOID.SUBJECT_ALTERNATIVE_NAME),),
        # Another extension that cannot be read, and one with the name of a kind that is not known.
        (unread(ExtensionOID.KEY_USAGE), alternative(DNS("a.org"))),
        (unread(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x04\xa3\x02\x05\x00"),),
        # A DNS name of bytes that are no ASCII.
        (unread(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x04\x82\x02\xff\xff"),),
        # An address of three bytes.
        (unread(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x05\x87\x03\x01\x02\x03"),),
    ],
)
def test_what_can_be_read_counts_beside_what_cannot(extensions):
    assert names_in(certificate(*extensions, common_names=["id.example.org"])) == ("id.example.org",)


def test_a_common_name_that_cannot_be_read_takes_nothing_away():
    made = certificate(alternative(DNS("a.org")), common_names=["id.example.org"])
    # UTF8String, its length, its bytes: the first of them is made one that begins no letter.
    spoilt = made.public_bytes(Encoding.DER).replace(b"\x0c\x0eid.ex", b"\x0c\x0e\xffd.ex")
    assert names_in(x509.load_der_x509_certificate(spoilt)) == ("a.org",)


@given(st.binary(max_size=40))
def test_no_bytes_of_an_extension_raise(value):
    for oid in (
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ObjectIdentifier("1.2.3.4"),
        ExtensionOID.BASIC_CONSTRAINTS,
    ):
        assert "id.example.org" in names_in(certificate(unread(oid, value), common_names=["id.example.org"]))


# --- what others will not accept -----------------------------------------------------------------------

NOW_MS = 1_800_000_000_000
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("left", "told"),
    [
        (-DAY, ["has expired on 2027-01-14"]),
        (10 * DAY, ["expires on 2027-01-25"]),
        (31 * DAY, []),
    ],
)
def test_a_certificate_that_has_expired_or_soon_will_is_told_of(left, told):
    until = datetime.fromtimestamp(NOW_MS / 1000, UTC) + left
    pem = Authority().issue("id.example.org", not_after=until).pem
    certificate = x509.load_pem_x509_certificates(pem)[0]
    assert shortcomings(certificate, NOW_MS) == told


@pytest.mark.parametrize(
    ("usages", "lacking"),
    [
        ([ExtendedKeyUsageOID.SERVER_AUTH], ["clientAuth"]),
        ([ExtendedKeyUsageOID.CLIENT_AUTH], ["serverAuth"]),
        ([ExtendedKeyUsageOID.CODE_SIGNING], ["serverAuth", "clientAuth"]),
        ([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH], []),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], []),
    ],
)
def test_a_certificate_must_be_for_servers_and_for_clients(usages, lacking):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "id.example.org")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2900, 1, 1, tzinfo=UTC))
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .sign(key, hashes.SHA256())
    )
    found = shortcomings(certificate, NOW_MS)
    assert [usage for told in found for usage in ("serverAuth", "clientAuth") if usage in told] == lacking
