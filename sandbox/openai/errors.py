"""The refusals that OpenAI answers with: a status and `{"error": {message, type, param, code}}`."""

from __future__ import annotations


class ApiError(Exception):
    """A refusal. `code` is what a client may act on; where OpenAI gives none it is None."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind
        self.retry_after = retry_after

    def body(self) -> dict[str, object]:
        """All four fields are always present: the schema `Error` requires them."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def not_found(what: str, object_id: str) -> ApiError:
    return ApiError(404, f"No such {what}: {object_id}")


def wrong_key(redacted: str) -> ApiError:
    """Wrong, revoked, expired and not yet propagated keys are told apart by nobody outside."""
    return ApiError(
        401,
        f"Incorrect API key provided: {redacted}. You can find your API key at https://platform.openai.com/account/api-keys.",
        code="invalid_api_key",
    )


def no_key() -> ApiError:
    return ApiError(
        401,
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth.",
    )


def missing_scope(scope: str) -> ApiError:
    """The key is accepted, the operation is not.

    Clients have reported both statuses, 401 for `model.request` (microsoft/PowerToys#32989) and 403 for
    `api.model.read`, in either case without a code.
    """
    return ApiError(
        401 if scope == "model.request" else 403,
        f"You have insufficient permissions for this operation. Missing scopes: {scope}. Check that you have the correct "
        "role in your organization and project, and if you're using a restricted API key, that it has the necessary scopes.",
    )


def ip_not_authorized() -> ApiError:
    return ApiError(401, "Your IP is not authorized to access this resource.", code="ip_not_authorized")


def too_many_requests(retry_after: int) -> ApiError:
    return ApiError(
        429,
        f"Rate limit reached on requests per min (RPM). Please try again in {retry_after}s.",
        code="rate_limit_exceeded",
        kind="requests",
        retry_after=retry_after,
    )
