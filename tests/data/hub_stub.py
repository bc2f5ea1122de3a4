"""A server that plays the hub and GitHub, with faults by the name of what is asked for."""

import hashlib
import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HTTP_ERRORS = {  # repository name -> (status, what the hub says in `X-Error-Code`)
    "gone": (404, "RepoNotFound"),
    "gated": (401, "GatedRepo"),
    "forbidden": (403, None),
    "broken": (500, None),
}


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zipped(files):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()


class Stub(ThreadingHTTPServer):
    """`files`: (repository, path) -> bytes. `faults`: path -> "cut" (half of it, then the connection ends),
    "hang" (after half of it, until the server stops), "short" (whole and shorter than announced elsewhere).
    `asked` lists every request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.asked = {}, {}, []
        self.commit, self.over = COMMIT, threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def of(self, repo):
        return {path: data for (name, path), data in self.files.items() if name == repo}

    def handle_error(self, request, client_address):
        pass  # clients that are killed leave broken pipes


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = unquote(self.path.partition("?")[0])
        self.server.asked.append(f"{self.command} {path}")
        _, *parts = path.split("/")
        if parts[:2] == ["api", "datasets"]:
            self.about("/".join(parts[2:4]), parts[4:])
        elif parts[0] == "datasets":
            self.file("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
        elif parts[0] == "raw":
            self.file("/".join(parts[1:3]), parts[3], "/".join(parts[4:]))
        elif parts[0] == "api.github":
            self.repository("/".join(parts[2:4]), parts[4:])
        else:
            self.file("web/web", COMMIT, path[1:])

    do_HEAD = do_POST = do_GET

    def about(self, repo, rest):
        if self.refused(repo):
            return
        files = self.server.of(repo)
        if rest[:1] == ["revision"] and rest[1] not in (self.server.commit, "main"):
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif rest[:1] == ["tree"]:
            tree = [{"type": "file", "path": p, "size": len(d), "oid": sha1(d)} for p, d in files.items()]
            self.answer(200, json.dumps(tree).encode())
        elif rest[:1] == ["paths-info"]:
            size = int(self.headers.get("Content-Length") or 0)
            wanted = unquote(self.rfile.read(size).decode())
            found = [
                {"type": "file", "path": p, "size": len(d), "oid": sha1(d)}
                for p, d in files.items()
                if p in wanted
            ]
            self.answer(200, json.dumps(found).encode())
        else:
            siblings = [{"rfilename": p, "size": len(d), "blobId": sha1(d)} for p, d in files.items()]
            told = {"id": repo, "sha": self.server.commit, "siblings": siblings, "tags": []}
            told |= {"private": False, "gated": False, "disabled": False, "downloads": 0, "likes": 0}
            self.answer(200, json.dumps(told).encode())

    def repository(self, repo, rest):
        if self.refused(repo):
            return
        if rest == ["commits", "HEAD"]:
            self.answer(200, json.dumps({"sha": self.server.commit}).encode())
        else:
            tree = [{"type": "blob", "path": path} for path in self.server.of(repo)]
            self.answer(200, json.dumps({"tree": tree, "truncated": False}).encode())

    def file(self, repo, revision, path):
        if self.refused(repo.removeprefix("locked-")):
            return
        data = self.server.files.get((repo, path))
        if data is None or revision not in (self.server.commit, "main"):
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.server.commit})
            return
        if repo.startswith("locked-"):
            self.answer(401, b"", {"X-Error-Code": "GatedRepo"})
            return
        self.answer(
            200, data, {"ETag": f'"{sha1(data)}"', "X-Repo-Commit": revision}, self.server.faults.get(path)
        )

    def refused(self, repo):
        status, code = HTTP_ERRORS.get(repo.rpartition("/")[2], (None, None))
        if status:
            self.answer(status, b"", {"X-Error-Code": code} if code else {})
        return status is not None

    def answer(self, status, data, headers=None, fault=None):
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in ("cut", "hang"):
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            if fault == "hang":
                self.server.over.wait(60)
            self.close_connection = True
            return
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
