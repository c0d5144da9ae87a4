"""unetcam methods: how a map can be made."""

from __future__ import annotations

from typing import get_args

from unetcam.cli import options
from unetcam.cli.console import print_json


def methods(json: options.Json = False) -> None:
    """List the methods: their names, what they compute, and when they are of use."""
    from unetcam.methods import Method, get, names, wrappers
    from unetcam.methods.registry import Family

    found: list[tuple[str, Method | type[Method]]] = [(name, get(name)) for name in names()]
    found += [(f"{one.prefix}*", one) for one in wrappers()]
    found.sort(key=lambda pair: get_args(Family).index(pair[1].family))
    if json:
        print_json(
            {
                "methods": [
                    {
                        "name": name,
                        "title": one.title,
                        "family": one.family,
                        "formula": one.formula,
                        "paper": one.paper,
                        "when": one.when,
                    }
                    for name, one in found
                ]
            }
        )
        return
    for name, one in found:
        print(f"{name}: {one.title} ({one.family})")
        print(f"  {one.formula}\n  {one.when}\n  {one.paper}\n")
