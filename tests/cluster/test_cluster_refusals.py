"""What cannot run on a cluster is told in two lines, before any work."""

import socket
import subprocess
import sys

import pytest

CLI = "from harness.cli import main; main()"


def refused(*args, cwd, code=CLI):
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", *args], cwd=cwd, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert not done.stdout and not list(cwd.rglob("models"))
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 2 and lines[0].startswith("error: ") and lines[1].startswith("hint: "), done.stderr
    return done.stderr


def test_an_address_is_of_a_cluster(tmp_path):
    assert "--executor ray" in refused("--address", "10.0.0.1:6379", cwd=tmp_path)


def test_ray_that_is_not_installed(tmp_path):
    code = "import sys; sys.modules['ray'] = None; " + CLI
    told = refused("--executor", "ray", cwd=tmp_path, code=code)
    assert "Ray is not installed" in told and "merge-harness[ray]" in told


def test_weights_that_only_one_machine_would_have(tmp_path):
    assert "--keep-weights" in refused("--executor", "ray", "--keep-weights", "none", cwd=tmp_path)


@pytest.mark.ray
@pytest.mark.parametrize("address", ["nowhere", "ray://127.0.0.1:10001", "host:port"])
def test_what_is_no_address(tmp_path, address):
    assert f"`{address}`" in refused("--executor", "ray", "--address", address, cwd=tmp_path)


@pytest.mark.ray
def test_an_address_where_nobody_listens(tmp_path):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # taken, and not listening
        address = f"127.0.0.1:{held.getsockname()[1]}"
        assert "Connection refused" in refused("--executor", "ray", "--address", address, cwd=tmp_path)


@pytest.mark.ray
@pytest.mark.slow
def test_an_address_where_something_else_listens(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert "not the head" in refused("--executor", "ray", "--address", address, cwd=tmp_path)
