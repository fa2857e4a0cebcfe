"""Other people's text on a terminal: labels, errors and logs steer nothing and are no markup."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from harness.document.text import VisibleStream, visible


class PlainConsole(Console):
    """A console on which text is text: no markup, no colours of its own in it, no escapes."""

    def __init__(self, *, pipe_width: int | None = None, stderr: bool = False) -> None:
        stream: object = sys.stderr if stderr else sys.stdout
        super().__init__(
            file=stream.raw if isinstance(stream, VisibleStream) else None,
            stderr=stderr,
            width=None if (sys.stderr if stderr else sys.stdout).isatty() else pipe_width,
            markup=False,
            emoji=False,
            highlight=False,
        )

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """See Console; what is not the console's own control is shown."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)
