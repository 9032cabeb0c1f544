"""The directory of the stand-in: principals, what they may do, and the tokens that they get at Entra's token endpoint.

Enough of https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow for azure-identity's
ClientSecretCredential. The tokens are JSON web tokens as Key Vault gets them (issuer sts.windows.net, audience
https://vault.azure.net), signed with a key that only the stand-in has.
"""

from __future__ import annotations

import base64
import fnmatch
import hmac
import json
import secrets
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

VAULT_AUDIENCE: Final = "https://vault.azure.net"
PERMISSIONS: Final = frozenset({"get", "list", "set", "delete", "recover", "backup", "restore", "purge"})

# The sandbox's own tenant and its owner. All of it is public: it opens nothing but a stand-in on this machine.
TENANT_ID: Final = "5eed0000-0000-4000-8000-00000000000a"
OWNER_ID: Final = "5eed0000-0000-4000-8000-00000000000b"
OWNER_SECRET: Final = "keyturn-sandbox-owner"

_KNOWN_AUDIENCES = frozenset({VAULT_AUDIENCE, "https://management.azure.com", "https://graph.microsoft.com"})


@dataclass(frozen=True)
class Rule:
    """Permissions on the secrets whose names match one of the patterns (`*` and `?`, case aside)."""

    permissions: frozenset[str]
    names: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        unknown = set(self.permissions) - PERMISSIONS
        if unknown:
            raise ValueError(f"no such permissions: {sorted(unknown)}; there are {sorted(PERMISSIONS)}")

    def covers(self, permission: str, name: str | None) -> bool:
        """Whether it is about this permission on this secret, or with None on the vault as a whole."""
        if permission not in self.permissions:
            return False
        if name is None:
            return "*" in self.names
        return any(fnmatch.fnmatchcase(name.lower(), pattern.lower()) for pattern in self.names)


@dataclass(frozen=True)
class Assignment:
    """A role's data actions at a scope, as Azure role-based access control has them: at the vault, or at one secret."""

    actions: frozenset[str]
    """Below Microsoft.KeyVault/vaults/secrets/: `getSecret/action`."""
    secret: str | None = None
    """None for the vault, which reaches all of its secrets."""


@dataclass(frozen=True)
class Principal:
    """Somebody who can ask for tokens. What no rule or role allows is refused, and so is what a rule denies."""

    client_id: str
    client_secret: str = field(repr=False)
    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    roles: tuple[Assignment, ...] = ()

    @property
    def object_id(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, self.client_id))

    def holds(self, action: str, name: str | None) -> bool:
        """Whether a role gives it a data action on a secret, or with None on the vault as a whole."""
        return any(
            action in role.actions and (role.secret is None or (name or "").lower() == role.secret.lower())
            for role in self.roles
        )

    def may(self, permission: str, name: str | None) -> bool:
        """Whether it has a permission of `PERMISSIONS` on a secret, or with None on the vault as a whole.

        Listing the vault and restoring are about the vault as a whole; a rule for some names does not reach that far.
        """
        return any(rule.covers(permission, name) for rule in self.allow) and not any(
            rule.covers(permission, name) for rule in self.deny
        )


def owner() -> Principal:
    """The principal that may do everything."""
    return Principal(OWNER_ID, OWNER_SECRET, allow=(Rule(PERMISSIONS),))


