"""Signing keys as files: the active one in the key directory, others below it in `next/`, `retired/` and `revoked/`."""

from sydentish.keyfiles.changing import (
    finish_rotation,
    generate_key,
    must_not_sign,
    retire_key,
    revoke_key,
    rotate_key,
)
from sydentish.keyfiles.reading import (
    KeyFile,
    KeyProblem,
    NoKey,
    inventory,
    key_files,
    key_warnings,
    load_keys,
    mode_warning,
    ring_of,
)
from sydentish.keyfiles.writing import CannotChange, make_private

__all__ = [
    "CannotChange",
    "KeyFile",
    "KeyProblem",
    "NoKey",
    "finish_rotation",
    "generate_key",
    "inventory",
    "key_files",
    "key_warnings",
    "load_keys",
    "make_private",
    "mode_warning",
    "must_not_sign",
    "retire_key",
    "revoke_key",
    "ring_of",
    "rotate_key",
]
