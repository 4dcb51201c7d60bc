"""Who may import whom, what packages export, and that importing does nothing.

SEES is the arrow table of the project: changing it needs a reason in the commit that does.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import streamproc

ROOT = Path(streamproc.__file__).parent

BASE = frozenset({"errors", "ranges", "messages", "topics", "wire"})
PICTURES_AND_MODELS = BASE | {"video", "models"}
PARTS = PICTURES_AND_MODELS | {"bus", "stage", "formats", "score"}

SEES: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "ranges": frozenset(),
    "messages": frozenset({"errors", "ranges"}),
    "topics": frozenset({"errors", "ranges", "messages"}),
    "wire": BASE - {"wire"},
    "objectstore": frozenset({"errors"}),
    "jpeg": frozenset(),
    "bus": BASE | {"objectstore"},
    "video": BASE | {"objectstore", "jpeg"},
    "models": BASE | {"jpeg"},
    "formats": BASE,
    "score": BASE,
    "stage": PICTURES_AND_MODELS,
    "stages": PICTURES_AND_MODELS | {"stage"},
    "runner": BASE | {"stage", "bus"},
    "task": PICTURES_AND_MODELS | {"stage", "stages"},
    "pipeline": PARTS | {"stages", "runner", "task"},
    "settings": PARTS | {"stages", "runner", "task", "pipeline"},
    "web": PARTS | {"stages", "runner", "task", "pipeline", "settings"},
    "cli": PARTS | {"stages", "runner", "task", "pipeline", "settings", "web"},
    "__main__": frozenset({"cli"}),
    "": frozenset(),
}
"""Room → the rooms it may import, beside itself. '' is the package itself: its version."""

APART = ("stages", "bus")
"""In these the parts are peers that do not know each other; what peers share stands beside them in files named here."""
SHARED = {
    "bus": {"contract", "spread", "claims", "table", "wanted"},
    "stages": {"options", "asking", "form", "pacing", "reasons", "revisions"},
}

EXPORTED: dict[str, set[str]] = {
    "streamproc": {"__version__"},
    "streamproc.cli": {"build", "main"},
    "streamproc.bus.embedded": {"Embedded"},
    "streamproc.bus.kafka": {"Kafka", "KafkaSecurity"},
    "streamproc.models.observer": {"ABILITIES", "Observer", "Settings", "create_app", "running"},
    "streamproc.runner": {"Backoff", "Bounds", "Service"},
    "streamproc.settings": {
        "PARTITIONS",
        "EmbeddedAt",
        "Endpoint",
        "KafkaAt",
        "Settings",
        "load",
        "names",
        "open_bus",
        "open_claims",
        "parse_bus",
        "variable",
    },
}
"""What a package's `__init__` offers. Packages that are not named here offer nothing: their modules are imported."""


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())
PACKAGES = [name for name, path in MODULES.items() if path.name == "__init__.py"]


def imports(path: Path) -> Iterator[str]:
    """Every module of ours that a file names in an import, wherever in it: lazily or for types only counts too."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports are written in full"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room(module: str) -> str:
    return module.removeprefix("streamproc").removeprefix(".").partition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module: str) -> None:
    here = room(module)
    assert here in SEES, f"a new room: say in SEES what '{here}' may import"
    for imported in imports(MODULES[module]):
        if imported == "streamproc" or imported.startswith("streamproc."):
            there = room(imported)
            assert there in SEES[here] | {here, ""}, f"{module} imports {imported}: '{here}' may not see '{there}'"


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) in APART])
def test_peers_do_not_know_each_other(module: str) -> None:
    here, _, part = module.removeprefix("streamproc.").partition(".")
    for imported in imports(MODULES[module]):
        there, _, peer = imported.removeprefix("streamproc.").partition(".")
        if there == here and peer:
            mine, theirs = part.partition(".")[0], peer.partition(".")[0]
            assert theirs in {mine, *SHARED[here]}, f"{module} imports {imported}"


def test_the_table_itself_has_no_circle() -> None:
    below: dict[str, set[str]] = {}

    def reach(name: str, path: tuple[str, ...] = ()) -> set[str]:
        assert name not in path, f"circle: {' → '.join((*path, name))}"
        if name not in below:
            below[name] = set().union(*({seen} | reach(seen, (*path, name)) for seen in SEES[name]))
        return below[name]

    for name in SEES:
        reach(name)


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_exports_is_pinned(package: str) -> None:
    found = import_module(package)
    offered = set(getattr(found, "__all__", ()))
    for node in ast.parse(MODULES[package].read_text()).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            offered |= {t.id for t in targets if isinstance(t, ast.Name) and t.id != "__all__"}
    assert offered == EXPORTED.get(package, set())


WATCH = """
import importlib, os, sys
modules = sys.argv[1:]
for name in modules:  # once, so that what we stand on has done what it does at import
    importlib.import_module(name)
