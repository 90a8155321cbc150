"""git at a server that takes tokens as passwords, as its page has it."""

import os
from pathlib import Path

import pytest

from oidc_peer import OidcPeer
from recipes.git_server import GitServer
from recipes.recipe import STATIC, TOKEN, account_of, following
from upstreams import accept_any_of

SERVER = "https://git.example.com"
WHO = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Nobody"), ("EMAIL", "nobody@example.com"))
} | {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}


async def test_clone_push_and_clone_by_the_old_address(tmp_path: Path, here: Path) -> None:
    async with OidcPeer() as peer, GitServer(peer.introspect, tmp_path / "served") as server:
        account = account_of(peer, tmp_path)
        async with following("git", tmp_path, account, {SERVER: server.url}) as recipe:
            await recipe.run("clone", **WHO)
            await recipe.run("instead", **WHO)
        assert server.unauthorized == 0
    assert (here / "again" / "greeting.txt").read_text() == "Good morning\n"


@pytest.mark.soak
async def test_a_large_push_with_a_token_that_is_revoked_on_the_way(tmp_path: Path) -> None:
    """It goes in chunks. The call by which git asks first, of four bytes, gets the 401, and is healed."""
    async with OidcPeer() as peer:

        async def check(token: str) -> bool:
            """The next call gets a 401."""
            active = await peer.introspect(token)
            if revoking:
                await peer.revoke(revoking.pop())
            return active

        revoking: list[str] = []
        async with GitServer(check, tmp_path / "served") as server:
            account = account_of(peer, tmp_path)
            async with following("git", tmp_path, account, {SERVER: server.url}) as recipe:
                await recipe.run("clone", **WHO)
                (recipe.folder / "greeting" / "large").write_bytes(os.urandom(3 << 20))
                await recipe.follow("cd greeting && git add large && git commit -q -m Large", **WHO)
                revoking.append(server.last_token)
                before = len(server.calls)
                await recipe.follow("cd greeting && git push -q", **WHO)
    asked, refused, asked_again, pushed = server.calls[before:]
    assert asked.method == "GET"
    assert [call.authorized for call in (refused, asked_again, pushed)] == [False, True, True]
    assert refused.values(b"content-length") == asked_again.values(b"content-length") == [b"4"]
    assert pushed.values(b"transfer-encoding") == [b"chunked"]


@pytest.mark.soak
async def test_a_push_that_a_rule_refuses(tmp_path: Path) -> None:
    async with GitServer(accept_any_of({TOKEN}), tmp_path / "served") as server:
        rule = 'deny = ["/*/*/git-receive-pack"]\n'
        async with following("git", tmp_path, STATIC, {SERVER: server.url}, more=rule) as recipe:
            with pytest.raises(AssertionError, match=r"git push -q\nended with 1(.|\n)*403"):
                await recipe.run("clone", **WHO)


@pytest.mark.soak
async def test_a_token_that_is_not_taken_makes_git_ask_for_a_user(tmp_path: Path) -> None:
    """And stop, where nobody is to be asked."""
    async with (
        GitServer(accept_any_of(()), tmp_path / "served") as server,
        following("git", tmp_path, STATIC, {SERVER: server.url}) as recipe,
    ):
        with pytest.raises(AssertionError, match="terminal prompts disabled"):
            await recipe.run("clone", **WHO)
