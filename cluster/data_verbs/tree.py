"""A tree of lines, none of them cut off: what it shows, hashes above all, is there to be copied."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.text import Text


@dataclass(slots=True)
class Branch:
    """A line, and what belongs to it."""

    text: Text
    below: list["Branch"] = field(default_factory=list)

    def add(self, line: str, style: str = "") -> "Branch":
        """One more line below; returns it."""
        self.below.append(Branch(Text(line, style=style)))
        return self.below[-1]

    def lines(self) -> Iterator[Text]:
        """All of it, with guides."""
        yield self.text
        for number, branch in enumerate(self.below, start=1):
            is_last = number == len(self.below)
            first, *others = branch.lines()
            yield Text.assemble("└── " if is_last else "├── ", first)
            yield from (Text.assemble("    " if is_last else "│   ", line) for line in others)
