"""One cluster for all tests of this folder, and the tables of the comparison that they run on it."""

import os
from pathlib import Path

import pytest

from benchmarks import kills
from tests.cluster.two_nodes import QUIET, SMALL, TwoNodes, compare, tables


@pytest.fixture(scope="session")
def asked_log(tmp_path_factory):
    """The folder in which workers write down what they hand to engines (`watched/sitecustomize.py`)."""
    return tmp_path_factory.mktemp("asked")


@pytest.fixture(scope="session")
def two_nodes(asked_log):
    os.environ.update(QUIET)  # Ray reads some of it when it is imported
    here = Path(__file__).parent
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (here / "watched", here.parents[1])))
    os.environ["ASKED_LOG"] = str(asked_log / kills.LOG)
    pytest.importorskip("ray")
    nodes = TwoNodes()
    yield nodes
    nodes.close()
    del os.environ["ASKED_LOG"], os.environ["PYTHONPATH"]


@pytest.fixture(scope="session")
def local_run(tmp_path_factory):
    """The folder of the same comparison in one process."""
    cwd = tmp_path_factory.mktemp("local")
    done = compare(*SMALL, cwd=cwd)
    assert done.returncode == 0, done.err
    return cwd


@pytest.fixture(scope="session")
def local(local_run):
    """Its tables."""
    return tables(local_run)
