"""What a foreign record holds, made fit to be shown."""


def printable(content: bytes | str | None) -> str:
    """One line that can do a terminal no harm: whatever is no visible character is escaped."""
    if content is None:
        return ""
    text = content.decode(errors="replace") if isinstance(content, bytes) else content
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
