"""What every token store must do. Subclasses say how to open one, and how to open the same one again."""

from typing import Protocol

from bearerd.core.failures import FailureNote, build_note
from bearerd.core.lifecycle import Failure, FailureKind
from bearerd.core.redaction import Secret
from bearerd.core.tokens import TokenSet, Tombstone

FIRST = TokenSet(1, Secret("first"), 1000.0, 1060.5, Secret("r1"), "read")
SECOND = TokenSet(2, Secret("second"), 1050.0, 1110.0)


class Store(Protocol):
    async def load(self) -> TokenSet | Tombstone | None: ...
    async def save(self, record: TokenSet | Tombstone) -> None: ...
    async def check_writable(self) -> None: ...
    def changed(self) -> bool: ...
    async def load_note(self) -> FailureNote | None: ...
    async def save_note(self, note: FailureNote) -> None: ...


class StoreContract:
    """Inherited by the tests of each store, which supply the fixture `store`."""

    async def test_an_empty_store_has_nothing(self, store: Store) -> None:
        assert await store.load() is None

    async def test_what_was_saved_is_found_whole(self, store: Store) -> None:
        await store.save(FIRST)
        assert await store.load() == FIRST

    async def test_the_latest_save_counts(self, store: Store) -> None:
        await store.save(FIRST)
        await store.save(SECOND)
        assert await store.load() == SECOND

    async def test_a_tombstone_is_kept_like_a_token(self, store: Store) -> None:
        await store.save(FIRST)
        await store.save(Tombstone(2))
        assert await store.load() == Tombstone(2)

    async def test_a_login_after_a_tombstone_is_kept(self, store: Store) -> None:
        await store.save(Tombstone(1))
        await store.save(SECOND)
        assert await store.load() == SECOND

    async def test_looking_whether_it_can_be_written_changes_nothing(self, store: Store) -> None:
        await store.check_writable()
        assert await store.load() is None
        await store.save(FIRST)
        await store.check_writable()
        assert await store.load() == FIRST

    async def test_one_s_own_saves_are_no_change(self, store: Store) -> None:
        await store.load()
        await store.save(FIRST)
        assert not store.changed()
        await store.save(SECOND)
        assert not store.changed()
        await store.load()
        assert not store.changed()

    async def test_a_note_is_kept_beside_the_tokens(self, store: Store) -> None:
        assert await store.load_note() is None
        note = build_note(None, Failure(FailureKind.TRANSIENT, "down", 7.5), "me", 3, 1000.0)
        await store.save_note(note)
        assert await store.load_note() == note
        assert await store.load() is None
