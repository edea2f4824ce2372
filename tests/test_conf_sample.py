"""`sydentish.conf.sample` and the declarations say the same."""

import re
from pathlib import Path
from string import Template

import pytest
from standins.certificates import Authority

from sydentish.config import load, options, sample
from sydentish.config.declare import keys
from sydentish.config.gateways import KINDS
from sydentish.config.replication import PeerSection

FILE = Path(__file__).parent.parent / "sydentish.conf.sample"
PAIR = ("CERTIFICATE_FILE", "CA_FILE")
EXAMPLE = {"data_dir": "/var/lib/sydentish", "host": "example.org"}
# `# text` is a comment for people; `#key = value`, and its further lines indented by more, can be uncommented.
PROSE = re.compile(r"#( \S.*)?")
GATEWAY_OPTIONS = [
    (f"sms {kind}", key, declaration)
    for kind, gateway_type in KINDS.items()
    for key, declaration in keys(gateway_type)
]
PEER_OPTIONS = [("peer", key, declaration) for key, declaration in keys(PeerSection)]
EXAMPLES = [*GATEWAY_OPTIONS, *PEER_OPTIONS]


def described(text):
    """What the text says: (section, key) -> (description, default, whether it is commented out).

    The kind of a gateway is left out: each kind has a section of its own.
    """
    found, section, prose, last = {}, None, [], None
    for line in text.splitlines():
        bare = line.removeprefix("#")
        if match := re.fullmatch(r"\[(\w+)\]|#\[(sms \w+|peer(?= \S+\]))(?: \S+)?\]", line):
            section, prose, last = match[1] or match[2], [], None
        elif re.fullmatch(r"#\[policy \w+\]", line):
            return found
        elif match := re.fullmatch(r"#kind = (\w+)", line):
            assert section == f"sms {match[1]}"
        elif not line:
            prose, last = [], None
        elif PROSE.fullmatch(line):
            prose.append(line[2:])
        elif bare.startswith("    "):
            description, default, commented = found[last]
            found[last] = (description, f"{default} {bare.strip()}".strip(), commented)
        else:
            key, _, default = bare.partition(" =")
            last = (section, key)
            assert last not in found, f"{last} stands twice"
            found[last] = (" ".join(prose), default.strip(), line != bare)
    return found


def uncommented(text):
    return "\n".join(line if PROSE.fullmatch(line) else line.removeprefix("#") for line in text.splitlines())


def all_of_it(folder):
    """The sample in `folder` with every line uncommented, and with the files without which a peer is none."""
    Authority().issue("example.org").write(folder / "pair.pem")
    text = uncommented(FILE.read_text())
    before, head, replication = text.partition("[replication]\n")
    for key in PAIR:
        replication = replication.replace(f"\n{key.lower()} =\n", f"\n{key.lower()} = {folder}/pair.pem\n", 1)
    conf = folder / "sydentish.conf"
    conf.write_text(before + head + replication)
    return conf


def test_the_sample_is_what_the_declarations_make_of_it():
    assert FILE.read_text() == sample(), "write it anew as sydentish/config/sample.py says"


def test_the_sample_has_every_option_once_with_sentence_and_default_and_nothing_else():
    declared = {
        (section, key): (
            declaration.about,
            Template(declaration.default).substitute(EXAMPLE),
            section == "peer" or section.startswith("sms ") or not declaration.mandatory,
        )
        for section, key, declaration in [*options(), *EXAMPLES]
    }
    assert described(FILE.read_text()) == declared


def test_the_sample_has_every_kind_of_gateway():
    assert re.findall(r"^#kind = (\w+)$", FILE.read_text(), re.MULTILINE) == list(KINDS)


@pytest.mark.parametrize("option", [*options(), *EXAMPLES], ids=lambda option: f"{option[0]}.{option[1]}")
def test_a_description_is_one_sentence(option):
    about = option[2].about
    assert about[0].isupper()
    assert about.endswith(".")
    assert not re.search(r"\. [A-Z]", about)


def test_the_sample_loads_as_it_is():
    config = load(FILE, {})
    assert config.warnings == ()
    assert config.policies.policies == ()
    assert config.sms_gateways == ()
    assert config.peers == ()


def test_the_sample_loads_with_every_line_uncommented_and_means_the_same(tmp_path):
    everything = load(all_of_it(tmp_path), {})
    # A peer needs a certificate here.
    nothing = load(FILE, {f"SYDENTISH_REPLICATION__{key}": f"{tmp_path}/pair.pem" for key in PAIR})
    for section in {section for section, _, _ in options()}:
        assert getattr(everything, section) == getattr(nothing, section)
    assert [policy.policy_id for policy in everything.policies.policies] == ["terms"]
    assert [text.language for text in everything.policies.policies[0].texts] == ["en", "de"]
    assert [peer.name for peer in everything.peers] == ["id.example.net"]
    assert everything.sms_gateways == ()
    unused = [warning.section for warning in everything.warnings if warning.section.startswith("sms ")]
    assert set(unused) == {f"sms {kind}" for kind in KINDS}


def test_the_gateways_of_the_sample_can_be_used(tmp_path):
    conf = all_of_it(tmp_path)
    conf.write_text(conf.read_text().replace("messaging_service_sid =", "messaging_service_sid = MG0"))
    config = load(conf, {"SYDENTISH_SMS__GATEWAYS": ", ".join(KINDS)})
    assert [type(gateway) for gateway in config.sms_gateways] == list(KINDS.values())


def test_nothing_is_longer_than_a_screen_is_wide():
    assert max(map(len, sample().splitlines())) <= 105
