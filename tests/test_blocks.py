"""What is read out of a page, and what the shell makes of it."""

from pathlib import Path

import pytest

from blocks import Block, Step, Window, find_block, follow, pattern, read_blocks, read_steps

PAGE = """\
# Title

Text with `code`, and a fence ` ``` ` in a line.

```toml
# no heading
port = 1
```

## Calls ##

<!-- run: call -->
```console
$ echo one \\
    two    # as it is
one two

$ printf '%s\\n' a b c
a
...
```

<!-- not run: it needs a network -->
~~~sh
curl https://api.example.com/
```
~~~

- in a list:
  <!-- run: inner -->
  ```
  a
    b
  ```

<!-- run: too far away -->

```text
```
"""


def console(text: str) -> Block:
    return Block("console", text, "", 7)


class TestReading:
    def test_each_block_with_its_language_its_heading_and_its_place(self) -> None:
        found = [(block.language, block.heading, block.line) for block in read_blocks(PAGE)]
        assert found == [
            ("toml", "Title", 5),
            ("console", "Calls", 13),
            ("sh", "Calls", 24),
            ("", "Calls", 31),
            ("text", "Calls", 38),
        ]

    def test_a_comment_belongs_to_the_block_right_below_it(self) -> None:
        found = [(block.name, block.reason) for block in read_blocks(PAGE)]
        assert found == [("", ""), ("call", ""), ("", "it needs a network"), ("inner", ""), ("", "")]

    def test_the_text_is_as_it_stands_but_for_the_indent_of_a_list(self) -> None:
        texts = [block.text for block in read_blocks(PAGE)]
        assert texts[0] == "# no heading\nport = 1\n"
        assert texts[2:] == ["curl https://api.example.com/\n```\n", "a\n  b\n", ""]

    def test_a_block_without_an_end(self) -> None:
        with pytest.raises(ValueError, match="the block of line 2 has no end"):
            read_blocks("text\n````sh\n```\n")

    def test_by_its_name(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text(PAGE + PAGE.replace("run: call", "run: other"))
        assert find_block(page, "call").line == 13
        for name, number in (("none", 0), ("inner", 2)):
            with pytest.raises(LookupError, match=rf"page\.md has {number} blocks with <!-- run: {name} -->"):
                find_block(page, name)

    def test_commands_with_what_stands_below_them(self) -> None:
        assert read_steps(read_blocks(PAGE)[1]) == [
            Step("echo one \\\n    two    # as it is", "one two"),
            Step("printf '%s\\n' a b c", "a\n..."),
        ]

    def test_without_a_prompt_all_of_it_is_one_script(self) -> None:
        assert read_steps(console("a\nb\n")) == [Step("a\nb\n")]

    def test_output_of_no_command(self) -> None:
        with pytest.raises(ValueError, match="line 7 has output above its first command"):
            read_steps(console("one\n$ echo one\n"))

    def test_other_texts_in_place_of_the_pages(self) -> None:
        assert console("a 6750\nb 6750\n").put({"6750": "1", "a": "c"}).text == "c 1\nb 1\n"
        with pytest.raises(AssertionError, match="there is no '9450' in the block of line 7"):
            console("6750\n").put({"9450": "1"})
        assert console("6750\n").put_shown({"9450": "1", "6750": "2"}).text == "2\n"


class TestRunning:
    async def test_commands_share_a_shell_and_print_what_stands_below(self, tmp_path: Path) -> None:
        text = "$ cd /\n$ there=$(pwd)  # kept\n$ echo $there $GIVEN; echo 'to stderr' >&2\n/ it\nto …\n"
        assert await follow(console(text), tmp_path, GIVEN="it") == ["", "", "/ it\nto stderr\n"]

    async def test_it_begins_in_the_folder_with_the_pythons_of_the_tests(self, tmp_path: Path) -> None:
        text = f"$ pwd\n{tmp_path}\n$ python -c 'import bearerd; print(1)'\n1\n$ cat\n"
        assert len(await follow(console(text), tmp_path)) == 3

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("$ echo a\n$ (exit 4)\n", r"\(exit 4\)\nended with 4"),
            ("$ echo a b\na\n", "is to print\na\nand printed\na b"),
            ("$ echo a\nb\n...\n", "is to print"),
            ("$ true\n...\nb\n", "is to print"),
            ("$ exit 0\n$ echo a\n", "the shell has ended before its commands"),
            ("$ echo 'a\n", "the shell has ended before its commands:\n.*unexpected EOF"),
        ],
    )
    async def test_what_is_not_as_it_is_shown_fails(self, text: str, said: str, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match=said):
            await follow(console(text), tmp_path)

    async def test_a_command_that_goes_on_has_a_terminal(self, tmp_path: Path) -> None:
        step = Step('python -c \'print("who?"); print("I am", input())\'  # asks', "who?")
        async with Window(step, tmp_path) as window:
            await window.until(pattern(step.output))
            window.type("me\n")
            assert await window.until(r"I am (\w+)") == "me"
            assert await window.end() == 0


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("a...d", "a b c d\n"),
        ("a…", "a\n"),
        ("  ...\nb\n…", "b\n"),
        ("a\n...\nd", "a\nb\nc\nd\n"),
        ("a (b) [c]*", "a (b) [c]*\n"),
    ],
)
async def test_what_stands_for_anything(shown: str, printed: str, tmp_path: Path) -> None:
    await follow(console(f"$ printf {printed!r}\n{shown}\n"), tmp_path)
