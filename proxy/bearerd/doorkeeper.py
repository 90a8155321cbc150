"""Lets in requests of clients that have keys, and takes the keys from them."""

from collections.abc import Callable

from bearerd.core.client_keys import ClientKey, take_keys
from bearerd.core.cors import grant
from bearerd.core.guard import Head
from bearerd.core.keyed_guard import Policy, judge_client
from bearerd.core.problems import Problem


class Doorkeeper:
    """`keys` has those that count now."""

    def __init__(self, policy: Policy, keys: Callable[[], tuple[ClientKey, ...]]) -> None:
        self._policy = policy
        self._keys = keys

    def __call__(self, head: Head) -> Problem | None:
        """Why a request is refused, if it is. From here on `head` has no key in it, and says whose call it is: nothing that
        is sent on, kept or sent again has ever seen one.
        """
        policy = self._policy
        shown, kept = take_keys(head.headers, policy.carriers)
        key, problem = judge_client(policy, self._keys(), shown, head)
        if policy.guard.keyed:
            head.grant = grant(policy.guard, head)
        if len(kept) < len(head.headers):
            head.become(kept, None if key is None else key.name)
        return problem
