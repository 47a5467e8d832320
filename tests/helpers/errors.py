"""Error responses and error classes of the server."""

from __future__ import annotations

from typing import Any

import httpx

from service.errors import ServiceError


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """Return the error in a response, after checking its status and form."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["content-type"] == "application/json"
    assert "Traceback" not in response.text
    return dict(error)


def errors(base: type[ServiceError] = ServiceError) -> list[type[ServiceError]]:
    """Return a class of errors and its subclasses, their subclasses included."""
    return [base, *(error for child in base.__subclasses__() for error in errors(child))]
