#!/usr/bin/env python3
"""A scripted `llama-server`: a real process with a real HTTP server, no model, and any fault a test asks for.

It takes llama-server's command line and ignores what it does not know. The script (`fake_engine_script`) comes from
`--fake-script` or the variable FAKE_ENGINE, as JSON or as the path of a file with JSON.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # makes `tests` importable, wherever this is started from

from tests.support.fake_engine_http import Engine, Options
from tests.support.fake_engine_script import Script, load_script

CTX_DEFAULT = 4096
_NAMES = {
    **dict.fromkeys(("-m", "--model"), "model"),
    **dict.fromkeys(("-a", "--alias"), "alias"),
    **dict.fromkeys(("-c", "--ctx-size"), "ctx"),
    **dict.fromkeys(("-np", "--parallel"), "slots"),
    "--host": "host",
    "--port": "port",
    "--api-key": "key",
    "--sse-ping-interval": "ping_s",
    "--fake-script": "script",
}


def read_options(arguments: list[str], environ: Mapping[str, str]) -> tuple[Options, Script]:
    """The command line; what is not known is passed over."""
    given: dict[str, str] = {}
    for at, flag in enumerate(arguments[:-1]):
        if flag in _NAMES:
            given[_NAMES[flag]] = arguments[at + 1]
    source = given.get("script", environ.get("FAKE_ENGINE"))
    script = load_script(source).for_model(given.get("model", ""))
    slots = script.slots or int(given.get("slots", 1))
    total = int(given.get("ctx", 0)) or CTX_DEFAULT * slots
    options = Options(
        model=given.get("model", ""),
        alias=given.get("alias", Path(given.get("model", "fake")).name),
        host=given.get("host", "127.0.0.1"),
        port=int(given.get("port", 0)),
        ctx_per_slot=script.ctx_per_slot or total // slots,
        slots=slots,
        key=given.get("key", environ.get("LLAMA_API_KEY")),
        ping_s=float(given.get("ping_s", 30)),
        has_metrics="--metrics" in arguments,
        script=source,
    )
    return options, script


def leave_strays(script: Script) -> None:
    """Start the processes that are to be left behind."""
    for kind in script.strays:
        child = os.fork()
        if child == 0:
            if kind == "own_session":
                os.setsid()
            stray = os.fork()
            if stray == 0:
                os.execvp("sleep", ["sleep", "600"])
            if script.strays_path:
                with Path(script.strays_path).open("a", encoding="utf-8") as file:
                    file.write(f"{stray}\n")
            os._exit(0)
        os.waitpid(child, 0)


def say(text: str) -> None:
    """A line of the log."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


async def run(options: Options, script: Script) -> int:
    """Serve until a signal; the exit status."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    statuses: list[int] = []

    def stop() -> None:
        statuses.append(len(statuses))  # 0 for the first, 1 for an impatient second
        stopping.set()
        if len(statuses) > 1:
            say("Received second interrupt, terminating immediately.")
            os._exit(1)

    def note_ready() -> None:
        say("main: model loaded")
        if not script.ignore_sigterm:
            loop.add_signal_handler(signal.SIGTERM, stop)  # as the real one: until now the signal just kills

    engine = Engine(options, script, when_ready=note_ready)
    try:
        server = await asyncio.start_server(engine.serve, options.host, options.port, limit=1 << 22)
    except OSError:
        say(f"srv start: couldn't bind HTTP server socket, hostname: {options.host}, port: {options.port}")
        say("main: exiting due to HTTP server error")
        return 1
    say(f"main: server is listening on http://{options.host}:{server.sockets[0].getsockname()[1]}")
    loop.call_later(script.ready_after_s, lambda: engine.is_loading(engine.script()))
    await stopping.wait()
    server.close()
    # It stops decoding and waits for its readers to leave, which it notices at their next ping.
    await engine.wait_idle(options.ping_s)
    return 0


def main() -> None:
    """Behave."""
    options, script = read_options(sys.argv[1:], os.environ)
    if script.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    leave_strays(script)
    if script.exit_rc is not None:
        say(script.exit_text)
        os._exit(script.exit_rc)
    if options.model and not Path(options.model).is_file():
        say(f"error loading model: llama_model_loader: failed to load model from {options.model}")
        say("main: exiting due to model loading error")
        os._exit(1)
    status = asyncio.run(run(options, script))
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
