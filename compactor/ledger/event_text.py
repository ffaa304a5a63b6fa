"""The JSON of an event, out of the bytes that a reader of lines gives for it (`core.lines`)."""

from compactor.core.decoding import replace_half_characters


def cut_event(data: bytes) -> bytes:
    """The object of an event without what belongs to it in its line: blanks, a byte order mark, its newline.

    Halves of characters are replaced, as the reader does, so that any reader of JSON takes it.
    """
    return replace_half_characters(data[data.find(b"{") : data.rfind(b"}") + 1])
