"""Usual ports are used when free, others when not."""

import socket

import pytest

from meterplane.stack import ports


@pytest.fixture
def base() -> int:
    """The first of as many free neighbours as there are servers."""
    for candidate in range(21_000, 30_000, 10):
        if all(ports.is_free(candidate + offset) for offset in ports.OFFSETS.values()):
            return candidate
    raise AssertionError("no free ports in a row")


def test_free_usual_ports_are_used(base: int) -> None:
    chosen = ports.choose(base)
    assert chosen.numbers == {name: base + offset for name, offset in ports.OFFSETS.items()}
    assert chosen.moved == {}
    assert chosen.url("gateway") == f"http://127.0.0.1:{base + 1}"


def test_a_taken_port_is_replaced_by_a_free_one_and_told(base: int) -> None:
    with socket.create_server(("127.0.0.1", base + 1)):
        chosen = ports.choose(base)
    assert chosen.moved == {"gateway": base + 1}
    assert chosen.numbers["gateway"] != base + 1
    assert len(set(chosen.numbers.values())) == len(ports.OFFSETS)
    assert ports.is_free(chosen.numbers["gateway"])


@pytest.mark.parametrize("base", [0, 80, 65_530])
def test_a_base_without_room_is_refused(base: int) -> None:
    with pytest.raises(ValueError, match="--port-base"):
        ports.choose(base)
