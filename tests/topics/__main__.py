"""`python -m tests.topics --write` makes the generated part of topics/ anew; without it, says what is out of date."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from streamproc.topics import all_topics
from tests.topics import asyncapi, golden, schemas

FOLDER = Path(__file__).parent.parent.parent / "topics"


def generated() -> dict[str, bytes]:
    """Path below topics/ → what has to stand there."""
    files = {"asyncapi.yaml": asyncapi.document().encode()}
    for topic in all_topics().values():
        files[f"schemas/{topic.name}.json"] = (
            json.dumps(schemas.schema(topic), indent=1, ensure_ascii=False) + "\n"
        ).encode()
    for each in golden.everything():
        entry = each.entry()
        assert entry.value is not None
        files[f"golden/{golden.TODAY}/{each.name}"] = entry.value
        files[f"golden/{golden.TODAY}/{each.name}.headers.json"] = golden.beside(entry).encode()
    return files


def there() -> set[str]:
    """What stands there now, older golden messages left out: nobody makes them anew."""
    found = {
        p.relative_to(FOLDER).as_posix() for folder in ("schemas", "golden") for p in (FOLDER / folder).rglob("*.*")
    }
    files = {name for name in found if (FOLDER / name).is_file()}
    return {"asyncapi.yaml"} | {
        n for n in files if not n.startswith("golden/") or n.startswith(f"golden/{golden.TODAY}/")
    }


def stale() -> list[str]:
    """Files that are missing, differ, or have no business there any more."""
    wanted = generated()
    differ = [n for n, b in wanted.items() if not (FOLDER / n).is_file() or (FOLDER / n).read_bytes() != b]
    return sorted(differ) + sorted(there() - set(wanted))


def write() -> None:
    wanted = generated()
    for name in there() - set(wanted):
        (FOLDER / name).unlink(missing_ok=True)
    for name, content in wanted.items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_bytes(content)


def main() -> None:
    if sys.argv[1:] == ["--write"]:
        write()
    elif found := stale():
        sys.exit("out of date: " + ", ".join(found) + "\nRun: python -m tests.topics --write")


if __name__ == "__main__":
    main()
