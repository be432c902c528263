"""What a client is told when a request fails: OpenAI's error form, the reason and no more."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from osler.errors import GenerationCancelledError, InputError, OslerError, QueueFullError

RETRY_AFTER_S = 2

_FIELD = re.compile("(?!str$|int$)[a-z_]+|[0-9]+")
_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(HTTPException):
    """A refusal with its HTTP status; it does not leave this room.

    Attributes:
        status_code: the HTTP status.
        detail: one line for the client.
        code: a word that programs can go by, or None.
        param: the field of the request that is at fault, or None.
    """

    def __init__(
        self,
        status_code: int,
        detail: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status_code, detail, headers)
        self.code = code
        self.param = param


def busy(reason: str) -> ApiError:
    """A refusal for now."""
    return ApiError(429, reason, code="server_busy", headers={"Retry-After": str(RETRY_AFTER_S)})


def from_osler(error: OslerError) -> ApiError:
    """The refusal that one of Osler's errors means."""
    match error:
        case InputError():
            return ApiError(400, str(error))
        case QueueFullError():
            return busy(str(error))
        case GenerationCancelledError():
            return ApiError(503, str(error), code="cancelled")
    return ApiError(500, str(error))


def from_validation(error: ValidationError) -> ApiError:
    """The refusal of a body of another form; says where, and never what stood there."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    # Of a choice between forms, the complaint that goes deepest is about the form that was meant.
    deepest = max(found, key=lambda one: len(one["loc"]))
    if deepest["type"] == "json_invalid":
        reason = deepest["msg"].removeprefix("Invalid JSON: ")
        return ApiError(400, f"the body is not JSON: {reason}")
    # The form's name is among the steps as well, as in "content.list[ContentPart].0".
    steps = [str(step) for step in deepest["loc"] if _FIELD.fullmatch(str(step))]
    where = ".".join(steps)
    return ApiError(400, f"{where or 'body'}: {deepest['msg']}", param=where or None)


def error_object(error: HTTPException) -> dict[str, Any]:
    """An error in OpenAI's form."""
    status = error.status_code
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {
        "error": {
            "message": error.detail,
            "type": kind,
            "param": getattr(error, "param", None),
            "code": getattr(error, "code", None),
        }
    }


def error_response(error: HTTPException) -> JSONResponse:
    """The response that tells of an error."""
    return JSONResponse(error_object(error), error.status_code, headers=error.headers)


async def on_http_exception(_: Request, error: Exception) -> JSONResponse:
    """For a refusal, ours or the router's."""
    assert isinstance(error, HTTPException)
    return error_response(error)


async def on_osler_error(_: Request, error: Exception) -> JSONResponse:
    """For what the rooms below raise on purpose."""
    assert isinstance(error, OslerError)
    return error_response(from_osler(error))


async def on_validation_error(_: Request, error: Exception) -> JSONResponse:
    """For a body of another form."""
    assert isinstance(error, ValidationError)
    return error_response(from_validation(error))


async def on_any_error(_: Request, error: Exception) -> JSONResponse:
    """For what nobody foresaw; the log has the place, the client does not."""
    return error_response(ApiError(500, "something went wrong inside the server"))
