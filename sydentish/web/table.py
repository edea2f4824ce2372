"""From a method and a path to a row of the route table."""

from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes

from sydentish.domain.errors import MethodNotAllowed, Unrecognized
from sydentish.web.route import Route


class RouteTable:
    """Finds the route of a method and a path.

    Args:
        routes: the rows.
        prefix: what stands in front of every path.
    """

    def __init__(self, routes: Sequence[Route], prefix: str) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        # A row whose last segment is in braces takes whatever begins with the rest of its path.
        self._open: dict[str, tuple[str, dict[str, Route]]] = {}
        for route in routes:
            start, brace, name = (prefix + route.path).partition("{")
            if brace:
                _, methods = self._open.setdefault(start, (name.rstrip("}"), {}))
            else:
                methods = self._exact.setdefault(start, {})
            methods[route.method] = route
        for methods in [*self._exact.values(), *(methods for _, methods in self._open.values())]:
            if "GET" in methods:
                methods.setdefault("HEAD", methods["GET"])

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """The route, and what the braces of its path took.

        The path is compared as it was sent: an encoded slash is part of a segment. `OPTIONS` finds any route
        of the path.

        Raises:
            Unrecognized: there is no such path.
            MethodNotAllowed: there is, but not for this method.
        """
        params: Mapping[str, str] = {}
        methods = self._exact.get(path)
        if methods is None:
            methods, params = self._find_open(path)
        if method == "OPTIONS":
            return next(iter(methods.values())), params
        route = methods.get(method)
        if route is None:
            allowed = tuple(sorted({*methods, "OPTIONS"}))
            raise MethodNotAllowed("The endpoint exists, but not for this method", allowed)
        return route, params

    def _find_open(self, path: str) -> tuple[dict[str, Route], Mapping[str, str]]:
        for start, (name, methods) in self._open.items():
            if path.startswith(start):
                return methods, {name: unquote_to_bytes(path[len(start) :]).decode("utf-8", "replace")}
        raise Unrecognized("Unrecognized request")
