"""What OpenSSL has against a certificate, and when certificates end, with cures. Pure."""

import ssl
from collections.abc import Sequence
from typing import Final

from cryptography import x509

from bearerd.doctor.destinations import Place
from bearerd.doctor.findings import Finding, Level

SOON_S: Final = 14 * 86_400.0
MISMATCHES: Final = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, ..._IP_ADDRESS_MISMATCH
_NOT_YET: Final = 9
_EXPIRED: Final = 10
_UNKNOWN: Final = frozenset({2, 18, 19, 20, 21})  # by an authority that is not known here, or by nobody's


def judge_certificate(place: Place, code: int, names: Sequence[str]) -> Finding:
    """`code` is OpenSSL's, ``X509_V_ERR_...``; `names` are those of the certificate, where it is for another."""
    if code in MISMATCHES:
        return _judge_mismatch(place, names)
    if code in _UNKNOWN:
        return _judge_unknown(place)
    what = {_NOT_YET: "is not valid yet", _EXPIRED: "has expired"}.get(
        code, f"is refused (X509 error {code})"
    )
    cure = "have it renewed at the server; if it is a good one, set this machine's clock"
    return Finding(Level.FAIL, "reach", f"{place.origin}: its certificate {what}", cure)


def _judge_mismatch(place: Place, names: Sequence[str]) -> Finding:
    wanted = place.way.tls.server_name or place.origin.host
    text = f"{place.origin}: its certificate is not for {wanted}, but for {', '.join(names[:5]) or 'another name'}"
    if not place.upstream:
        return Finding(
            Level.FAIL, "reach", text, f"mend {place.setting}, or have the server get one for {wanted}"
        )
    name = names[0] if names else "NAME"
    cure = f'if that is the right server, set {place.beside("server_name")} = "{name}"; else mend {place.setting}'
    return Finding(Level.FAIL, "reach", text, cure)


def _judge_unknown(place: Place) -> Finding:
    text = f"{place.origin}: its certificate is of an authority that is not known here"
    setting = place.beside("ca_file")
    if place.way.tls.ca_file is not None:
        return Finding(
            Level.FAIL, "reach", f"{text}: {place.way.tls.ca_file} has not got it", f"mend {setting}"
        )
    return Finding(Level.FAIL, "reach", text, f"if it is to be trusted, set {setting} to a PEM file with it")


def judge_handshake(place: Place, exc: OSError) -> Finding:
    """For a connection that was made, and broke while TLS was begun or just after."""
    reason = getattr(exc, "reason", None) or ""
    if place.upstream and ("CERTIFICATE_REQUIRED" in reason or "ALERT" in reason):
        text = f"{place.origin} refuses TLS: {reason.lower().replace('_', ' ')}"
        cure = f"where it wants a client certificate, set {place.beside('client_cert_file')} to one that it takes"
        return Finding(Level.FAIL, "reach", text, cure)
    text = f"{place.origin} does not speak TLS, or wants another kind of it"
    return Finding(Level.FAIL, "reach", text, f"mend {place.setting}: the port, or http in place of https")


def judge_expiry(place: Place, not_after: str | None, now: float) -> Finding | None:
    """None unless a certificate, which is good, ends soon. `not_after` is as `ssl` gives it."""
    if not_after is None:
        return None
    left_s = ssl.cert_time_to_seconds(not_after) - now
    if left_s > SOON_S:
        return None
    text = f"{place.origin} answers; its certificate ends in {left_s / 86_400:.0f} days, {not_after}"
    return Finding(Level.WARN, "reach", text, "have it renewed at the server")


def judge_client_certificate(path: str, pem: bytes, now: float) -> Finding:
    """The first certificate of a file that settings have already found to have one."""
    ends_at = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    left_s = ends_at.timestamp() - now
    text = f"the client certificate {path} ends on {ends_at:%Y-%m-%d}"
    cure = "have a new one issued, and put it there"
    if left_s <= 0:
        return Finding(
            Level.FAIL,
            "certificate",
            f"the client certificate {path} has expired on {ends_at:%Y-%m-%d}",
            cure,
        )
    if left_s <= SOON_S:
        return Finding(Level.WARN, "certificate", text, cure)
    return Finding(Level.OK, "certificate", text)
