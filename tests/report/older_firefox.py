"""A Firefox that is too old for playwright, with what it lacks: a program between the two.

    python tests/report/older_firefox.py /usr/bin/firefox-esr --remote-debugging-port=0 ...

Debian 12's, 140, knows some commands of WebDriver BiDi not yet that playwright 1.57 and newer give
every browser, though these tests do without what they bring; they are answered in its place. And it
holds playwright's `evaluate`, which is JavaScript's `eval`, to the page's policy, which forbids it:
what is to be evaluated is put where `eval` would have found it. All else is handed on untouched.
"""

import asyncio
import functools
import json
import re
import sys

import aiohttp
from aiohttp import web

LISTENING = re.compile(rb"WebDriver BiDi listening on (ws://\S+)")
# What is answered in the place of "unknown command".
DISPENSABLE = {
    "network.addDataCollector": {"collector": "none"},  # nor does anything ask for a body
    "browser.setDownloadBehavior": {},  # nor where its files go
    "emulation.setScreenOrientationOverride": {},  # the size of a page is another command
    "emulation.setScreenSettingsOverride": {},
}
ONE_FRAME = {"type": "css", "value": "iframe"}
# How playwright 1.64 evaluates, and the same with all that is to be evaluated told beforehand.
EVALUATE = "(utilityScript, ...args) => utilityScript.evaluate(...args)"
WITHOUT_EVAL = """(utilityScript, ...args) => {
  const { eval: ofThePage } = globalThis;
  const told = new Map([%s]);
  globalThis.eval = (code) => told.has(code) ? told.get(code)() : ofThePage(code);
  try { return utilityScript.evaluate(...args); } finally { globalThis.eval = ofThePage; }
}"""
# Arguments that are evaluated, too, and how.
EVALUATED = {
    "callbackText": "%s",
    "functionText": "(%s)",
    "source": """
    (() => {
      const module = {};
      %s
      return module.exports.default();
    })()""",
}


async def main(command):
    firefox = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        async for line in firefox.stderr:
            found = LISTENING.search(line)
            if found is None:
                _say(line)
                continue
            own = await serve(found[1].decode())
            _say(line.replace(found[1], own.encode()))
    finally:
        if firefox.returncode is None and await firefox.wait():
            sys.exit(firefox.returncode)


async def serve(address):
    """Hands on what is said to a Firefox at an address.

    Returns:
      the address at which to speak to it instead.
    """

    async def session(request):
        here = web.WebSocketResponse(max_msg_size=0)
        await here.prepare(request)
        async with (
            aiohttp.ClientSession() as client,
            client.ws_connect(address + request.path, max_msg_size=0) as there,
        ):
            asked = {}
            await asyncio.gather(
                _hand_on(here, there, functools.partial(_command, asked)),
                _hand_on(there, here, functools.partial(_answer, asked)),
            )
        return here

    app = web.Application()
    app.router.add_get("/{path:.*}", session)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return "ws://{}:{}".format(*runner.addresses[0])


async def _hand_on(source, target, change):
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT:
            await target.send_str(change(message.data))
    await target.close()


def _command(asked, text):
    """A command as this Firefox takes it; notes in `asked` which may be answered in its place."""
    message = json.loads(text)
    method, params = message.get("method"), message.get("params", {})
    if method in DISPENSABLE:
        asked[message["id"]] = method
    if params.get("locator", {}).get("type") == "context":  # the frame of a page; they have but one
        return json.dumps(message | {"params": params | {"locator": ONE_FRAME}})
    is_page = "sandbox" not in params.get("target", {"sandbox": "none"})
    if is_page and params.get("functionDeclaration") == EVALUATE:
        # Of the script, whether it is a function, whether its value is asked for, and what.
        code = params["arguments"][3]["value"]
        codes = [code, *_evaluated(params["arguments"])]
        told = (f"[{json.dumps(code)}, () => (\n{code.rstrip().rstrip(';')}\n)]" for code in codes)
        function = WITHOUT_EVAL % ", ".join(told)
        return json.dumps(message | {"params": params | {"functionDeclaration": function}})
    return text


def _evaluated(value):
    """All that is evaluated of arguments, each property of which is told as {k: name, v: value}."""
    if isinstance(value, list):
        for each in value:
            yield from _evaluated(each)
    elif isinstance(value, dict) and value.get("type") == "object":
        found = {key["value"]: each for key, each in value["value"]}
        name, text = (_text(found.get(key, {})) for key in "kv")
        # A selector has a source as well.
        if text and name in EVALUATED and (name != "source" or "module" in text):
            yield EVALUATED[name] % text
        yield from _evaluated(list(found.values()))
    elif isinstance(value, dict) and value.get("type") == "array":
        yield from _evaluated(value["value"])


def _text(value):
    return value["value"] if value.get("type") == "string" else None


def _answer(asked, text):
    """An answer as playwright expects it."""
    if not asked or '"unknown command"' not in text:
        return text
    message = json.loads(text)
    method = asked.pop(message.get("id"), None)
    if method is None or message.get("error") != "unknown command":
        return text
    return json.dumps({"type": "success", "id": message["id"], "result": DISPENSABLE[method]})


def _say(line):
    sys.stderr.buffer.write(line)
    sys.stderr.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
