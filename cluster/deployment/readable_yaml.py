"""YAML for people: keys in their order, texts of several lines as blocks, nothing by reference."""

from typing import Any

import yaml


class Readable(yaml.SafeDumper):
    """See `dump`."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Readable.add_representer(str, Readable.represent_text)


def dump(*documents: dict[str, Any], comment: list[str]) -> str:
    """The documents, below the comment's lines."""
    text = yaml.dump_all(documents, Dumper=Readable, sort_keys=False, width=120, explicit_start=len(documents) > 1)
    return "".join(f"# {line}".rstrip() + "\n" for line in comment) + "\n" + text
