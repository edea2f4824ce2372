"""Where options stand, for whoever finds something wrong with them later."""

from collections.abc import Mapping
from dataclasses import dataclass

from sydentish.config.ini import Document
from sydentish.config.problems import Problem
from sydentish.config.settle import Chosen


@dataclass(frozen=True, slots=True)
class Places:
    """Where each option stands that somebody has set; it knows no value.

    Attributes:
        source: what to call the file.
        sections: the first line of each section of the file.
        options: source and line of each option, by section and key.
    """

    source: str
    sections: Mapping[str, int]
    options: Mapping[tuple[str, str], tuple[str, int | None]]

    def problem(self, section: str, key: str | None, message: str) -> Problem:
        """A problem with an option.

        It is told where the option stands, else where its section begins, and else of the file as a whole.

        Args:
            section: as it is written between the brackets.
            key: the option; several with commas between them stand where the last one does that is set. None for
                the section itself.
            message: what is right instead.
        """
        set_here = [
            self.options[section, each] for each in (key or "").split(", ") if (section, each) in self.options
        ]
        source, line = set_here[-1] if set_here else (self.source, self.sections.get(section))
        return Problem(source, line, section, key, message)


def places(document: Document, chosen: Chosen) -> Places:
    """Where the options that count stand."""
    options = {place: (entry.source, entry.line) for place, entry in chosen.items()}
    return Places(document.source, document.sections, options)
