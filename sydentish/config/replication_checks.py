"""What `[replication]` and the `[peer NAME]` sections say together and cannot both be meant."""

from collections.abc import Iterator, Mapping, Sequence

from sydentish.config import files, peer_sections, values
from sydentish.config.named import Defined
from sydentish.config.problems import Problem
from sydentish.config.settle import Chosen
from sydentish.domain.peers import Peer

_SECTION = "replication"
_BOTH_SIDES = "it is done by TLS with certificates on both sides"


def problems(
    settled: Mapping[str, Mapping[str, object]], chosen: Chosen, peers: Sequence[Defined[Peer]]
) -> Iterator[Problem]:
    """What is wrong although each option for itself is right.

    Args:
        settled: the values by section and field, as far as they could be parsed.
        chosen: the entries that they come from.
        peers: what the `[peer NAME]` sections say.
    """
    yield from _without_files(settled[_SECTION], chosen, peers)
    yield from _key_and_certificate(settled[_SECTION], chosen)
    yield from _ourselves(settled["general"].get("server_name"), peers)
    yield from _shared_names(peers)


def _without_files(
    replication: Mapping[str, object], chosen: Chosen, peers: Sequence[Defined[Peer]]
) -> Iterator[Problem]:
    # What could not be parsed is not there at all, and told already.
    missing = [
        key for key in ("certificate_file", "ca_file") if key in replication and replication[key] is None
    ]
    if not missing:
        return
    listeners = chosen.get((_SECTION, "listeners"))
    if listeners is not None and replication.get("listeners") != ():
        yield listeners.problem(
            f"needs {' and '.join(missing)} beside it: peers are received here, and {_BOTH_SIDES}"
        )
    elif peers:
        what = " and ".join(missing)
        yield peers[0].problem(None, f"needs [replication] {what}: a peer is pushed to, and {_BOTH_SIDES}")


def _key_and_certificate(replication: Mapping[str, object], chosen: Chosen) -> Iterator[Problem]:
    if not {"certificate_file", "key_file"} <= replication.keys():
        return
    certificate, key = (chosen.get((_SECTION, each)) for each in ("certificate_file", "key_file"))
    if certificate is None:
        if key is not None:
            yield key.problem("needs certificate_file beside it")
        return
    where = key or certificate
    try:
        private_key = files.private_key_file(where.value)
    except ValueError:
        yield certificate.problem("must hold the private key, too, or else key_file must be set")
        return
    if not files.is_key_of(private_key, files.path(certificate.value)):
        yield where.problem("must have the private key of the first certificate in certificate_file")


def _ourselves(server_name: object, peers: Sequence[Defined[Peer]]) -> Iterator[Problem]:
    for defined in peers:
        name = peer_sections.server_name(defined)
        if name is not None and name == server_name:
            yield defined.problem(
                None, "is this server itself, by [general] server_name: a peer is another one"
            )


def _shared_names(peers: Sequence[Defined[Peer]]) -> Iterator[Problem]:
    first: dict[str, Defined[Peer]] = {}
    for defined in peers:
        for name in peer_sections.names_in_certificate(defined):
            other = first.setdefault(name, defined)
            # One peer twice is told as that.
            if peer_sections.server_name(other) != peer_sections.server_name(defined):
                yield defined.problem(
                    "certificate_names",
                    f"{values.quoted(name)} is a certificate name of [{other.section}], in line {other.place.line}, "
                    "too: a certificate must tell whose it is",
                )
