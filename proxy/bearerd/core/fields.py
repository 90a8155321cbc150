"""The fields of a head in raw bytes, and what can be said of them by their names alone.

Clients and servers send the same list of names over and over. What follows from it is worked out once.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final

RawFields = tuple[tuple[bytes, bytes], ...]

_REMEMBERED: Final = 256  # lists of names
_LONG: Final = 2 << 10  # bytes of names, past which a list is not worth to be remembered


class Names:
    """A list of field names. Equal lists are the same object as long as they are remembered."""

    __slots__ = ("places", "size", "written")

    def __init__(self, written: tuple[bytes, ...]) -> None:
        self.written = written
        self.size = sum(map(len, written)) + 4 * len(written)  # with the colon, space and line end of each
        places: dict[bytes, list[int]] = {}
        for place, name in enumerate(written):
            places.setdefault(name.lower(), []).append(place)
        self.places = places


_names: Final[dict[tuple[bytes, ...], Names]] = {}


def index(written: tuple[bytes, ...]) -> Names:
    """The names of a head, as they are written."""
    names = _names.get(written)
    if names is None:
        names = Names(written)
        if names.size <= _LONG:
            if len(_names) >= _REMEMBERED:
                _names.clear()
            _names[written] = names
    return names


class Fields:
    """Fields in their order. Names are looked up in lower case."""

    __slots__ = ("headers", "names", "values")

    def __init__(self, headers: RawFields) -> None:
        self.headers = headers
        written: tuple[bytes, ...]
        self.values: tuple[bytes, ...]
        written, self.values = zip(*headers, strict=True) if headers else ((), ())
        self.names = index(written)

    def get(self, name: bytes) -> bytes | None:
        """The first value of the field called `name`."""
        places = self.names.places.get(name)
        return None if places is None else self.values[places[0]]

    def every(self, name: bytes) -> list[bytes]:
        """All values of the field called `name`."""
        places = self.names.places.get(name, ())
        return [self.values[places[0]]] if len(places) == 1 else [self.values[place] for place in places]

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return self.names.size + sum(map(len, self.values))


class Templates:
    """Writes fields, without those that `drops` says of a lower-case name: one template for each list of names."""

    def __init__(self, drops: Callable[[bytes], bool]) -> None:
        self._drops = drops
        self._known: dict[Names, tuple[bytes, Callable[[Sequence[bytes]], tuple[bytes, ...]]]] = {}

    def fill(self, fields: Fields) -> bytes:
        """The lines of the fields that are left, in wire form."""
        names = fields.names
        text, pick = self._known.get(names) or self._learn(names)
        return text % pick(fields.values)

    def _learn(self, names: Names) -> tuple[bytes, Callable[[Sequence[bytes]], tuple[bytes, ...]]]:
        kept = [place for place, name in enumerate(names.written) if not self._drops(name.lower())]
        text = b"".join(names.written[place].replace(b"%", b"%%") + b": %b\r\n" for place in kept)
        # itemgetter is quicker, but takes one place for a scalar
        pick = itemgetter(*kept) if len(kept) > 1 else lambda values: tuple(values[place] for place in kept)
        if names.size <= _LONG:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[names] = text, pick
        return text, pick
