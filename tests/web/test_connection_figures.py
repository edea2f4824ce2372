"""How many connections the listeners have."""

from math import inf

from web.listening import Listening

from sydentish.web.connections import Connections


def test_connections_are_counted_by_the_kind_of_their_listener():
    one, other, internal = Listening(connections=2), Listening(connections=3), Listening()
    connections = Connections()
    for kind, listening in (("public", one), ("public", other), ("internal", internal)):
        connections.watch(kind, listening.factory)
    wires = [one.connect(), one.connect(), other.connect()]
    assert one.factory.buildProtocol(None) is None
    internal.connect()

    assert dict(connections.open()) == {("public",): 3, ("internal",): 1}
    assert dict(connections.most()) == {("public",): 5, ("internal",): inf}
    assert dict(connections.refused()) == {("public",): 1, ("internal",): 0}
    wires[0].transport.loseConnection()
    assert dict(connections.open())["public",] == 2


def test_what_comes_while_a_listener_goes_away_is_none_too_many():
    listening = Listening(connections=2)
    listening.factory.drain()
    assert listening.factory.buildProtocol(None) is None
    assert listening.factory.refused == 0
