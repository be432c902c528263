"""The client of FHIR servers, and its tokens, against servers that behave and that do not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from osler.archive.address import WebAddress
from osler.archive.fhir_server import RECORD_TYPES, FhirServer
from osler.archive.settings import LinkSettings
from osler.archive.smart_token import BackendClient
from osler.errors import ArchiveError, InputError, RecordError
from osler.testing.fhir import PATIENT, bundle, lab

BASE = "https://fhir.example/r4"
Handler = Callable[[httpx2.Request], httpx2.Response]


def server(handler: Handler, client: BackendClient | None = None, **settings: Any) -> FhirServer:
    return FhirServer(
        WebAddress(base=BASE),
        LinkSettings(attempts=2, wait_s=0.001, **settings),
        client=client,
        transport=httpx2.MockTransport(handler),
    )


def page(*resources: dict[str, Any], following: str | None = None) -> httpx2.Response:
    found = json.loads(bundle(*resources, kind="searchset"))
    if following:
        found["link"] = [{"relation": "self", "url": BASE}, {"relation": "next", "url": following}]
    return httpx2.Response(200, text=json.dumps(found, indent=2))  # on many lines, as servers do


def test_everything_page_by_page() -> None:
    asked: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        assert request.headers["authorization"] == "Bearer t0ken"
        assert request.headers["accept"] == "application/fhir+json"
        if "page" in request.url.params:
            return page(lab("o1", "2020", 9))
        return page(PATIENT, following=f"{BASE}?page=2&x=%7C")

    pages = server(handler, token="t0ken").record("p1", "2024-01-31")
    assert [json.loads(one)["entry"][0]["resource"]["id"] for one in pages] == ["p1", "o1"]
    assert not any(b"\n" in one for one in pages)
    first = httpx2.URL(asked[0])
    assert first.path == "/r4/Patient/p1/$everything"
    assert first.params["_since"] == "2024-01-31T00:00:00+00:00"
    assert asked[1] == f"{BASE}?page=2&x=%7C"


def test_a_server_without_everything_is_searched() -> None:
    searched: dict[str, list[tuple[str, str]]] = {}

    def handler(request: httpx2.Request) -> httpx2.Response:
        kind = request.url.path.removeprefix("/r4/")
        if kind == "Patient/p1":
            return httpx2.Response(200, json=PATIENT)
        if kind.endswith("$everything") or kind == "Goal":
            return httpx2.Response(404, json={"resourceType": "OperationOutcome"})
        searched[kind] = request.url.params.multi_items()
        return page(lab("o1", "2020", 9)) if kind == "Observation" else page()

    remote = server(handler)
    pages = remote.record("p1", "2024-01-31T12:00:00Z")
    assert json.loads(pages[0])["resourceType"] == "Patient"
    assert set(searched) == set(RECORD_TYPES) - {"Goal"}
    assert remote.unsearched == ["Goal"]
    assert ("patient", "p1") in searched["Condition"]
    assert ("_lastUpdated", "ge2024-01-31T12:00:00+00:00") in searched["Condition"]
    included = ("_include", "MedicationRequest:medication")
    assert included in searched["MedicationRequest"]


def test_no_such_patient() -> None:
    with pytest.raises(RecordError, match="no patient of that id"):
        server(lambda _: httpx2.Response(404)).record("p1")


def failure(handler: Handler, kind: type[Exception] = ArchiveError, **settings: Any) -> str:
    with pytest.raises(kind) as error:
        server(handler, **settings).record("p1")
    message = str(error.value)
    assert message.startswith(BASE)
    assert "Jane" not in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (httpx2.Response(401, text="Jane Doe"), "needs a token (401)"),
        (httpx2.Response(403), "needs a token (403)"),
        (httpx2.Response(302, headers={"location": "https://evil.example"}), "redirects elsewhere"),
        (httpx2.Response(500, text="Jane Doe"), "answers 500"),
        (httpx2.Response(200, text="<html>Jane Doe"), "sends no FHIR"),
        (httpx2.Response(200, text="[" * 100_000), "sends no FHIR"),
        (httpx2.Response(200, json={"entry": []}), "sends no FHIR"),
        (page(PATIENT, following="https://evil.example/r4?page=2"), "its next page is elsewhere"),
        (page(PATIENT, following="http://fhir.example/r4?page=2"), "its next page is elsewhere"),
        (page(PATIENT, following="//evil.example/"), "its next page is elsewhere"),
        (page(PATIENT, following=f"{BASE}?page=2"), "or was there"),  # and so on without an end
    ],
)
def test_servers_that_misbehave(response: httpx2.Response, reason: str) -> None:
    assert reason in failure(lambda _: response)


def test_a_server_that_comes_back_is_asked_again() -> None:
    answers = [httpx2.Response(503), page(PATIENT)]
    assert len(server(lambda _: answers.pop(0)).record("p1")) == 1


def test_a_refused_token_is_not_shown() -> None:
    message = failure(lambda _: httpx2.Response(401), token="s3cret")
    assert "refuses the token" in message
    assert "s3cret" not in message


@pytest.mark.parametrize("patient", ["", "../Group/1", "p1?x=1", "a" * 65, "p 1"])
def test_ids_that_are_none_are_not_asked_for(patient: str) -> None:
    with pytest.raises(InputError, match="a patient's id"):
        server(lambda _: page(PATIENT)).record(patient)


def test_dates_that_are_none() -> None:
    with pytest.raises(InputError, match="since: give a date"):
        server(lambda _: page(PATIENT)).record("p1", "yesterday")


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class TokenServer:
    """A FHIR server that takes tokens of its own token service only."""

    def __init__(self, key: Any, algorithm: str, *, expires_in: int = 300) -> None:
        self.key, self.algorithm, self.expires_in = key, algorithm, expires_in
        self.issued: list[dict[str, Any]] = []
        self.endpoint = "https://login.example/token"

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        url = str(request.url)
        if url == f"{BASE}/.well-known/smart-configuration":
            capabilities = ["client-confidential-asymmetric", "permission-v2"]
            found = {"token_endpoint": self.endpoint, "capabilities": capabilities}
            return httpx2.Response(200, json=found)
        if url == self.endpoint:
            form = {name: value for name, (value,) in parse_qs(request.content.decode()).items()}
            claims = jwt.decode(
                form["client_assertion"],
                self.key,
                algorithms=[self.algorithm],
                audience=self.endpoint,
                options={"require": ["exp", "jti"]},
            )
            self.issued.append(form | {"claims": claims})
            token = {"access_token": f"t{len(self.issued)}", "expires_in": self.expires_in}
            return httpx2.Response(200, json=token)
        assert request.headers["authorization"] == f"Bearer t{len(self.issued)}"
        return page(PATIENT) if "page" in request.url.params else page(following=f"{BASE}?page=2")


def test_a_token_by_a_signed_assertion(rsa_key: rsa.RSAPrivateKey, tmp_path: Path) -> None:
    pem = rsa_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    service = TokenServer(rsa_key.public_key(), "RS384")
    client = BackendClient(client_id="osler", key_file=tmp_path / "key.pem")
    assert len(server(service, client).record("p1")) == 2
    (form,) = service.issued
    assert form["grant_type"] == "client_credentials"
    assert form["scope"] == "system/*.rs"
    assert form["client_assertion_type"].endswith("jwt-bearer")
    claims = form["claims"]
    assert claims["iss"] == claims["sub"] == "osler"
    assert claims["exp"] - claims["iat"] <= 300


def test_a_jwk_and_a_token_that_is_soon_over(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key)) | {"kid": "k1", "alg": "ES384"}
    (tmp_path / "key.json").write_text(json.dumps(jwk))
    service = TokenServer(key.public_key(), "ES384", expires_in=1)
    client = BackendClient(client_id="osler", key_file=tmp_path / "key.json", scope="system/x.rs")
    server(service, client).record("p1")
    assert len(service.issued) == 2  # one a page
    assert service.issued[0]["claims"]["jti"] != service.issued[1]["claims"]["jti"]
    assert service.issued[0]["scope"] == "system/x.rs"
    assert jwt.get_unverified_header(service.issued[0]["client_assertion"])["kid"] == "k1"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        (b"not a key", "no private key"),
        (b'{"kty": "RSA"}', "no private key"),
        (b"{", "no private key"),
        (b'{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}', "neither an RSA key nor an EC key"),
    ],
)
def test_keys_that_are_none(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    service = TokenServer(None, "RS384")
    with pytest.raises(InputError, match=f"^{path}: .*{reason}"):
        server(service, BackendClient(client_id="o", key_file=path)).record("p1")


def test_a_token_service_that_is_open_to_all(tmp_path: Path) -> None:
    service = TokenServer(None, "RS384")
    service.endpoint = "http://login.example/token"
    client = BackendClient(client_id="o", key_file=tmp_path / "key")
    with pytest.raises(ArchiveError, match="its token service is not encrypted"):
        server(service, client).record("p1")


@pytest.mark.parametrize(
    ("configuration", "reason"),
    [
        (httpx2.Response(404), "smart-configuration answers 404"),
        (httpx2.Response(200, json={}), "names no token service"),
        (httpx2.Response(200, text="Jane"), "names no token service"),
    ],
)
def test_servers_without_tokens(
    configuration: httpx2.Response, reason: str, tmp_path: Path
) -> None:
    client = BackendClient(client_id="o", key_file=tmp_path / "key")
    with pytest.raises(ArchiveError, match=reason):
        server(lambda _: configuration, client).record("p1")
