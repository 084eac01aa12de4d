"""Work spread over eight devices, and over two processes with four each: the same numbers, an eighth for each device."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("on_devices.py")

SPREAD = {
    "jacobian forward": ["P(None, 'rows')"],
    "jacobian forward in chunks": ["P(None, 'rows')"],
    "prefix_jacobians": ["P(None, 'rows')"],
    "explicit forward": ["P(None, 'rows')"],
    "explicit batch": ["P('rows', None)"],
    "explicit mixed in chunks": ["P('rows')"],
    "explicit suffixes": ["P('rows')"],
    "train.fit all": ["P()"],
    "train.fit minibatches": ["P()"],
    "train.fit stream": ["P()"],
}
"""How results lie; all others by their rows."""


def started(devices, *args):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SCRIPT), *map(str, args)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(run):
    out, error = run.communicate(timeout=540)
    assert run.returncode == 0, error
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def eight():
    return told(started(8))


def check_same_and_spread(found):
    for name, case in found.items():
        assert case["error"] < 1e-6, name
        assert case.get("spread") in (None, SPREAD.get(name, ["P('rows',)"])), name


def test_eight_devices_give_the_numbers_of_one_and_keep_their_parts(eight):
    check_same_and_spread({name: case for name, case in eight.items() if name != "leftover"})


def test_each_of_eight_devices_does_and_holds_an_eighth(eight):
    measured = {name: case for name, case in eight.items() if "flops" in case}
    assert len(measured) >= 13
    for name, case in measured.items():
        # Every device evaluates the function, and reads off what it can, by itself.
        assert case["flops"] < 1.1, name
        assert case["bytes"] < 1.1, name


def test_rows_that_do_not_go_round_are_right_and_samples_are_refused(eight):
    assert eight["leftover"]["error"] < 1e-6
    assert "9 samples, which do not go round the 8 devices" in eight["leftover"]["refused"]


def test_where_axes_are_a_part_of_types_what_cannot_be_spread_is_refused_in_words(eight):
    closed, trained = eight["explicit refused"]["said"]
    assert "The function closes over an array that is spread over devices as a part of its type" in closed
    assert "Make the mesh with axis_types=AxisType.Auto" in trained


def test_two_processes_with_four_devices_each_give_the_numbers_of_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runs = [started(4, process, 2, port) for process in range(2)]
    first, second = map(told, runs)
    assert first == second
    check_same_and_spread(first)
