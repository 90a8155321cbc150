"""Metadata documents of an authorization server, and the addresses in them."""

from contextlib import suppress
from typing import Final

from bearerd.core.metadata import (
    Metadata,
    MetadataError,
    check_browser_url,
    check_endpoint,
    parse_metadata,
    well_known_urls,
)
from bearerd.core.targets import parse_origin
from fuzz import check_sentence

ISSUER: Final = "https://login.example.com"


def fuzz(data: bytes) -> None:
    try:
        check(parse_metadata(ISSUER, data))
    except MetadataError as problem:
        check_sentence(problem)
    text = data.decode("latin-1")
    for read in (check_endpoint, check_browser_url):
        with suppress(ValueError):
            check_address(read(text))
    with suppress(ValueError):
        for url in well_known_urls(text):
            parse_origin(url)


def check(found: Metadata) -> None:
    assert found.issuer == ISSUER
    for url in (
        found.token_endpoint,
        found.authorization_endpoint,
        found.device_authorization_endpoint,
        found.revocation_endpoint,
    ):
        if url is not None:
            check_address(url)


def check_address(url: str) -> None:
    """It is one address, of https or of this machine, and no option of a program's."""
    origin, _ = parse_origin(url.partition("?")[0])
    assert origin.scheme == "https" or origin.loopback
    assert url.isascii()
    assert url.isprintable()
    assert not url.startswith("-")
    assert "@" not in url.partition("?")[0].split("/")[2]
