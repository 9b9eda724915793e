"""The scanner finds exactly the key paths that tomllib parses, each on its line."""

import tomllib
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.toml_lines import KeyPath, lines

STORY = '''# a comment = "with an equals sign"
top = 1
dotted.name = "x" # [not.a.table]
"quoted.one" = 'lit#eral'
'it is' = true

[table]
date = 1979-05-27 07:32:00
text = """
[inside]
key = "no"
quotes ""\\""""""
raw = \'\'\'
a = 1
\'\'\'\'
list = [
    1, # one
    "two, ]",
    { x = 1, y.z = [2, [3]] },
]

[implied . "by a.b" .longer]
[[many]]
n = 1
[many.child]
deep = 1
[[many]]
[[many.inner]]
[[many.inner]]
last = {}
[implied]
late = 1
'''


def paths(value: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield every key path of what tomllib returned."""
    children: Iterable[tuple[str | int, object]] = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        yield (*path, key)
        yield from paths(child, (*path, key))


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_text_with_everything_has_each_key_on_its_line(ending: str) -> None:
    text = STORY.replace("\n", ending)
    found = lines(text)
    assert set(found) == set(paths(tomllib.loads(text)))
    at = STORY.split("\n")

    def on(*path: str | int) -> str:
        return at[found[path] - 1]

    assert on("dotted", "name").startswith("dotted.name")
    assert on("quoted.one").startswith('"quoted.one"')
    assert on("it is").startswith("'it is'")
    assert on("table", "text") == 'text = """'
    assert on("table", "raw") == "raw = '''"
    assert on("table", "list", 1) == '    "two, ]",'
    assert on("table", "list", 2, "y", "z", 1, 0).startswith("    { x")
    assert on("implied", "by a.b").startswith("[implied . ")
    assert on("implied") == "[implied]"
    assert found["many", 0] < found["many", 0, "child", "deep"] < found["many", 1]
    assert found["many", 1, "inner", 0] + 1 == found["many", 1, "inner", 1]
    assert on("implied", "late") == "late = 1"


def test_an_empty_text_has_no_keys() -> None:
    assert lines("") == {}
    assert lines("# only this") == {}


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from(
    ["a", "b", "a-b", "é", '"', "#"]
)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.text("\"'\\\n#[]{}=,. a", max_size=12)
gaps = st.sampled_from(["", " ", "\t "])
blanks = st.sampled_from(["", " ", "\n", "\n\n  ", " # ]}= \"'\n"])


def basic(text: str) -> str:
    """Return `text` as a TOML basic string."""
    return '"' + "".join(c if c.isalnum() or c in " #[]{}=,.'" else f"\\U{ord(c):08x}" for c in text) + '"'


@st.composite
def spelled_names(draw: st.DrawFn, name: str) -> str:
    """Return one of the spellings of a key."""
    spellings = [basic(name)]
    if name and all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        spellings.append(name)
    if all(c.isprintable() and c != "'" for c in name):
        spellings.append(f"'{name}'")
    return draw(st.sampled_from(spellings))


@st.composite
def strings(draw: st.DrawFn) -> str:
    word = draw(words)
    spellings = [basic(word)]
    plain = all(c.isprintable() or c == "\n" for c in word)
    if plain and "'" not in word:
        spellings += [f"'''{word}'''", f"''''{word}'''''"]
        if "\n" not in word:
            spellings.append(f"'{word}'")
    if plain and '"' not in word and "\\" not in word:
        spellings += [f'"""{word}"""', f'"""{word}\\""""""', f'""""{word}"""""', f'"""\\\n  {word}"""']
    return draw(st.sampled_from(spellings))


scalars = strings() | st.sampled_from(
    [
        "1",
        "0xff",
        "1_000",
        "1e3",
        "-inf",
        "nan",
        "true",
        "1979-05-27T07:32:00Z",
        "1979-05-27 07:32:00",
        "07:32:00",
    ]
)


@st.composite
def keys(draw: st.DrawFn) -> str:
    parts = [draw(spelled_names(name)) for name in draw(st.lists(names, min_size=1, max_size=3))]
    return f"{draw(gaps)}.{draw(gaps)}".join(parts)


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    items = [draw(blanks) + item + draw(blanks) for item in draw(st.lists(inner, max_size=3))]
    return "[" + ",".join(items) + draw(st.sampled_from(["", ","]) if items else st.just("")) + draw(blanks) + "]"


@st.composite
def inline_tables(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    pairs = [
        f"{draw(gaps)}{draw(keys())}{draw(gaps)}={draw(gaps)}{value}" for value in draw(st.lists(inner, max_size=3))
    ]
    return "{" + ",".join(pairs) + draw(gaps) + "}"


values = st.recursive(scalars, lambda inner: arrays(inner) | inline_tables(inner), max_leaves=6)


@st.composite
def statements(draw: st.DrawFn) -> str:
    lead, key, end = draw(gaps), draw(keys()), draw(st.sampled_from(["", " # x = [", "\t"]))
    match draw(st.sampled_from(["pair", "pair", "table", "array", "blank"])):
        case "pair":
            return f"{lead}{key}{draw(gaps)}={draw(gaps)}{draw(values)}{end}"
        case "table":
            return f"{lead}[{draw(gaps)}{key}{draw(gaps)}]{end}"
        case "array":
            return f"{lead}[[{draw(gaps)}{key}{draw(gaps)}]]{end}"
        case _:
            return end


@given(st.lists(statements(), max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_the_paths_are_those_of_tomllib(candidates: list[str], ending: str) -> None:
    accepted: list[str] = []
    for candidate in candidates:  # keep what is valid together; the rest says nothing about the scanner
        try:
            tomllib.loads("\n".join([*accepted, candidate]))
        except tomllib.TOMLDecodeError:
            continue
        accepted.append(candidate)
    text = ending.join("\n".join(accepted).split("\n"))
    found = lines(text)
    assert set(found) == set(paths(tomllib.loads(text)))
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())
