"""A server in the place of the hub and GitHub, and an empty HARNESS_DATA."""

import threading

import pytest
from hub_stub import Stub


@pytest.fixture
def stub():
    server = Stub()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """HARNESS_DATA, empty."""
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def online(stub, copy, monkeypatch):
    """The server in the place of the hub and GitHub, in this process."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", stub.url)
    template = stub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HARNESS_GITHUB_RAW", f"{stub.url}/raw")
    monkeypatch.setenv("HARNESS_GITHUB_API", f"{stub.url}/api.github")
    return stub
