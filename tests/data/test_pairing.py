"""Generated images find the real one that they were made for; what does not pair is listed."""

import numpy as np
import pytest

from bsjax.core.errors import UserError
from bsjax.data.captions import list_folder
from bsjax.data.pairing import Named, draw_pairs, pair_images, pair_keys
from bsjax.data.prompts import read_prompts
from bsjax.data.recognise import list_images

REAL = ["cat", "dog", "a/owl"]


def pairs(real, generated, **named):
    pairing = pair_images(Named(real), Named(generated, **named))
    rows = zip(pairing.rows_real.tolist(), pairing.rows_generated.tolist(), strict=True)
    return {generated[other]: real[row] for row, other in rows}


@pytest.mark.parametrize(
    "names",
    [
        "{}_0 {}_1", "{}-0000 {}-0001", "{}_seed7 {}_seed12", "{}-s0 {}-s1", "{} (1) {} (2)",
        "seed0/{} seed1/{}", "0/{} 1/{}", "sample_3/{} sample_4/{}", "{}/0 {}/1",
        "{}/samples/0000 {}/samples/0001", "{} {}_1", "{}#0 {}#1",
    ],
)  # fmt: skip
def test_several_images_of_a_caption_belong_to_one_real_image(names):
    made = [name.format(key) for key in REAL for name in names.replace(" (", "~(").split()]
    made = [name.replace("~(", " (") for name in made]
    found = pairs(REAL, made)
    assert set(found) == set(made)
    assert all(key in name for name, key in found.items())
    pairing = pair_images(Named(REAL), Named(made))
    assert pairing.has_samples and pairing.rows_real.tolist() == [0, 0, 1, 1, 2, 2]
    assert pairing.keys(REAL) == ["cat", "cat#1", "dog", "dog#1", "a/owl", "a/owl#1"]
    assert pairing.links.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_a_name_that_is_there_comes_before_one_without_its_number():
    assert pairs(["cat", "cat_1"], ["cat_1", "cat_2"]) == {"cat_1": "cat_1", "cat_2": "cat"}
    pairing = pair_images(Named(["cat", "cat_1"]), Named(["cat_1", "cat"]))
    assert pairing.by == "names" and not pairing.has_samples


def test_numbers_alone_are_names():
    with pytest.raises(UserError, match="no image name in common"):
        pair_keys(["000", "001"], ["100", "2_x"])
    assert pair_keys(["12"], ["12", "13"]).unpaired_generated == ("13",)


