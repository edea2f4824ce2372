"""Making our configuration from that of a Sydent, so that it can be used as it is."""

from pathlib import Path

from sydentish.cli.sydent import peers, sending, serving, terms
from sydentish.cli.sydent.draft import Draft
from sydentish.cli.sydent.old import OldConfig, OldConfigProblem
from sydentish.config import Config, ConfigError, load
from sydentish.disk import whole_file
from sydentish.domain.peers import Peer
from sydentish.domain.takeover import OldPeer

_SERVER = ("server_name", "public_base_url", "data_dir")


class Translation:
    """What a Sydent's configuration becomes.

    Attributes:
        draft: the settings.
        peers: the peers that can be used, and what each has acknowledged.
        edition: what the Sydent calls all of the terms together; None without any.

    Args:
        old: the Sydent's configuration.
        old_peers: the peers in its database.
        data_dir: where ours keeps its things.
        public_base_url: where clients reach the server, if somebody has said so.

    Raises:
        OldConfigProblem: something cannot be understood, and cannot be left to be decided later.
    """

    def __init__(
        self, old: OldConfig, old_peers: list[OldPeer], data_dir: Path, public_base_url: str | None
    ) -> None:
        self._old = old
        self.draft = Draft()
        serving.translate(self.draft, old, data_dir, public_base_url)
        sending.translate(self.draft, old)
        _brand(self.draft, old)
        self.peers: tuple[tuple[Peer, int], ...] = peers.translate(self.draft, old, old_peers)
        self.edition = terms.translate(self.draft, old)

    def settle(self, folder: Path) -> Config:
        """Has what our configuration does not take stand there as a comment, and reads what is left.

        Args:
            folder: where a copy with all secrets may lie meanwhile, closed to others.

        Raises:
            OldConfigProblem: what must be set is wrong.
        """
        file = folder / "sydentish.conf"
        while True:
            self.write(file)
            try:
                return load(file, {})
            except ConfigError as error:
                self._give_up(error)

    def _give_up(self, error: ConfigError) -> None:
        # One at a time: what is given up for the first may take the others with it.
        problem = error.problems[0]
        if problem.key in _SERVER or not self.draft.give_up(problem):
            where = " ".join(filter(None, (problem.section and f"[{problem.section}]", problem.key)))
            raise OldConfigProblem(
                f"what {self._old.path} becomes cannot be used: {where}: {problem.message}"
            )

    def write(self, file: Path) -> None:
        """Writes the configuration as a whole, for its owner alone.

        Raises:
            OSError: it cannot be written.
        """
        with whole_file(file) as writing:
            writing.write(self.draft.text(str(self._old.path)).encode())


def _brand(draft: Draft, old: OldConfig) -> None:
    if old.is_given("general", "templates.path") or old.is_given("general", "brand.default"):
        source = "[general] templates.path, brand.default"
        told = "once your templates are written anew, as docs/templates.md tells"
        draft.decide("general", "templates_path", "/etc/sydentish/templates", source, told, is_set=False)
        draft.decide(
            "general", "default_brand", old.get("general", "brand.default"), source, told, is_set=False
        )
