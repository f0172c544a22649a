"""Files that people write: marks, separators, mistakes with their line; text harmless to show."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bsjax
from bsjax.core.errors import UserError
from bsjax.core.foreign import is_valid, printable, same_name, valid_text
from bsjax.core.text import as_cell, as_cells, from_cell, read_table, read_text, split_lines

TEXT = "concept,name\r\n1,Möbius strip\r\n"


def write(folder, data: bytes, name="t.csv"):
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_by_its_mark(tmp_path, encoding):
    assert read_text(write(tmp_path, TEXT.encode(encoding))) == TEXT


def test_utf_16_of_either_order(tmp_path):
    assert read_text(write(tmp_path, b"\xfe\xff" + TEXT.encode("utf-16-be"))) == TEXT
    assert read_text(write(tmp_path, b"\xff\xfe" + TEXT.encode("utf-16-le"))) == TEXT


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (TEXT.encode("cp1252"), "line 2: is no UTF-8 text (byte 0xf6)"),
        (TEXT.encode("utf-16-le"), "UTF-16"),
        ("a,b\n1,x\n".encode("utf-16-le"), "line 1: holds NUL characters, as UTF-16"),
    ],
)
def test_text_of_other_encodings_is_refused(tmp_path, data, said):
    with pytest.raises(UserError, match=re.escape(said)):
        read_text(write(tmp_path, data))


def test_lines_as_editors_count_them():
    assert split_lines("a\r\nb\u2028c\nd\re\x0bf\n") == ["a", "b\u2028c", "d", "e\x0bf"]
    assert split_lines("") == []


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separator_of_the_header(tmp_path, separator):
    text = f'"a,;",b,c\n1,"x{separator}y",\n'.replace(",b,c", f"{separator}b{separator}c")
    text = text.replace("1,", f"1{separator}").replace('",\n', f'"{separator}\n')
    table = read_table(write(tmp_path, text.encode()))
    assert table.columns == ["a,;", "b", "c"]
    assert table.rows == [(2, {"a,;": "1", "b": f"x{separator}y", "c": ""})]


def test_separator_that_is_declared(tmp_path):
    assert read_table(write(tmp_path, b"sep=|\r\na|b\r\n1,5|2\r\n")).rows == [
        (3, {"a": "1,5", "b": "2"})
    ]
    assert read_table(write(tmp_path, b"a\tb,c,d\n1\t2\n", "t.tsv")).columns == ["a", "b,c,d"]


def test_rows_know_their_line_and_empty_ones_are_none(tmp_path):
    table = read_table(write(tmp_path, b'a,b\n\n1,"x\ny"\n,,,\n2\n'))
    assert table.rows == [(3, {"a": "1", "b": "x\ny"}), (6, {"a": "2", "b": ""})]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n3,x, y\n", "line 3: 3 cells, expected the 2"),
        ('a,b\n1,2\n3,"x\n4,y\n', "line 3: a double quote is opened and never closed"),
        ('a,b\n1,"x\n2,"y"\n', "line 2: text follows a closing double quote"),
        ("a,a\n1,2\n", "two columns 'a'"),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path, text, said):
    with pytest.raises(UserError, match=re.escape(said)):
        read_table(write(tmp_path, text.encode()))


@given(st.text())
def test_cells_come_back(text):
    cell = as_cell(text)
    assert from_cell(cell) == text or text.startswith("'")
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_only_texts_of_a_table_become_cells():
    table = as_cells(pa.table({"n": [-1, 2], "t": ["=1+1", None], "x": [-0.5, 1.0]}))
    assert table.to_pydict() == {"n": [-1, 2], "t": ["'=1+1", None], "x": [-0.5, 1.0]}


@given(st.text(st.characters(exclude_categories=())))
def test_valid_text_is_utf8_and_changes_nothing_else(text):
    valid = valid_text(text)
    assert is_valid(valid)
    if is_valid(text):
        assert valid == text


def test_halves_of_pairs():
    assert valid_text("a \ud83d dog") == "a \ufffd dog"
    assert valid_text("\ud83d\ude00") == "\U0001f600"
    assert not is_valid(os.fsdecode(b"caf\xe9"))
    assert same_name("cafe\u0301") == "café"


def test_what_steers_a_terminal_is_escaped():
    shown = printable("a\x1b[31mb\r\n\x9b\u202ec\udce9 žluť 👩\u200d🚀\u3000")
    assert shown == "a\\x1b[31mb\\r\\n\\x9b\\u202ec\\udce9 žluť 👩\u200d🚀\u3000"
    assert printable("a\tb\nc\x07", keep="\t\n") == "a\tb\nc\\x07"
    assert str(UserError("x\x1b]0;title\x07")) == "x\\x1b]0;title\\x07"


def test_files_are_utf8_in_any_locale(tmp_path):
    code = (
        "import sys; from bsjax.core.artifacts import write_json, read_json;"
        "write_json(sys.argv[1], {'caption': 'M\\u00e4dchen'}); read_json(sys.argv[1])"
    )
    env = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    path = tmp_path / "a.json"
    subprocess.run([sys.executable, "-c", code, str(path)], env=env, check=True)
    assert json.loads(path.read_bytes()) == {"caption": "Mädchen"}


def test_every_text_file_names_its_encoding():
    """One that does not is in the encoding of the locale."""
    call = re.compile(r"(\.read_text\(|\.write_text\(|\.open\(\"[wa]\"|\bopen\([^)]*\"[wa]\")")
    for path in pathlib.Path(bsjax.__file__).parent.rglob("*.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if call.search(line) and "archive.open" not in line:
                assert "encoding=" in line, f"{path.name}, line {number}: {line.strip()}"
