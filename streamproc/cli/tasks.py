"""`streamproc tasks`: which tasks there are, and every option of one."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import Annotated, Any

import typer

from streamproc.cli.frame import JsonOption, emit, line, table

app = typer.Typer(name="tasks", help="What streams can be looked at for.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    root.add_typer(app)


@app.command("list", epilog="Example: streamproc tasks list")
def list_(json: JsonOption = False) -> None:
    """Every task that ships; a TOML file of your own goes wherever a name does."""
    from streamproc.pipeline.parts import planned
    from streamproc.task import load, tasks

    found = [load(name) for name in tasks()]
    stages = {t.name: list(dict.fromkeys(p.stage for p in planned(t))) for t in found}
    if json:
        emit([{"name": t.name, "about": t.about, "stages": stages[t.name]} for t in found])
        return
    table(("task", "stages", "about"), [(t.name, ", ".join(stages[t.name]), t.about) for t in found])


@app.command(epilog="Example: streamproc tasks show soccer")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A task by name, or a TOML file of yours.")],
    json: JsonOption = False,
) -> None:
    """Every option of a task: its value there, type, default, bounds, help, and the variables that a prompt may use."""
    from streamproc.task import load, options

    task = load(name)
    said = task.resolved()
    rows = [{"option": o.name, "value": _at(said, o.name), **_told(o)} for o in options() if o.name != "name"]
    if json:
        emit({"name": task.name, "about": task.about, "options": rows})
        return
    line(f"{task.name}: {task.about}")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 120
    for row in rows:
        bounds = f" {row['bounds']}" if row["bounds"] else ""
        line(f"\n{row['option']}  ({row['type']}{bounds}; default {_short(row['default'])})")
        for text in textwrap.wrap(row["help"], width - 4):
            line(f"    {text}")
        for variable, about in row["variables"].items():
            line(f"    {{{variable}}}  {about}")
        if row["value"] != row["default"]:
            line(textwrap.indent(f"= {_whole(row['value'])}", "    "))


def _told(option: Any) -> dict[str, Any]:
    kept = ("type", "default", "bounds", "help", "variables")
    return {name: getattr(option, name) for name in kept}


def _at(said: Any, name: str) -> Any:
    for part in name.split("."):
        said = said.get(part) if isinstance(said, dict) else None
    return said


def _short(value: Any) -> str:
    text = "none" if value in (None, "", [], (), {}) else _whole(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _whole(value: Any) -> str:
    import msgspec

    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
