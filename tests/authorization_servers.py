"""An authorization server as the login service sees it, with its answers in the test's hands."""

import asyncio
from dataclasses import replace
from typing import Literal

from bearerd.core.authorization import Transaction
from bearerd.core.device import DeviceAuthorization
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.metadata import Metadata
from bearerd.core.redaction import Secret
from bearerd.core.tokens import Granted

ISSUER = "https://login.example.com"
SERVER = Metadata(
    ISSUER,
    f"{ISSUER}/token",
    authorization_endpoint=f"{ISSUER}/authorize",
    device_authorization_endpoint=f"{ISSUER}/device",
    revocation_endpoint=f"{ISSUER}/revoke",
)
PENDING = Failure(FailureKind.TRANSIENT, "the person has not decided yet", None, "authorization_pending")


class FakeAuthorizationServer:
    """Grants tokens numbered from 1, or gives `failure`; with `gate` cleared a redemption hangs until it is set. What begins
    a login waits for `pause`.

    A device's login is pending as often as `device_pending` says. `redeemed` and `revoked` are what was presented.
    """

    def __init__(self) -> None:
        self.description: Metadata | Failure = SERVER
        self.failure: Failure | None = None
        self.device_pending: list[Failure] = []
        self.device_lifetime_s = 600.0
        self.wall = 0.0
        self.redeemed: list[str] = []
        self.revoked: list[tuple[str, str]] = []
        self.unrevoked: str | None = None
        self.closed = False
        self.pause: asyncio.Event | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    def require_iss(self) -> None:
        """From now on it says that its callbacks name it."""
        self.description = replace(SERVER, iss_required=True)

    async def describe(self) -> Metadata | Failure:
        await self._wait()
        return self.description

    async def redeem(self, code: Secret, transaction: Transaction) -> Granted | Failure:
        del transaction
        self.redeemed.append(code.reveal())
        await self.gate.wait()
        return self.failure or self._grant()

    async def authorize_device(self) -> DeviceAuthorization | Failure:
        await self._wait()
        return self.failure or DeviceAuthorization(
            Secret("device-code"), "WDJB-MJHT", f"{ISSUER}/go", None, self.wall + self.device_lifetime_s, 5.0
        )

    async def redeem_device(self, device: DeviceAuthorization) -> Granted | Failure:
        self.redeemed.append(device.device_code.reveal())
        await self.gate.wait()
        return self.device_pending.pop(0) if self.device_pending else self._grant()

    async def revoke(self, token: Secret, kind: Literal["refresh_token", "access_token"]) -> str | None:
        self.revoked.append((kind, token.reveal()))
        return self.unrevoked

    async def aclose(self) -> None:
        self.closed = True

    async def _wait(self) -> None:
        if self.pause is not None:
            await self.pause.wait()

    def _grant(self) -> Granted:
        number = len(self.redeemed)
        return Granted(Secret(f"login-{number}"), 600.0, Secret(f"refresh-{number}"), subject="someone")
