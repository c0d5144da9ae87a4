"""unetcam methods: how a map can be made."""

from __future__ import annotations

from unetcam.cli import options
from unetcam.cli.console import print_json


def methods(json: options.Json = False) -> None:
    """List the methods: their names, what they compute, and when they are of use."""
    from unetcam.methods import get, names

    found = [get(name) for name in names()]
    if json:
        print_json(
            {
                "methods": [
                    {
                        "name": one.name,
                        "title": one.title,
                        "formula": one.formula,
                        "paper": one.paper,
                        "when": one.when,
                    }
                    for one in found
                ]
            }
        )
        return
    for one in found:
        print(f"{one.name}: {one.title}\n  {one.formula}\n  {one.when}\n  {one.paper}\n")
