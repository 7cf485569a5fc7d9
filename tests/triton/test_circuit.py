"""When a server is asked, spared, tried again and trusted again. Time is a number here."""

import pytest

from meterplane.triton.circuit import EJECTED_S_MAX, FAILURES_MAX, JITTER, Attempt, Circuit

NORMAL, TRIAL, LAST_RESORT = Attempt


def ejected(at: float = 0.0) -> Circuit:
    circuit = Circuit()
    circuit.unreachable(at, NORMAL)
    return circuit


def test_failures_in_a_row_eject_and_one_success_between_them_does_not():
    circuit = Circuit()
    for _ in range(FAILURES_MAX - 1):
        circuit.failed(0, NORMAL)
    circuit.succeeded(NORMAL)
    for _ in range(FAILURES_MAX - 1):
        circuit.failed(0, NORMAL)
    assert circuit.closed
    circuit.failed(0, NORMAL)
    assert not circuit.closed


def test_one_failed_connect_ejects():
    circuit = ejected()
    assert not circuit.closed
    assert 1 - JITTER <= circuit.ejected_for_s(0) <= 1 + JITTER


def test_the_time_doubles_with_every_failed_trial_up_to_its_bound():
    circuit, now, lengths = ejected(), 0.0, []
    for _ in range(10):
        length = circuit.ejected_for_s(now)
        lengths.append(length)
        now += length
        assert circuit.half_open(now)
        circuit.begin_trial()
        circuit.failed(now, TRIAL)
    for length, expected in zip(lengths, [1, 2, 4, 8, 16, 30, 30, 30, 30, 30], strict=True):
        assert expected * (1 - JITTER) <= length <= expected * (1 + JITTER)
    assert max(lengths) <= EJECTED_S_MAX * (1 + JITTER)


def test_half_open_lets_one_trial_through_until_it_is_over():
    circuit = ejected()
    assert not circuit.half_open(0.1)
    assert circuit.half_open(2)
    circuit.begin_trial()
    assert not circuit.half_open(2)
    circuit.abandoned(TRIAL)  # its caller left: nothing was learnt
    assert circuit.half_open(2)
    circuit.begin_trial()
    circuit.succeeded(TRIAL)
    assert circuit.closed
    assert circuit.spotless


def test_what_was_on_its_way_when_it_was_ejected_changes_nothing():
    circuit = ejected()
    before = circuit.ejected_for_s(0.5)
    circuit.succeeded(NORMAL)
    for _ in range(5):
        circuit.failed(0.5, NORMAL)
        circuit.unreachable(0.5, NORMAL)
        circuit.failed(0.5, LAST_RESORT)
    assert not circuit.closed
    assert circuit.ejected_for_s(0.5) == before


def test_a_last_resort_that_succeeds_is_trusted():
    circuit = ejected()
    circuit.succeeded(LAST_RESORT)
    assert circuit.closed


def test_a_probe_brings_an_unreachable_server_back_at_once_and_a_failing_one_only_in_its_time():
    circuit = ejected()
    circuit.probe_succeeded(0.1)
    assert circuit.closed

    circuit = Circuit()
    for _ in range(FAILURES_MAX):
        circuit.failed(0, NORMAL)
    circuit.probe_succeeded(0.1)
    assert not circuit.closed  # it was alive all the time
    circuit.probe_succeeded(2)
    assert circuit.closed


def test_after_a_probe_one_failure_is_enough_until_a_request_succeeds():
    circuit = ejected()
    circuit.probe_succeeded(2)
    circuit.failed(3, NORMAL)
    assert not circuit.closed
    assert circuit.ejected_for_s(3) >= 2 * (1 - JITTER)  # longer than the first time

    circuit.probe_succeeded(10)
    circuit.succeeded(NORMAL)
    circuit.failed(11, NORMAL)
    assert circuit.closed


@pytest.mark.parametrize("closed", [True, False])
def test_a_failed_probe_ejects(closed):
    circuit = Circuit() if closed else ejected(-10)
    circuit.probe_failed(0)
    assert not circuit.closed
    assert circuit.ejected_for_s(0) > 0
