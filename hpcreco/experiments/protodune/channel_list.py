"""Lists of channels as flags take them: ``--dead-channels 12,40-47``."""

from __future__ import annotations

from pathlib import Path


class ChannelListError(ValueError):
    """A text that names no channels."""

    exit_code = 2


def channel_list(text: str) -> tuple[int, ...]:
    """``none``, ``12,40-47`` or the path of a text file of such numbers -> sorted channels."""
    if text == "none":
        return ()
    if Path(text).is_file():
        lines = Path(text).read_text().splitlines()
        text = " ".join(line.split("#")[0] for line in lines)
    channels: set[int] = set()
    for part in text.replace(",", " ").split():
        low, dash, high = part.partition("-")
        try:
            channels.update(range(int(low), int(high if dash else low) + 1))
        except ValueError:
            raise ChannelListError(
                f"--dead-channels: {part!r} is neither a channel, a range, nor a file"
            ) from None
    return tuple(sorted(channels))
