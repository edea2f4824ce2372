"""A server for commands."""

import pytest
from cli.house import CommandHouse


@pytest.fixture
def command_house(tmp_path):
    return CommandHouse(tmp_path)
