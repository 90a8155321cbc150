"""HTML that cannot be broken by what goes into it."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from bearerd.core.markup import Markup, element


def test_text_is_escaped_and_markup_is_not() -> None:
    inner = element("b", 'a & <b> "c"')
    assert str(element("p", "x<y ", inner)) == '<p>x&lt;y <b>a &amp; &lt;b&gt; "c"</b></p>'


def test_attributes() -> None:
    made = element(
        "a", "t", href="/?a=1&b=\"'<", class_="c", aria_label="l", hidden=True, open=False, id=None
    )
    assert str(made) == ('<a href="/?a=1&amp;b=&quot;&#x27;&lt;" class="c" aria-label="l" hidden>t</a>')


def test_void_elements_have_no_end() -> None:
    assert str(element("meta", name="a", content="b")) == '<meta name="a" content="b">'


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: list[str | None] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(st.characters(exclude_characters="\r\x00", exclude_categories=["Cs"])))
def test_whatever_goes_in_is_read_as_itself(text: str) -> None:
    reader = Reader()
    reader.feed(str(element("p", text, title=text)))
    reader.close()
    assert (reader.tags, reader.values, reader.text) == (["p"], [text], text)


def test_markup_is_a_value() -> None:
    assert Markup("<p>") == Markup("<p>")
