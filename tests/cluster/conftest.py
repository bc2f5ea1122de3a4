"""One cluster for all tests of this folder, and the tables of the comparison that they run on it."""

import os

import pytest

from tests.cluster.two_nodes import QUIET, SMALL, TwoNodes, compare, tables


@pytest.fixture(scope="session")
def two_nodes():
    os.environ.update(QUIET)  # Ray reads some of it when it is imported
    pytest.importorskip("ray")
    nodes = TwoNodes()
    yield nodes
    nodes.close()


@pytest.fixture(scope="session")
def local(tmp_path_factory):
    """The tables of the same comparison in one process."""
    cwd = tmp_path_factory.mktemp("local")
    done = compare(*SMALL, cwd=cwd)
    assert done.returncode == 0, done.err
    return tables(cwd)
