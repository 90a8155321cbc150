"""TLS towards upstreams: contexts that verify, made from the files that settings name. There is no way to verify less."""

import hashlib
import os
import ssl
from collections.abc import Container
from functools import lru_cache
from pathlib import Path
from typing import Final

from bearerd.core.targets import Tls

_MARKS: Final = {
    "ca_file": (b"CERTIFICATE-----", "-----BEGIN CERTIFICATE-----"),
    "client_cert_file": (b"CERTIFICATE-----", "-----BEGIN CERTIFICATE-----"),
    "client_key_file": (b"PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----"),
}
_MISMATCHES: Final = frozenset({"KEY_TYPE_MISMATCH", "KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
_LOCKED: Final = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")
_FILE_LIMIT: Final = 8 << 20  # the largest bundles of authorities have less than 1 MiB


class Untrustworthy(Exception):  # noqa: N818  # a problem found while reading, given on as a line
    """A file cannot be used. `key` is its setting; `text` says what is wrong with it and names the cure."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(key, text)
        self.key = key
        self.text = text


class Trust:
    """A context for each `Tls`, made at the first need: that takes milliseconds of reading and parsing."""

    def __init__(self, contexts: dict[Tls, ssl.SSLContext] | None = None) -> None:
        self._contexts = dict(contexts or {})

    def context(self, tls: Tls) -> ssl.SSLContext:
        """Raises Untrustworthy."""
        context = self._contexts.get(tls)
        if context is None:
            context = self._contexts[tls] = build_context(tls)
        return context

    def keep_only(self, wanted: Container[Tls]) -> None:
        """Forget all others."""
        self._contexts = {tls: context for tls, context in self._contexts.items() if tls in wanted}


def seal(tls: Tls) -> str:
    """A hash of what is in the files of `tls`. Raises Untrustworthy."""
    digest = hashlib.sha256()
    for key in ("ca_file", "client_cert_file", "client_key_file"):
        name = getattr(tls, key)
        if name is not None:
            digest.update(hashlib.sha256(_read(key, name)).digest())
    return digest.hexdigest()


def build_context(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 or newer, certificates and names verified. Raises Untrustworthy."""
    if tls.ca_file is not None:
        _read("ca_file", tls.ca_file)
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except (ssl.SSLError, OSError):
        raise Untrustworthy("ca_file", _not_pem("ca_file", str(tls.ca_file))) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if tls.client_cert_file is not None:
        _load_client(context, tls.client_cert_file, tls.client_key_file)
    return context


@lru_cache(maxsize=64)
def known_context(tls: Tls) -> ssl.SSLContext:
    """That of `build_context` for a `tls` with a seal: made once, however the files change after that. Raises Untrustworthy."""
    return build_context(tls)


def _load_client(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    """The key stands in a file of its own or beside the certificate."""
    _read("client_cert_file", certificate)
    holder = "client_key_file" if key is not None else "client_cert_file"
    content = _read("client_key_file", key or certificate, holder)
    if any(mark in content for mark in _LOCKED):
        raise Untrustworthy(
            holder,
            f"{key or certificate} has a passphrase, which nobody is asked for; "
            "take it off with: openssl pkey -in FILE -out NEW-FILE",
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
            certificate
        )  # it is told by its reading
    except ssl.SSLError:
        raise Untrustworthy("client_cert_file", _not_pem("client_cert_file", certificate)) from None
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except ssl.SSLError as exc:
        raise _judge(exc.reason, certificate, key or certificate, holder) from None


def _judge(reason: str | None, certificate: str, key: str, holder: str) -> Untrustworthy:
    """What OpenSSL has against a certificate that can be read, and its key."""
    if reason is None:
        return Untrustworthy(holder, _not_pem("client_key_file", key))
    if reason in _MISMATCHES:
        return Untrustworthy(
            holder, f"{key} is not the key of client_cert_file; name the key that belongs to it"
        )
    return Untrustworthy(
        "client_cert_file", f"{certificate} is too weak for today's TLS; have a new one issued"
    )


def _no_passphrase() -> str:
    """OpenSSL would ask on the terminal."""
    return ""


def _read(kind: str, name: str, key: str | None = None) -> bytes:
    """The file, if what belongs into it by its looks is there. Raises Untrustworthy for `key`."""
    try:
        with Path(name).open("rb") as file:
            content = file.read(_FILE_LIMIT)
    except OSError as exc:
        why = os.strerror(exc.errno or 0).lower()
        raise Untrustworthy(
            key or kind, f"{name} cannot be read: {why}; mend that or name another file"
        ) from None
    if _MARKS[kind][0] not in content:
        raise Untrustworthy(key or kind, _not_pem(kind, name))
    return content


def _not_pem(kind: str, name: str) -> str:
    what = "private key" if kind == "client_key_file" else "certificate"
    return f"{name} has no {what} in PEM; name a file with {_MARKS[kind][1]} in it"
