"""The device authorization grant (RFC 8628): a code typed in on another machine's browser."""

from dataclasses import dataclass

from bearerd.core.redaction import Secret


@dataclass(frozen=True, slots=True)
class DeviceAuthorization:
    """What the server gave to begin with (section 3.2). Both URLs passed `check_browser_url`."""

    device_code: Secret
    user_code: str
    verification_uri: str
    verification_uri_complete: str | None
    expires_at: float
    interval_s: float
