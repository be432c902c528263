"""A DICOMweb service of a hundred lines: it keeps instances in memory, and fails as it is told."""

import json
import re
import threading
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydicom import Dataset, dcmread

_INSTANCE = re.compile(r"/studies/([\d.]+)/series/([\d.]+)/instances/([\d.]+)")
_INSTANCES = re.compile(r"/studies/([\d.]+)/series/([\d.]+)/instances")
_SERIES = re.compile(r"/studies/([\d.]+)/series")


class TinyWebArchive:
    """On loopback, in a thread of its own.

    Attributes:
        files: by SOP instance UID.
        requests: every method and path, as they came.
        statuses: what to answer to the next requests with, instead of an answer.
        cut: how many of the next files to break off in the middle.
        fetches_left: after so many, the service is gone; None for never.
        page: the most that one list holds.
        refused: SOP instance UIDs that are not stored.
        token: which is asked for.
        ignores_keys: lists everything, whatever is asked.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.statuses: list[int] = []
        self.cut = 0
        self.fetches_left: int | None = None
        self.page = 1000
        self.refused: set[str] = set()
        self.token: str | None = None
        self.ignores_keys = False

    def __enter__(self) -> "TinyWebArchive":
        handler = type("Handler", (_Handler,), {"archive": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/dicom-web"
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def add(self, data: bytes) -> str:
        uid = str(self.header(data).SOPInstanceUID)
        self.files[uid] = data
        return uid

    def header(self, data: bytes) -> Dataset:
        return dcmread(BytesIO(data), stop_before_pixels=True)

    @property
    def fetched(self) -> int:
        return sum(_INSTANCE.search(request) is not None for request in self.requests)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that breaks off is what tests are about."""


class _Handler(BaseHTTPRequestHandler):
    archive: TinyWebArchive
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self._is_stopped():
            return
        parts = urlsplit(self.path)
        path, keys = parts.path.removeprefix("/dicom-web"), dict(parse_qsl(parts.query))
        if match := _INSTANCE.fullmatch(path):
            self._send_file(match[3])
        elif match := _INSTANCES.fullmatch(path):
            keys = {"StudyInstanceUID": match[1], "SeriesInstanceUID": match[2], **keys}
            self._send_list(keys, "SOPInstanceUID", "SOPClassUID")
        elif match := _SERIES.fullmatch(path):
            keys["StudyInstanceUID"] = match[1]
            self._send_list(keys, "SeriesInstanceUID", "Modality")
        elif path == "/studies":
            self._send_list(keys, "StudyInstanceUID", "PatientID", "AccessionNumber", "StudyDate")
        else:
            self._send(404, b"", "text/plain")

    def do_POST(self) -> None:
        if self._is_stopped():
            return
        body = self.rfile.read(int(self.headers["content-length"]))
        header = Message()
        header["content-type"] = self.headers["content-type"]
        assert header.get_param("type") == "application/dicom"
        boundary = f"--{header.get_boundary()}".encode()
        stored, failed = [], []
        for part in body.split(boundary)[1:-1]:
            data = part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
            found = self.archive.header(data)
            item = {"00081155": {"vr": "UI", "Value": [str(found.SOPInstanceUID)]}}
            if found.SOPInstanceUID in self.archive.refused:
                failed.append(item)
            else:
                self.archive.files.setdefault(str(found.SOPInstanceUID), data)
                stored.append(item)
        answer = {
            "00081198": {"vr": "SQ", "Value": failed},
            "00081199": {"vr": "SQ", "Value": stored},
        }
        status = 200 if not failed else 202 if stored else 409
        self._send(status, json.dumps(answer).encode(), "application/dicom+json")

    def _is_stopped(self) -> bool:
        archive = self.archive
        archive.requests.append(f"{self.command} {self.path}")
        if archive.token and self.headers["authorization"] != f"Bearer {archive.token}":
            self._send(401, b"", "text/plain")
        elif archive.statuses:
            status = archive.statuses.pop(0)
            self._send(status, b"who is 19500101 Nobody^Nowhere", "text/plain")
        elif archive.fetches_left == 0:
            self._break_off()
        else:
            return False
        return True

    def _send_list(self, keys: dict[str, str], *keywords: str) -> None:
        found: dict[str, Dataset] = {}
        for data in self.archive.files.values():
            header = self.archive.header(data)
            matching = all(
                header.get(key) == value for key, value in keys.items() if key[0].isupper()
            )
            if matching or self.archive.ignores_keys:
                answer = Dataset()
                for keyword in keywords:
                    setattr(answer, keyword, header.get(keyword))
                found[str(answer[keywords[0]].value)] = answer
        start = int(keys.get("offset", 0))
        page = list(found.values())[start : start + min(int(keys["limit"]), self.archive.page)]
        body = json.dumps([answer.to_json_dict() for answer in page]).encode()
        if page:
            self._send(200, body, "application/dicom+json")
        else:
            self._send(204, b"", "application/dicom+json")

    def _send_file(self, uid: str) -> None:
        archive = self.archive
        if archive.fetches_left is not None:
            archive.fetches_left -= 1
        if uid not in archive.files:
            self._send(404, b"", "text/plain")
            return
        body = b"--edge\r\nContent-Type: application/dicom\r\n\r\n%s\r\n--edge--\r\n"
        body %= archive.files[uid]
        kind = 'multipart/related; type="application/dicom"; boundary=edge'
        if archive.cut:
            archive.cut -= 1
            self._send(200, body[: len(body) // 2], kind, size=len(body))
            self._break_off()
        else:
            self._send(200, body, kind)

    def _send(self, status: int, body: bytes, kind: str, size: int | None = None) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        if status == 302:
            self.send_header("location", "http://127.0.0.1:1/elsewhere")
        self.send_header("content-length", str(len(body) if size is None else size))
        self.end_headers()
        self.wfile.write(body)

    def _break_off(self) -> None:
        self.close_connection = True
