"""names.csv: what a person wrote comes back, from any spreadsheet, and is never lost."""

import logging

import pytest

from bsjax.core.errors import UserError
from bsjax.report.names import read_names

WORDS = ["water", "cross"]


def write(folder, text: str, encoding="utf-8"):
    (folder / "names.csv").write_bytes(text.encode(encoding))


def test_words_until_a_person_writes_better_ones(tmp_path):
    assert read_names(tmp_path, WORDS, "s1") == WORDS
    text = (tmp_path / "names.csv").read_text(encoding="utf-8")
    assert text.splitlines() == ["concept,sae,words,name", "0,s1,water,", "1,s1,cross,"]
    write(tmp_path, text.replace("cross,", "cross,Möbius strips"))
    for _ in range(2):
        assert read_names(tmp_path, ["wet", "plus"], "s1") == ["wet", "Möbius strips"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_files_as_spreadsheets_save_them(tmp_path, encoding, separator):
    text = "concept,words,name\r\n0,water,\r\n1,cross,Möbius strips\r\n,,\r\n"
    write(tmp_path, text.replace(",", separator), encoding)
    assert read_names(tmp_path, WORDS) == ["water", "Möbius strips"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("concept,words,name\n0,w,\nx,w,n\n", "line 3: expected columns"),
        ("concept,words\n0,w\n", "line 2: expected columns"),
        ("concept,words,name\n0,w,a\n0,w,b\n", "line 3: concept 0 is named in line 2"),
        ("concept,words,name\n0,w,a,b\n", "line 2: 4 cells"),
    ],
)
def test_lines_that_make_no_sense(tmp_path, text, said):
    write(tmp_path, text)
    with pytest.raises(UserError, match=said):
        read_names(tmp_path, WORDS)
    assert (tmp_path / "names.csv").read_text() == text
    write(tmp_path, "concept,words,name\n1,w,Möbius\n", "cp1252")
    with pytest.raises(UserError, match="line 2: is no UTF-8"):
        read_names(tmp_path, WORDS)


def test_names_of_another_sae_are_kept_aside_and_come_back(tmp_path, caplog):
    write(tmp_path, "concept,sae,words,name\n0,s1,water,sea\n1,s1,cross,\n")
    with caplog.at_level(logging.WARNING):
        assert read_names(tmp_path, WORDS, "s2") == WORDS
    assert "names-s1.csv" in caplog.text
    assert "sea" in (tmp_path / "names-s1.csv").read_text(encoding="utf-8")
    assert read_names(tmp_path, WORDS, "s1") == ["sea", "cross"]
    # Without a digest: more concepts than there are belong to another SAE.
    write(tmp_path, "concept,words,name\n7,w,seven\n")
    assert read_names(tmp_path, WORDS) == WORDS
    assert "seven" in (tmp_path / "names-other.csv").read_text(encoding="utf-8")
    write(tmp_path, "concept,words,name\n8,w,eight\n")
    assert read_names(tmp_path, WORDS) == WORDS
    assert "eight" in (tmp_path / "names-other-2.csv").read_text(encoding="utf-8")


def test_cells_that_a_spreadsheet_would_compute(tmp_path):
    write(tmp_path, "concept,words,name\n0,w,\n1,w,'=2+3\n")
    for _ in range(2):
        assert read_names(tmp_path, ["=cmd()", "@x"]) == ["=cmd()", "=2+3"]
    text = (tmp_path / "names.csv").read_text(encoding="utf-8")
    assert "'=cmd()" in text and "'@x" in text and "'=2+3" in text
