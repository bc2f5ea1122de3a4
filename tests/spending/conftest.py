"""A hub of one's own: an HTTP server that plays the endpoints which huggingface_hub 2.4 calls."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "1" * 40


class Hub:
    """`models` and `data`: name -> {files: {name: bytes}, gated, dtypes, revisions}. What is pushed is in
    `pushed`, uploaded objects in `objects`; `asked` lists every request. `refuses`: HTTP status of a push."""

    def __init__(self) -> None:
        self.models: dict[str, dict] = {}
        self.data: dict[str, dict] = {}
        self.pushed: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, str] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.tokens: set[str] = set()
        self.refuses = 0
        self.endpoint = ""

    def repository(self, path: str) -> tuple[dict | None, str]:
        """The repository that a path below /api/models/ or /api/datasets/ names, and the rest of the path."""
        kind, _, rest = path.partition("/")
        parts = rest.split("/")
        held = self.models if kind == "models" else self.data
        return held.get("/".join(parts[:2])), "/".join(parts[2:])


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        path = self._note()
        if path == "api/whoami-v2":
            return self._json({"name": "someone", "type": "user"} if self._token() == "hf_good" else {}, 200
                              if self._token() == "hf_good" else 401)  # fmt: skip
        if path.startswith(("api/models/", "api/datasets/")):
            return self._info(path.removeprefix("api/"))
        return self._file(path)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path, body = self._note(), self._body()
        if self.hub.refuses and path == "api/repos/create":
            return self._json({"error": "you may not write there"}, self.hub.refuses)
        if path == "api/repos/create":
            given = json.loads(body)
            name = f"{given['organization']}/{given['name']}"
            self.hub.private[name] = given.get("visibility", "public")
            return self._json({"url": f"{self.hub.endpoint}/{name}"})
        if path == "api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                 "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]  # fmt: skip
            return self._json({"files": files})
        if path.endswith(".git/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            made = [
                {**o, "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{o['oid']}"}}} for o in wanted
            ]
            return self._json({"transfer": "basic", "objects": made})
        if "/commit/" in path:
            return self._commit(path, body)
        return self._json({"error": "not here"}, 404)

    def do_PUT(self) -> None:
        path, body = self._note(), self._body()
        assert hashlib.sha256(body).hexdigest() == path.removeprefix("lfs/")
        self.hub.objects[path.removeprefix("lfs/")] = body
        self._json({})

    def _info(self, path: str) -> None:
        held, rest = self.hub.repository(path)
        if held is None:
            return self._json({"error": "Repository not found"}, 404, "RepoNotFound")
        if rest == "auth-check":
            allowed = not held.get("gated") or self._token() == "hf_good"
            return self._json({}) if allowed else self._json({"error": "gated"}, 403, "GatedRepo")
        revision = unquote(rest.removeprefix("revision/"))
        if revision and revision not in held.get("revisions", (COMMIT, "main")):
            return self._json({"error": "Invalid rev id"}, 404, "RevisionNotFound")
        files = [{"rfilename": n, "size": len(b), "blobId": "0"} for n, b in held["files"].items()]
        told = {
            "id": "x/y",
            "sha": COMMIT,
            "siblings": files,
            "gated": held.get("gated", False),
            "private": False,
        }
        if held.get("dtypes"):
            told["safetensors"] = {"parameters": held["dtypes"], "total": sum(held["dtypes"].values())}
        return self._json(told)

    def _file(self, path: str) -> None:
        owner, name, _, _, file = path.split("/", 4)
        content = self.hub.models.get(f"{owner}/{name}", {}).get("files", {}).get(file)
        if content is None:
            return self._json({"error": "Entry not found"}, 404, "EntryNotFound")
        self.send_response(200)
        for key, value in {"Content-Length": len(content), "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
                           "X-Repo-Commit": COMMIT}.items():  # fmt: skip
            self.send_header(key, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _commit(self, path: str, body: bytes) -> None:
        name = path.removeprefix("api/models/").partition("/commit/")[0]
        files = self.hub.pushed.setdefault(name, {})
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        self._json({"commitUrl": f"{self.hub.endpoint}/{name}/commit/{COMMIT}", "commitOid": COMMIT,
                    "success": True})  # fmt: skip

    def _note(self) -> str:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        self.hub.asked.append(f"{self.command} {path}")
        self.hub.tokens.add(self._token())
        return path

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, told: dict, status: int = 200, code: str = "") -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def no_login(monkeypatch, tmp_path):
    """No token of the machine's own, and an empty cache."""
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def online(monkeypatch, no_login) -> Iterator[Hub]:
    """The hub that HF_ENDPOINT names, reachable."""
    from huggingface_hub import constants

    from harness import hub

    served = Hub()
    handler = type("Served", (Handler,), {"hub": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    served.endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hub, "_silent", {})
    yield served
    server.shutdown()
    server.server_close()


@pytest.fixture
def unreachable(monkeypatch, no_login):
    """A hub at an address where nobody answers."""
    from huggingface_hub import constants

    from harness import hub

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_silent", {})
