"""A real archive on loopback: Debian's Orthanc with its DICOMweb plugin."""

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx2

_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
TITLE = "ORTHANC"


def is_installed() -> bool:
    return shutil.which("Orthanc") is not None and _PLUGIN.exists()


class Orthanc:
    """An Orthanc whose archive survives when it is killed.

    Attributes:
        url: of DICOMweb.
        address: of classic DICOM.
        move_port: where it sends what C-MOVE asks for.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        http_port, dicom_port, self.move_port = _free_ports(3)
        self._base = f"http://127.0.0.1:{http_port}"
        self.url = f"{self._base}/dicom-web"
        self.address = f"{TITLE}@127.0.0.1:{dicom_port}"
        settings = {
            "Name": "tests",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": http_port,
            "HttpBindAddresses": ["127.0.0.1"],
            "DicomPort": dicom_port,
            "DicomAet": TITLE,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowMove": True,
            "DicomModalities": {"osler": ["OSLER", "127.0.0.1", self.move_port]},
            "Plugins": [str(_PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "orthanc.json").write_text(json.dumps(settings))

    def __enter__(self) -> "Orthanc":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["Orthanc", str(self._folder / "orthanc.json")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            try:
                if httpx2.get(f"{self._base}/system", trust_env=False).status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.1)
        raise AssertionError("Orthanc does not start")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)

    def count(self) -> int:
        answer = httpx2.get(f"{self._base}/statistics", trust_env=False)
        return int(answer.json()["CountInstances"])


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
