"""The signing key of a Sydent, which becomes ours."""

from pathlib import Path

from sydentish.cli.sydent.old import OldConfig, OldConfigProblem
from sydentish.domain.keys import Key, KeyRing, KeyState, make_key, parse_key
from sydentish.keyfiles import KeyProblem, NoKey, generate_key, load_keys

_FIRST = "0"
_WHERE = "[crypto] ed25519.signingkey"


def read_key(old: OldConfig) -> Key:
    """The signing key.

    Raises:
        OldConfigProblem: there is none, or it is none; the message shows nothing of it.
    """
    text = old.get("crypto", "ed25519.signingkey")
    if not text:
        raise OldConfigProblem(
            f"{old.path}: {_WHERE}: there is no signing key: this Sydent has never run with this file"
        )
    if " " not in text:
        # As the first ones had it: the seed alone, in hexadecimal.
        text = _modern(text)
    try:
        return parse_key(text)
    except ValueError as error:
        raise OldConfigProblem(f"{old.path}: {_WHERE}: {error}") from None


def _modern(text: str) -> str:
    try:
        return make_key(_FIRST, bytes.fromhex(text))
    except ValueError:
        return text


def take_key(key: Key, key_dir: Path, server_name: str, *, dry_run: bool) -> tuple[KeyRing, bool]:
    """Puts the key into our key directory, unless it is there.

    Args:
        key: the key.
        key_dir: our key directory.
        server_name: ours.
        dry_run: nothing is changed.

    Returns:
        Our keys, in a rehearsal those that there would be, and whether it was not among them.

    Raises:
        KeyProblem: another key is there, or it cannot be written.
    """
    try:
        known = load_keys(key_dir, server_name)
    except NoKey:
        if dry_run:
            return KeyRing(server_name, key), True
        generate_key(key_dir, key.signing_key.version, bytes(key.signing_key))
        return load_keys(key_dir, server_name), True
    if not any(
        each.public_key == key.public_key and each.state is not KeyState.REVOKED for each in known.all
    ):
        raise KeyProblem(
            f"{key_dir}: there is another signing key, {known.active.key_id}; what the Sydent has signed could not be checked. "
            "Move it away, or name another data directory"
        )
    return known, False