for name in [n for n in sys.modules if n.partition(".")[0] == "streamproc"]:
    del sys.modules[name]
home = os.path.dirname(importlib.util.find_spec("streamproc").origin)
seen = []
HARMLESS = ("import", "compile", "exec", "marshal.", "object.", "sys._getframe", "os.listdir", "os.scandir", "builtins.id")
def hook(event, arguments):
    if event.startswith(HARMLESS):
        return
    if event == "open" and str(arguments[0]).startswith(home) and str(arguments[0]).endswith((".py", ".pyc")):
        return
    frame = sys._getframe(1)
    while frame and not frame.f_code.co_filename.startswith(home):
        frame = frame.f_back
    if frame and frame.f_code.co_name == "<module>":
        seen.append(f"{frame.f_code.co_filename}:{frame.f_lineno}: {event} {arguments}")
class Environment(type(os.environ)):
    def __getitem__(self, key):
        asks = sys._getframe(1)
        while asks.f_code.co_filename.startswith("<frozen "):  # os.getenv and Mapping.get
            asks = asks.f_back
        if asks.f_code.co_filename.startswith(home):  # what others read for themselves is their business
            hook("environment", key)
        return super().__getitem__(key)
sys.dont_write_bytecode = True
os.environ.__class__ = Environment
sys.addaudithook(hook)
for name in modules:
    importlib.import_module(name)
print(*seen, sep="\\n", end="")
"""


def test_nothing_happens_at_import() -> None:
    """No file, socket, process, thread or variable of the environment; and importing twice meets no registry."""
    names = [name for name in MODULES if name != "streamproc.__main__"]
    told = subprocess.run(
        [sys.executable, "-c", WATCH, *names], capture_output=True, text=True, timeout=100, check=False
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout == ""


LEAN = """
import importlib, sys
from streamproc.cli import build
from streamproc.cli.frame import exit_code
for name in sys.argv[1:]:
    importlib.import_module(name)
for line in ("topics create", "status", "sources list", "dlq list", "coverage x", "trace x 1", "export x --format json", "tasks list"):
    exit_code(build(), line.split())
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
CLIENT = {"openai", "httpx2", "aiohttp"}
"""A second of every start."""
WITH_CLIENT = {"checkup_models", "endpoint", "mapping", "opening", "probe", "transport"}
"""Those who speak to models, or ask whether they are there."""


def test_who_calls_no_model_does_not_wait_for_the_client_of_the_models(tmp_path: Path) -> None:
    names = [
        name
        for name in MODULES
        if room(name) in {"models", "stage", "stages", "runner", "task", "pipeline", "settings"}
        and WITH_CLIENT.isdisjoint(name.split("."))
        and "observer" not in name
    ]
    assert {"streamproc.pipeline.parts", "streamproc.pipeline.process", "streamproc.models.pool"} <= {*names}
    told = subprocess.run(
        [sys.executable, "-c", LEAN, *names], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert told.returncode == 0, told.stderr
    assert not CLIENT & set(told.stdout.splitlines()[-1].split()), told.stderr


DECODING = {"av", "numpy", "simplejpeg"}
"""A fifth of a second of every start, and 35 MB of every process."""


def test_only_workers_load_what_decodes_pictures() -> None:
    asking = [n for n in MODULES if room(n) in {"stage", "stages", "runner", "task", "bus"}]
    of_video = [
        f"streamproc.video.{n}" for n in ("decode", "follow", "footage", "pick", "recorded", "sources", "workers")
    ]
    others = ["streamproc.cli.run", "streamproc.cli.up", "streamproc.pipeline.process", "streamproc.pipeline.means"]
    told = subprocess.run(
        [sys.executable, "-c", LEAN.split("for line")[0] + "print(*sys.modules)", *asking, *of_video, *others],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    loaded = {name.partition(".")[0] for name in told.stdout.split()}
    assert "streamproc.stages.decode" in told.stdout.split()
    assert not (DECODING | CLIENT) & loaded
