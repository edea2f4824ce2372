"""The internal API: bind and unbind without validation, by the word of the operator."""

from collections.abc import Sequence

import orjson
from twisted.logger import Logger

from sydentish.actions.associations import Associations, Provision
from sydentish.domain.errors import Busy, IdentityError
from sydentish.web import models
from sydentish.web.errors import error_body
from sydentish.web.lines import read_line
from sydentish.web.reply import Reply, json_reply
from sydentish.web.route import Call

_NDJSON = b"application/x-ndjson"
# So many lines are one transaction: few enough that others need not wait for long.
_BATCH = 100

_log = Logger()


class InternalHandlers:
    """`/internal`."""

    def __init__(self, associations: Associations) -> None:
        self._associations = associations

    async def bind(self, call: Call[models.Provisioned]) -> Reply:
        """`POST /internal/bind`."""
        await self._associations.provision([call.params.provision(bound=True)])
        return json_reply({})

    async def unbind(self, call: Call[models.Provisioned]) -> Reply:
        """`POST /internal/unbind`; what is not bound to that user is a success."""
        await self._associations.provision([call.params.provision(bound=False)])
        return json_reply({})

    async def bulk(self, call: Call[models.Lines]) -> Reply:
        """`POST /internal/bulk`: a JSON object a line, as for the others, with `action`: `bind` (default) or `unbind`.

        The answer has a line for each: `{}`, or the error that it would have had alone, with `line`: the line of
        the body, counted from 1. Lines are done in their order; a line that is wrong holds up no other.
        """
        lines = [
            (number, line) for number, line in enumerate(call.params.body.split(b"\n"), 1) if line.strip()
        ]
        answers: list[bytes] = []
        for start in range(0, len(lines), _BATCH):
            batch = await self._batch(
                [(number, read_line(line)) for number, line in lines[start : start + _BATCH]]
            )
            # Joined at once: each result of orjson keeps the large buffer that it was written to.
            answers.append(b"".join(b"%b\n" % answer for answer in batch))
        return Reply(200, _NDJSON, b"".join(answers))

    async def _batch(self, wanted: Sequence[tuple[int, Provision | IdentityError]]) -> list[bytes]:
        failure: IdentityError | None = None
        try:
            await self._associations.provision([each for _, each in wanted if isinstance(each, Provision)])
        except IdentityError as error:
            failure = error
        except Exception:  # noqa: BLE001 - what was done of the other lines must be told all the same
            _log.failure("lines of a bulk call could not be done")
            failure = Busy("This line could not be done")
        return [
            _answer(number, each if isinstance(each, IdentityError) else failure) for number, each in wanted
        ]


def _answer(line: int, error: IdentityError | None) -> bytes:
    return b"{}" if error is None else orjson.dumps({"line": line, **error_body(error)})
