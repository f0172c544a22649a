"""Image sets and prompts as configs name them: what is told, what decides the digest."""

import io
import logging as std_logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from absl import logging
from PIL import Image

from bsjax import presets
from bsjax.core.config import validate
from bsjax.core.errors import UserError
from bsjax.core.logs import quiet_libraries
from bsjax.experiment import inputs


@pytest.fixture
def config():
    return presets.experiment()


def png(path=None) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    if path is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_prompts_file(tmp_path, config, encoding):
    (tmp_path / "p.txt").write_bytes("Möbius\u2028strip\r\n\r\nring\r\n".encode(encoding))
    config.generator.prompts, config.generator.samples = str(tmp_path / "p.txt"), 2
    prompts = inputs.list_prompts(config)
    assert [(p.index, p.key, p.caption) for p in prompts.usable] == [
        (0, "p00000-s0000", "Möbius\u2028strip"),
        (1, "p00000-s0001", "Möbius\u2028strip"),
        (4, "p00002-s0000", "ring"),
        (5, "p00002-s0001", "ring"),
    ]
    assert prompts.n_without_caption == 2
    (tmp_path / "p.txt").write_bytes("a\nMöbius".encode("cp1252"))
    with pytest.raises(UserError, match="line 2: is no UTF-8"):
        inputs.list_prompts(config)


def test_prompts_of_rows_without_an_image(tmp_path, config):
    image = [{"bytes": png(), "path": ""}, None]
    pq.write_table(
        pa.table({"image": image, "caption": ["a dog", "a cat"]}), tmp_path / "a.parquet"
    )
    config.real.source, config.real.path = "parquet", str(tmp_path)
    assert [p.caption for p in inputs.list_prompts(config).usable] == ["a dog", "a cat"]


@pytest.mark.parametrize("section", ["real", "generated"])
@pytest.mark.parametrize(
    ("key", "value"),
    [("source", "parquett"), ("captions", "both"), ("caption_field", 3), ("follow_links", "no")],
)
def test_settings_of_either_arm_are_checked(config, section, key, value):
    config.real.path = "x"
    validate(config)
    with config.ignore_type():
        config[section][key] = value
    with pytest.raises(UserError, match=f"^{section}.{key}"):
        validate(config)


@pytest.mark.parametrize("source", ["folder", "parquet"])
@pytest.mark.parametrize(("key", "value"), [("caption_field", "alt"), ("captions", "all")])
def test_settings_that_choose_captions_make_another_set(tmp_path, config, source, key, value):
    rows = {"caption": [["a", "b"]], "alt": ["c"]}
    if source == "parquet":
        pq.write_table(pa.table({"image": [png()], **rows}), tmp_path / "a.parquet")
    else:
        png(tmp_path / "a.png")
        (tmp_path / "a.json").write_text('{"caption": ["a", "b"], "alt": "c"}')
    config.real.source, config.real.path = source, str(tmp_path)
    before = inputs.load_set(config, "real")
    config.real[key] = value
    after = inputs.load_set(config, "real")
    assert before.digest != after.digest
    expected = {"caption_field": ["c"], "captions": ["a", "b"]}[key]
    assert [record.caption for record in after.images.records] == expected


def test_what_is_left_out_is_told_and_steers_no_terminal(tmp_path, config, caplog):
    png(tmp_path / "a.png")
    (tmp_path / "b\x1b[31m.heic").touch()
    (tmp_path / "a.json").write_text('{"alt\\u001b[31m": "x"}')
    config.real.path = str(tmp_path)
    with caplog.at_level("INFO"):
        arm = inputs.load_set(config, "real")
    assert "left out, of kinds that are not read, 1: b\\x1b[31m.heic" in caplog.text
    assert caplog.text.count("NO CAPTIONS") == 1 and "\x1b" not in caplog.text
    assert len(arm.notes) == 1 and "caption_field" in arm.notes[0]


def test_no_log_line_steers_the_terminal(monkeypatch):
    handler = logging.get_absl_handler()
    monkeypatch.setattr(handler, "filters", [])
    quiet_libraries()
    record = std_logging.LogRecord("x", std_logging.ERROR, "x.py", 1, "%s!\n", ("a\x1b[2J",), None)
    assert handler.filter(record)  # what is written is what the filters leave of it
    assert record.getMessage() == "a\\x1b[2J!\n"