class UnauthorizedError(Exception):
    """A request whose token is missing or does not hold.

    Attributes:
        message: in the service's words where they are known.
        challenge: what goes into WWW-Authenticate besides the usual.
    """

    def __init__(self, message: str, challenge: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.challenge = challenge


class Directory:
    """A tenant. Safe to use from several threads.

    Args:
        key: signs tokens; restarts that keep it leave tokens valid.
        wall: the time on this machine in seconds since 1970. Tokens go by it and not by the sandbox's clock, since the
            client measures their life by the machine's time, too.
    """

    def __init__(
        self,
        *,
        tenant_id: str = TENANT_ID,
        principals: Iterable[Principal] = (),
        key: bytes | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.tenant_id = tenant_id
        self.token_lifetime = 3599
        """Seconds that new tokens live for. MSAL takes one with less than 300 left to be expired."""
        self._principals = {each.client_id: each for each in principals}
        self._key = key or secrets.token_bytes(32)
        self._wall = wall
        self._revocations = 0

    def put(self, principal: Principal) -> None:
        """Adds a principal, or replaces the one of the same client id; it takes effect on the next request."""
        self._principals[principal.client_id] = principal

    def remove(self, client_id: str) -> None:
        self._principals.pop(client_id, None)

    def get(self, client_id: str) -> Principal | None:
        return self._principals.get(client_id)

    def revoke_tokens(self) -> None:
        """Ends every token issued so far. The vault then answers with a claims challenge (continuous access evaluation)."""
        self._revocations += 1

    def token(self, form: Mapping[str, str]) -> tuple[dict[str, Any], int]:
        """Answers a token request: the body and the status."""
        principal = self.get(form.get("client_id", ""))
        audience, _, suffix = form.get("scope", "").rpartition("/")
        if form.get("grant_type") != "client_credentials":
            return _refusal(400, "unsupported_grant_type", "AADSTS70003: The app requested an unsupported grant type.")
        if not principal:
            return _refusal(400, "unauthorized_client", "AADSTS700016: Application was not found in the directory.")
        if not hmac.compare_digest(principal.client_secret.encode(), form.get("client_secret", "").encode()):
            return _refusal(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        if suffix != ".default":
            return _refusal(400, "invalid_scope", "AADSTS1002012: The provided value for scope is not valid.")
        if audience not in _KNOWN_AUDIENCES:
            return _refusal(
                400, "invalid_resource", "AADSTS500011: The resource principal was not found in the tenant."
            )
        now = int(self._wall())
        claims = {
            "aud": audience,
            "iss": self._issuer,
            "iat": now,
            "nbf": now,
            "exp": now + self.token_lifetime,
            "appid": principal.client_id,
            "oid": principal.object_id,
            "tid": self.tenant_id,
            "revocations": self._revocations,
        }
        token = jwt.encode(claims, self._key, algorithm="HS256")
        lifetime = {"expires_in": self.token_lifetime, "ext_expires_in": self.token_lifetime}
        return {"token_type": "Bearer", **lifetime, "access_token": token}, 200

    def authenticate(self, authorization: str | None) -> Principal:
        """Tells who sent a request.

        Args:
            authorization: the header of that name.

        Raises:
            UnauthorizedError: the token is missing, not ours, over, revoked, for another audience or another tenant.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthorizedError("AKV10000: Request is missing a Bearer, PoP, or MTLS_POP token.")
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=["HS256"],
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False},
            )
        except jwt.InvalidTokenError:
            raise UnauthorizedError("AKV10046: Unable to resolve the key used for signature validation.") from None
        if claims["iss"] != self._issuer:
            raise UnauthorizedError(f"AKV10032: Invalid issuer. Expected {self._issuer}, found {claims['iss']}.")
        if claims["aud"] != VAULT_AUDIENCE:
            raise UnauthorizedError(f"AKV10022: Invalid audience. Expected {VAULT_AUDIENCE}, found: {claims['aud']}.")
        if not claims["nbf"] <= self._wall() < claims["exp"]:
            raise UnauthorizedError("The token's lifetime is over.")
        if claims["revocations"] != self._revocations:
            raise UnauthorizedError(
                "The token was revoked.", f', error="insufficient_claims", claims="{_fresh(self._wall())}"'
            )
        principal = self.get(claims["appid"])
        if not principal:
            raise UnauthorizedError("The token's principal is no longer in the directory.")
        return principal

    @property
    def _issuer(self) -> str:
        return f"https://sts.windows.net/{self.tenant_id}/"


def blueprint(directory: Directory) -> Blueprint:
    """The routes that azure-identity asks for with instance discovery switched off."""
    routes = Blueprint("entra", __name__)

    @routes.get("/<tenant>/v2.0/.well-known/openid-configuration")
    def discover(tenant: str) -> ResponseReturnValue:
        if tenant != directory.tenant_id:
            return _no_tenant(tenant)
        base = f"{request.host_url}{tenant}"
        return jsonify(
            issuer=f"{base}/v2.0",
            token_endpoint=f"{base}/oauth2/v2.0/token",
            authorization_endpoint=f"{base}/oauth2/v2.0/authorize",
            token_endpoint_auth_methods_supported=["client_secret_post"],
            response_types_supported=["token"],
        )

    @routes.post("/<tenant>/oauth2/v2.0/token")
    def token(tenant: str) -> ResponseReturnValue:
        if tenant != directory.tenant_id:
            return _no_tenant(tenant)
        body, status = directory.token(request.form)
        return jsonify(body), status

    return routes


def _refusal(status: int, error: str, description: str) -> tuple[dict[str, Any], int]:
    codes = [int(description.partition(":")[0].removeprefix("AADSTS"))]
    return {"error": error, "error_description": description, "error_codes": codes}, status


def _no_tenant(tenant: str) -> ResponseReturnValue:
    body, status = _refusal(400, "invalid_tenant", f"AADSTS90002: Tenant '{tenant}' not found.")
    return jsonify(body), status


def _fresh(now: float) -> str:
    """The claims challenge that asks for a token issued after now."""
    claims = {"access_token": {"nbf": {"essential": True, "value": str(int(now))}}}
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
