"""Token ids against the classes that the repositories name, over captions of the web."""

import json

import numpy as np
import pytest
import transformers

from bsjax.core.errors import UserError
from bsjax.generators.repository import tokenizer_class
from bsjax.generators.tokenizers import CLASSES, ByteTokenizer, HubTokenizer
from tests.generators import hub, layouts
from tests.generators.captions import nasty

CAPTIONS = nasty()
needs_hub = pytest.mark.skipif(
    not layouts.HUB.is_dir(), reason="the repositories' own files are not here"
)


def reference(class_name, folder, length):
    """As the pipelines call it."""
    tokenizer = getattr(transformers, class_name).from_pretrained(folder)
    return tokenizer(
        CAPTIONS, padding="max_length", max_length=length, truncation=True, return_tensors="np"
    )


def n_differing(ours, theirs):
    return int((ours != theirs).any(axis=1).sum())


@needs_hub
@pytest.mark.parametrize("version", ["sd15", "sd21"])
def test_ids_of_the_real_vocabularies(version):
    folder = layouts.HUB / version / "tokenizer"
    index = json.loads((layouts.HUB / version / "model_index.json").read_text())
    name = tokenizer_class(index, folder, "none")
    assert name == index["tokenizer"][1] == "CLIPTokenizer"
    ours = HubTokenizer(folder, name)
    assert (ours.length, ours.n_ids) == (77, 49408)
    tokens = ours(CAPTIONS, 77)
    theirs = reference(name, folder, 77)
    assert len(CAPTIONS) > 300
    assert n_differing(tokens.ids, theirs["input_ids"]) == 0
    np.testing.assert_array_equal(tokens.mask, theirs["attention_mask"])
    # The fast class, which is not named, is another tokenizer: so the captions can tell.
    fast = reference("CLIPTokenizerFast", folder, 77)
    assert n_differing(tokens.ids, fast["input_ids"]) > 50


@pytest.mark.parametrize(
    ("class_name", "file", "ids"),
    [
        ("T5Tokenizer", "spiece.model", {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}),
        ("XLMRobertaTokenizer", "sentencepiece.bpe.model", {}),
    ],
)
@pytest.mark.parametrize("speed", ["", "Fast"])
def test_ids_of_sentence_pieces(class_name, file, ids, speed, tmp_path):
    hub.pieces(tmp_path, file, **ids)
    ours = HubTokenizer(tmp_path, class_name + speed)(CAPTIONS, 40)
    theirs = reference(class_name + speed, tmp_path, 40)
    assert n_differing(ours.ids, theirs["input_ids"]) == 0
    np.testing.assert_array_equal(ours.mask, theirs["attention_mask"])
    assert 0 < ours.n_truncated < len(CAPTIONS)


def test_the_class_that_is_named(tmp_path):
    index = {"tokenizer": ["transformers", "CLIPTokenizerFast"]}
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    assert tokenizer_class({}, folder, "CLIPTokenizer") == "CLIPTokenizer"
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    assert tokenizer_class({}, folder, "CLIPTokenizer") == "T5Tokenizer"
    assert tokenizer_class(index, folder, "CLIPTokenizer") == "CLIPTokenizerFast"
    assert tokenizer_class({"tokenizer": "?"}, folder, "CLIPTokenizer") == "T5Tokenizer"


def test_other_classes_are_refused(tmp_path):
    with pytest.raises(UserError, match="names the tokenizer GPT2Tokenizer, expected one of CLIP"):
        HubTokenizer(tmp_path, "GPT2Tokenizer", "--f")
    assert all(hasattr(transformers, name) for name in CLASSES)


def test_ids_stay_below_what_a_tokenizer_says(tmp_path):
    hub.clip_tokenizer(tmp_path)
    ours = HubTokenizer(tmp_path, "CLIPTokenizer")
    for tokenizer in (ours, ByteTokenizer()):
        assert tokenizer(CAPTIONS, 77).ids.max() < tokenizer.n_ids
