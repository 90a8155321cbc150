"""Write the pages that are made from the program."""

from pages import PROJECT, build_pages

for name, text in build_pages().items():
    (PROJECT / name).write_text(text, encoding="utf-8", newline="\n")
