"""`docs/configuration.md` says what the declarations say."""

import re
from pathlib import Path

from sydentish.config import options, reference

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"


def test_the_page_is_that_of_these_declarations():
    assert PAGE.read_text() == reference(), "write it anew: see sydentish/config/reference.py"


def test_every_option_has_a_row_in_the_table_of_its_section():
    sections = dict(re.findall(r"^## `\[(\w+)\]`\n(.*?)(?=^## |\Z)", reference(), re.MULTILINE | re.DOTALL))
    for section, key, declaration in options():
        rows = [line for line in sections[section].splitlines() if line.startswith(f"| `{key}` |")]
        assert len(rows) == 1, (section, key)
        assert rows[0].count("|") - rows[0].count("\\|") == 4
        assert ("must be set" in rows[0]) == declaration.mandatory
