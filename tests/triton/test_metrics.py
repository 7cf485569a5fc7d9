"""What an inference server counts is read exactly, and its names are those that were said."""

import pytest

from meterplane.settings.env import Environment
from meterplane.triton.metrics import (
    Counters,
    as_named,
    fetch_counters,
    measured_servers,
    read_counters,
)

TEXT = """# HELP nv_inference_request_success Number of successful inference requests
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="a",version="1"} 1.5e+06
nv_inference_request_success{gpu_uuid="GPU-0",model="b",version="2"} 3
nv_inference_request_success{gpu_uuid="GPU-1",model="b",version="2"} 4
nv_inference_request_failure{model="a",reason="OTHER",version="1"} 1
nv_inference_request_failure{model="a",reason="CANCELED",version="1"} 2
nv_inference_count{model="a",version="1"} 7
nv_inference_exec_count{model="a",version="1"} 6
nv_inference_queue_duration_us{model="a",version="1"} 0.5
nv_cpu_utilization 0.1
"""


def test_counters_are_summed_over_reasons_and_devices():
    assert read_counters(TEXT) == {
        ("a", "1"): Counters(1_500_000, 3, 7, 6),
        ("b", "2"): Counters(success=7),
    }


@pytest.mark.parametrize(
    "line",
    [
        "nv_inference_count",
        'nv_inference_count{model="a",version="1"} NaN',
        'nv_inference_count{model="a",version="1"} -1',
        'nv_inference_count{model="a",version="1"} 1.5',
        'nv_inference_count{version="1"} 1',
        'nv_inference_count{model="a",version="1"} many',
    ],
)
def test_what_counts_nothing_is_refused(line):
    with pytest.raises(ValueError, match=r"counts nothing|no sample|no model"):
        read_counters(line)


def test_a_server_has_a_name_for_each_protocol():
    [first, second] = measured_servers(
        " http://t-0:8000/ | t-0:8001 =http://t-0:8002/metrics, http://t-1:8000=https://t-1/m?x=1,"
    )
    assert first.names == ("http://t-0:8000", "t-0:8001")
    assert first.name == as_named("http://t-0:8000//")
    assert (second.names, second.metrics_url) == (("http://t-1:8000",), "https://t-1/m?x=1")
    assert measured_servers("") == []


@pytest.mark.parametrize(
    "text",
    ["http://t:8002/metrics", "=http://t:8002/metrics", "t=ftp://t", "a=http://t,a=http://u"],
)
def test_what_is_said_wrongly_stops_the_start(text, monkeypatch):
    with pytest.raises(ValueError, match=r"like http|two servers"):
        measured_servers(text)
    monkeypatch.setenv("TRITON_METRICS_URLS", text)
    with pytest.raises(ValueError, match="triton_metrics_urls"):
        Environment()


def test_a_real_triton_is_read(triton):
    counters = fetch_counters(triton.metrics_url)
    assert {"tiny-lm", "identity", "all-minilm-l6-v2"} <= {model for model, _ in counters}
    with pytest.raises(ValueError, match="answered 404"):
        fetch_counters(triton.http_url + "/nothing")
