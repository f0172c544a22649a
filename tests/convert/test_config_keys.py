"""Each key of a config is used, known to change nothing, or refused with all its fellows."""

from types import NoneType

import pytest

from bsjax.convert.config_keys import Key, check_keys
from bsjax.core.errors import UserError

INF = float("inf")
KNOWN = {
    "n": Key((int,), needed=True, least=1, most=8),
    "rate": Key((float,), default=0.5),
    "kind": Key((str,), only=("a", "b"), default="a"),
    "clip": Key((bool,), only=False, default=True),
    "maybe": Key((float, NoneType), only=(None, -INF, 2)),
    "sizes": Key((list,), items=(int,), least=1),
}
GOOD = {"n": 3, "clip": False}


def check(config):
    return check_keys("F.json", config, KNOWN, ("size",), "--flag")


def test_values_and_what_absent_keys_stand_for():
    found = check(GOOD | {"_class_name": "X", "_any": {}, "size": "whatever", "sizes": (4, 5)})
    assert found == {"n": 3, "rate": 0.5, "kind": "a", "clip": False, "sizes": (4, 5)}


@pytest.mark.parametrize(
    "more",
    [
        {"rate": 1},
        {"kind": "b"},
        {"maybe": None},
        {"maybe": -INF},
        {"maybe": 2.0},
        {"n": 8},
        {"sizes": [1]},
        {"sizes": []},
    ],
)
def test_what_is_accepted(more):
    assert check(GOOD | more).items() >= more.items()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"fo\no": 1}, "fo\\no=1 is unknown"),
        ({"n": 0}, "n=0: expected a whole number, 1 to 8"),
        ({"n": 9}, "n=9: expected a whole number, 1 to 8"),
        ({"n": 3.0}, "n=3.0: expected a whole number"),
        ({"n": True}, "n=true: expected a whole number"),
        ({"n": "3"}, 'n="3": expected a whole number'),
        ({"n": None}, "n=null: expected a whole number"),
        ({"rate": "1"}, 'rate="1": expected a number'),
        ({"rate": False}, "rate=false: expected a number"),
        ({"rate": INF}, "rate=Infinity: expected a number"),
        ({"rate": float("nan")}, "rate=NaN: expected a number"),
        ({"rate": 10**400}, "rate=1000"),
        ({"kind": "c\n"}, 'kind="c\\n": expected only "a" or "b"'),
        ({"clip": True}, "clip=true: expected only false"),
        ({"clip": 0}, "clip=0: expected only false"),
        ({"maybe": 3}, "maybe=3: expected only null or -Infinity or 2"),
        ({"maybe": INF}, "maybe=Infinity: expected only"),
        ({"sizes": [4, "5"]}, 'sizes=[4, "5"]: expected a list of a whole number, at least 1'),
        ({"sizes": [4, 0]}, "sizes=[4, 0]: expected a list"),
        ({"sizes": [4, True]}, "sizes=[4, true]: expected a list"),
        ({"sizes": 4}, "sizes=4: expected a list"),
        ({"_class_name": 4}, "_class_name=4: expected a string"),
    ],
)
def test_what_is_refused(more, said):
    with pytest.raises(UserError) as error:
        check(GOOD | more)
    text = str(error.value)
    assert said in text
    assert "\n" not in text
    assert text.startswith("F.json ")
    assert "--flag" in text


def test_all_faults_are_listed_at_once():
    with pytest.raises(UserError) as error:
        check({"new": "x" * 500, "rate": None, "kind": []})
    text = str(error.value)
    for part in ('new="xxx', "rate=null", "kind=[]", "n is missing", "clip=true (as it is absent)"):
        assert part in text
    assert len(text) < 500
    assert "clip=true (as it is absent): expected only false" in text


@pytest.mark.parametrize("config", [[], "x", None, 3])
def test_no_object(config):
    with pytest.raises(UserError, match=r"F.json: expected a JSON object, got"):
        check(config)


def test_empty_lists_are_no_other_lists():
    known = {"k": Key((list,), only=([1, 2],))}
    assert check_keys("F", {"k": (1, 2.0)}, known) == {"k": (1, 2.0)}
    for other in ([], [1], [1, 2, 3], [True, 2]):
        with pytest.raises(UserError, match=r"only \[1, 2\]"):
            check_keys("F", {"k": other}, known)