def test_a_table_tells_which_image_is_whose(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("0.png", "1.png", "2.png"):
        (tmp_path / "images" / name).touch()
    (tmp_path / "captions.csv").write_text(
        "image,caption,key,seed\n0.png,a,1,7\n1.png,a,1.png,8\n2.png,b,,7\n"
    )
    images = list_folder(str(tmp_path), section="generated")
    clusters = [record.cluster for record in images.records]
    assert clusters == ["1", "1", "2"]
    assert pairs(["0", "1", "2"], ["0", "1", "2"], clusters=clusters) == {
        "0": "1", "1": "1", "2": "2",
    }  # fmt: skip
    # Of the real arm such a column is one of its own, as it always was.
    assert [r.cluster for r in list_folder(str(tmp_path)).records] == ["0", "1", "2"]


def test_keys_of_a_table_are_names_however_they_are_written(tmp_path):
    (tmp_path / "m").mkdir()
    for i in range(4):
        (tmp_path / "m" / f"{i}.png").touch()
    lines = [
        "image,key,seed",
        "m/0.png, dog ,0",
        "m/1.png,cafe\u0301.jpg,1",
        "m/2.png, ,0",
        "m/3.png,",
    ]
    (tmp_path / "made.csv").write_text("\r\n".join(lines), encoding="utf-8-sig")
    images, _ = list_images("auto", str(tmp_path / "made.csv"), section="generated")
    assert [each.cluster for each in images.records] == ["dog", "caf\u00e9", "m/2", "m/3"]
    assert not images.notes  # it needs no captions
    images, _ = list_images("auto", str(tmp_path / "made.csv"))
    assert images.notes[0].startswith("NO CAPTIONS")


def test_captions_pair_where_no_name_does():
    real = Named(["a", "b", "c"], ["one  cat", "two dogs", "two dogs"])
    made = Named(["0", "1", "2", "3"], ["two dogs", "one cat ", "two dogs", "an owl"])
    pairing = pair_images(real, made)
    assert pairing.by == "captions"
    assert pairing.rows_real.tolist() == [0, 1, 2]
    assert pairing.rows_generated.tolist() == [1, 0, 2]
    assert pairing.unpaired_generated == ("3",)
    with pytest.raises(UserError, match="no caption of the one.*compare.pairs=none"):
        pair_images(real, made._replace(captions=["x"] * 4))


def test_pairs_by_lot_have_each_cluster_once():
    real, made = Named(list("abcdef")), Named(list("uvwxyz"))
    labels = np.array([0, 0, 1, 2, 3, 4]), np.array([0, 1, 1, 1, 2, 2])
    pairing = draw_pairs(real, made, labels, 3)
    assert pairing.by == "lot" and pairing.labels.max() == 2
    for label in range(3):
        rows = pairing.labels == label
        drawn = pairing.rows_real, pairing.rows_generated
        clusters = [set(of[each[rows]]) for of, each in zip(labels, drawn, strict=True)]
        assert all(len(each) == 1 for each in clusters)
    assert set(labels[1][pairing.rows_generated]) == {0, 1, 2}
    assert sorted(pairing.rows_generated.tolist()) == sorted({*pairing.rows_generated.tolist()})
    assert len(pairing.unpaired_real) == 6 - len({*pairing.rows_real.tolist()})
    again = draw_pairs(real, made, labels, 3)
    assert again.rows_real.tolist() == pairing.rows_real.tolist()
    orders = {tuple(draw_pairs(real, made, labels, s).rows_generated.tolist()) for s in range(9)}
    assert len(orders) > 1


def numbered(folder, names, prompts, name="prompts.txt"):
    folder.mkdir(exist_ok=True)
    for each in names:
        (folder / each).touch()
    (folder / name).write_text(prompts)
    images, _ = list_images("auto", str(folder), section="generated")
    return {record.key: record.caption for record in images.records}


def test_numbered_images_have_the_prompts_of_their_numbers(tmp_path):
    prompts = "a cat\na dog\n\nan owl\n"
    expected = {"0": "a cat", "1": "a dog", "3": "an owl"}
    names = [f"{i}.png" for i in expected]
    assert numbered(tmp_path / "plain", names, prompts) == expected
    web = [f"sd15_0000{i}-3141592653.png" for i in expected]
    assert list(numbered(tmp_path / "web", web, prompts).values()) == list(expected.values())
    samples = [f"0000{i}_{j}.png" for i in expected for j in (0, 1)]
    told = numbered(tmp_path / "samples", samples, prompts)
    assert [told[name[:-4]] for name in samples] == [
        "a cat", "a cat", "a dog", "a dog", "an owl", "an owl",
    ]  # fmt: skip
    one = numbered(tmp_path / "one", [f"{i}.png" for i in (1, 2, 4)], prompts)
    assert one == {"1": "a cat", "2": "a dog", "4": "an owl"}
    grid = numbered(tmp_path / "grid", [f"{i:05d}.png" for i in range(6)], "a\nb\nc")
    assert list(grid.values()) == ["a", "a", "b", "b", "c", "c"]


@pytest.mark.parametrize("names", [["x.png", "y.png"], ["1.png", "2.png"], ["0.png", "9.png"]])
def test_numbers_that_do_not_tell_a_prompt_are_refused(tmp_path, names):
    with pytest.raises(UserError, match="4 prompts, but the names of the images.*tell no number"):
        numbered(tmp_path, names, "a\nb\nc\nd\n")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        # Of ten prompts the first ones alone were drawn, more often than there are of them.
        ([f"{i:05d}_{j}" for i in range(2) for j in range(4)], [0] * 4 + [1] * 4),
        ([f"{j}_{i:05d}" for i in range(2) for j in range(4)], [0, 1] * 4),
        # As many seeds as prompts.
        ([f"seed{j}_{i}" for i in range(10) for j in range(10)], [*range(10)] * 10),
        ([f"sample_{i:02d}" for i in range(10)], [*range(10)]),
        ([f"{i}-s{j}" for i in range(2) for j in range(4)], [0] * 4 + [1] * 4),
        ([f"{i}_{j}" for i in range(10) for j in range(10)], [i // 10 for i in range(100)]),
    ],
)  # fmt: skip
def test_of_several_numbers_the_prompts_is_taken(tmp_path, names, told):
    prompts = "\n".join(f"p{i}" for i in range(10))
    found = numbered(tmp_path, [f"{name}.png" for name in names], prompts)
    assert [found[name] for name in sorted(names)] == [f"p{i}" for i in told]


@pytest.mark.parametrize(
    "names",
    [
        ["sd9_1111", "sd9_2222", "sd9_3333"],  # the ninth prompt is not that of all
        [f"{i}_{j}" for i in range(2) for j in range(4)],  # nor is it clear which is the prompt
    ],
)
def test_numbers_that_may_be_others_are_refused(tmp_path, names):
    prompts = "\n".join(f"p{i}" for i in range(10))
    with pytest.raises(UserError, match="tell no number of one"):
        numbered(tmp_path, [f"{name}.png" for name in names], prompts)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.tsv", "Prompt\tCategory\tChallenge\tNote\na cat\tAnimals\tBasic\t\na dog\tx\ty\tz\n"),
        ("p.csv", "Prompts,Category\na cat,Colors\na dog,Counting\n"),
        ("p.jsonl", '{"prompt": "a cat", "tag": "x"}\n{"prompt": "a dog"}\n'),
        ("p.json", '[{"text": "a cat"}, {"text": "a dog"}]'),
        ("p.txt", "a cat\na dog\n"),
        ("p.csv", "what\na cat\na dog\n"),
    ],
)
def test_lists_of_prompts(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_prompts(tmp_path / name) == ["a cat", "a dog"]


def test_lists_that_have_no_prompts(tmp_path):
    (tmp_path / "p.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no column 'Prompt', only 'a', 'b'"):
        read_prompts(tmp_path / "p.csv")
    (tmp_path / "p.jsonl").write_text('{"prompt": 3}\n')
    with pytest.raises(UserError, match="line 1: its prompt is a int"):
        read_prompts(tmp_path / "p.jsonl")
