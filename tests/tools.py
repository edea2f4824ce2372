"""Programs of other projects that some tests run, from packages of the same machine."""

import os
import shutil

import pytest


def tool(name: str, package: str) -> str:
    """Where a program is; without it the test is skipped, or fails where none may be left out.

    Args:
        name: the program.
        package: the Debian package that has it.
    """
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        reason = f"{name} is not there: apt-get install {package}"
        if os.environ.get("SYDENTISH_REQUIRE_TOOLS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found
