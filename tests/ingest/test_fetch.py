"""What a careful client makes of a careless web."""

import asyncio
import time

import pytest

from bsjax.ingest import fetch
from bsjax.ingest.fetch import Fetched, Fetcher, Limits, is_public
from bsjax.ingest.judge import judge
from tests.ingest.server import KINDS, picture, serve

LIMITS = Limits(timeout=1.0, total=2.0, retries=1, backoff=0.01, most_bytes=1_000_000)


def fetch_all(urls, limits=LIMITS, **settings):
    async def run():
        async with Fetcher(limits, **settings) as fetcher:
            return await asyncio.gather(*map(fetcher.fetch, urls))

    return asyncio.run(run())


@pytest.fixture(scope="module")
def web():
    with serve("0.0.0.0") as web:
        yield web


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_answer_comes_to_one_outcome(web, kind):
    (found,) = fetch_all([web.url(kind, 7)], allow_private=True)
    judged = judge(found.body, 64) if found.body is not None else found
    assert (judged.reason or "kept") == KINDS[kind], judged
    assert not judged.reason or judged.detail
    if KINDS[kind] == "kept":
        assert found.body == picture(7)


def test_faults_are_tried_again_where_that_may_help_and_only_there(web):
    fetch_all([web.url(kind, 8) for kind in ("error", "missing", "page")], allow_private=True)
    tried = [web.asked[f"/{kind}/8"] for kind in ("error", "missing", "page")]
    assert tried == [1 + LIMITS.retries, 1, 1]


def test_redirects_are_bounded(web):
    fetch_all([web.url("loop", 1000)], LIMITS._replace(redirects=3), allow_private=True)
    assert [web.asked[f"/loop/{1000 + i}"] for i in range(5)] == [1, 1, 1, 1, 0]


def test_the_web_is_not_waited_for_longer_than_asked(web):
    began = time.monotonic()
    found = fetch_all([web.url("hang", 1), web.url("drip", 1)], allow_private=True)
    assert time.monotonic() - began < 2 * LIMITS.timeout + LIMITS.total + 1
    assert [each.detail for each in found] == ["silent for 1 s", "not done within 2 s"]
    assert (web.asked["/hang/1"], web.asked["/drip/1"]) == (2, 1)


def test_one_server_gets_so_many_connections_at_most(web):
    web.most_slow = 0
    urls = [web.url("slow", n) for n in range(40)]
    found = fetch_all(urls, LIMITS._replace(per_host=3, total=10.0), allow_private=True)
    assert all(each.body for each in found) and web.most_slow == 3


def test_private_networks_are_refused_by_address_by_name_and_behind_redirects(web, monkeypatch):
    port = web.address.rpartition(":")[2]

    async def resolve(host, port):
        return {"inside.test": ["10.0.0.1"], "mixed.test": ["8.8.8.8", "192.168.0.1"]}.get(
            host, [host]
        )

    urls = [
        f"http://127.0.0.1:{port}/good/1", "http://inside.test/", "http://mixed.test/",
        "http://[::1]/", f"http://0.0.0.0:{port}/good/1", "http://169.254.169.254/latest/",
    ]  # fmt: skip
    found = fetch_all(urls, resolve=resolve)
    assert {each.reason for each in found} == {"refused_address"}
    assert web.asked["/good/1"] == 0

    # A server on a public address that leads into the private network.
    monkeypatch.setattr(fetch, "is_public", lambda address: address == "127.0.0.1")
    fine, *inward = fetch_all([web.url(kind, 2) for kind in ("redirect", "inward", "byname")],
                              resolve=resolve)  # fmt: skip
    assert fine.body == picture(2)
    assert [each.reason for each in inward] == ["refused_address"] * 2
    assert web.asked["/good/2"] == 1
    assert fetch_all([web.url("inward", 2)], allow_private=True)[0].body == picture(2)


def test_connections_go_to_the_address_that_was_looked_at(web):
    """A name is resolved once a connection, here, and never by the network's own means."""
    asked = []

    async def resolve(host, port):
        asked.append(host)
        return ["127.0.0.1"]

    url = web.url("good", 5).replace("127.0.0.1", "nowhere.invalid")
    (found,) = fetch_all([url], resolve=resolve, allow_private=True)
    assert found.body == picture(5) and asked == ["nowhere.invalid"]


@pytest.mark.parametrize(
    "url",
    ["", "x", "file:///etc/passwd", "ftp://a/b", "http://", "http://[", "http://a:99999/",
     "javascript:1", "//a/b", "data:image/png;base64,"],
)  # fmt: skip
def test_what_is_no_address_is_malformed(url):
    (found,) = fetch_all([url])
    assert found.reason == "malformed" and found.detail


def test_names_that_are_none_are_dead_at_once():
    async def resolve(host, port):
        import socket

        asked.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    asked = []
    (found,) = fetch_all(["http://gone.invalid/x.jpg"], resolve=resolve)
    assert found == Fetched(None, "dead", found.detail) and "not known" in found.detail
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False),
        ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False),
        ("fe80::1%eth0", False), ("fc00::1", False), ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False),
    ],
)  # fmt: skip
def test_public_addresses(address, expected):
    assert is_public(address) == expected
