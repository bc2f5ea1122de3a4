"""Shared by all tests: no network, few threads, and a working folder of one's own where asked for."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest  # noqa: E402


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """An empty working folder, as a user of an installed package has."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
