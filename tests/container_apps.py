"""The app of the examples, as its log and its own eyes have it."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

import pytest

from containers import Engine

KEY: Final = re.compile(r"bearerd_[0-9a-f]{64}")
_ASK: Final = """
import json, sys, urllib.error, urllib.request
def ask(url, headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return [answer.status, ""]
    except urllib.error.HTTPError as refused:
        return [refused.code, json.loads(refused.read() or "{}").get("code", "")]
    except OSError as problem:
        return [0, str(problem)]
print(json.dumps([ask(*question) for question in json.loads(sys.argv[1])]))
"""


def answers_in(log: str) -> list[str]:
    """What it was told, from its first success on. This podman does not wait for the sidecar's health before it starts the app."""
    lines = [line for line in log.splitlines() if line.startswith(("200 ", "failed:"))]
    return lines[next((at for at, line in enumerate(lines) if line.startswith("200 ")), len(lines)) :]


def failures_in(log: str) -> list[str]:
    return [line for line in answers_in(log) if not line.startswith("200 ")]


def tokens_in(log: str) -> list[str]:
    """Fingerprints of the tokens that the API has seen of its calls, in order."""
    return list(dict.fromkeys(re.findall(r'"token_fingerprint": "([0-9a-f]+)"', "\n".join(answers_in(log)))))


def ask_from(
    engine: Engine, container: str, questions: Sequence[tuple[str, Mapping[str, str]]]
) -> list[tuple[int, str]]:
    """Status and `code` of the answer to each request that a Python in the container makes; 0 and why where there is none."""
    said = engine.podman("exec", container, "python3", "-c", _ASK, json.dumps(list(questions)))
    return [(status, code) for status, code in json.loads(said)]


def check_neighbour(engine: Engine, container: str, url: str, key: str) -> None:
    """What a container that shares the sidecar's network gets there with no key, a wrong one, and the app's."""
    bearer = {"Authorization": f"Bearer {key}"}
    made_up = {"Authorization": f"Bearer bearerd_{'0' * 64}"}
    asked = {
        (f"{url}/hello", ()): (401, "key_missing"),
        (f"{url}/hello", (*made_up.items(),)): (401, "key_refused"),
        (f"{url}/hello", (*bearer.items(),)): (200, ""),
        (f"{url}/hello", (*bearer.items(), ("Host", "evil.test"))): (421, "wrong_authority"),
        (f"{url}/-/", ()): (401, "key_missing"),
        (f"{url}/-/", (*bearer.items(),)): (403, "key_limited"),
        (f"{url}/-/status", (*bearer.items(),)): (403, "key_limited"),
        (f"{url}/-/metrics", (*bearer.items(),)): (403, "key_limited"),
    }
    questions = [(address, dict(headers)) for address, headers in asked]
    assert ask_from(engine, container, questions) == list(asked.values())


def check_powerless(engine: Engine, container: str) -> None:
    """That the app can neither read nor redirect what passes on the network that it shares."""
    listen = "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)"
    with pytest.raises(AssertionError, match="PermissionError"):
        engine.podman("exec", container, "python3", "-c", listen)
