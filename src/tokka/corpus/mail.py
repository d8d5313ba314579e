"""A mail (.eml) → a `Document` of its headers and text, and one for each attachment.

Attachments have ids `mail.eml/name`; a mail within a mail is such an attachment. Written to be
lenient: mail programs are.

>>> [d.id for d in read(File(Path("request.eml"), "request.eml"))]
['request.eml', 'request.eml/規程.pdf']
"""

from __future__ import annotations

import email
import email.header
import email.message
import email.policy
import email.utils
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

from tokka.corpus.documents import build
from tokka.corpus.encoding import decode, tidy
from tokka.corpus.formats import Member, read_members
from tokka.corpus.html import page_of
from tokka.corpus.limits import File
from tokka.corpus.places import clean
from tokka.errors import ItemError
from tokka.records import Document, Dropped

_Message: TypeAlias = "email.message.Message[str, str]"
_SHOWN = ("From", "To", "Cc", "Date")
_UNREAD = frozenset({"application/pkcs7-signature", "application/x-pkcs7-signature"})
_UNREAD |= {"application/pgp-signature", "application/pgp-keys"}
_LOCKED = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})
_SAME_AS = {  # what mail programs take these names to mean
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "x-sjis": "cp932",
    "windows-31j": "cp932",
    "us-ascii": "",
    "iso-8859-1": "cp1252",
    "unknown-8bit": "",
}
_MOST_PARTS = 1000


def read(file: File) -> Iterator[Document | Dropped]:
    """Raises ItemError for a file that is no mail, and for an encrypted one."""
    message = email.message_from_bytes(file.data(), policy=email.policy.compat32)
    if not message.keys():
        raise ItemError(f"mail: {file.id} has no headers; save it as .eml or list it under skip")
    texts: list[str] = []
    attached: list[tuple[str, bytes]] = []
    for part in _parts(message, file):
        if part.get_content_type() == "message/rfc822":
            attached.append(_inner_mail(part))
        elif name := _file_name(part):
            attached.append((name, _bytes(part)))
        else:
            texts.append(_text(part, file))
    raw = {name.lower(): str(value) for name, value in message.raw_items()}
    headers = {name: _words(raw.get(name.lower(), "")) for name in ("Subject", *_SHOWN)}
    shown = [f"{name}: {headers[name]}" for name in _SHOWN if headers[name]]
    subject = headers["Subject"]
    body = "\n\n".join(text.strip("\n") for text in texts if text.strip())
    top = ([f"# {subject}", ""] if subject else []) + shown
    yield build(
        tidy("\n".join(top) + "\n\n" + body + "\n"),
        file.id,
        title=subject,
        language=file.language,
        metadata={
            "subject": subject,
            "from": headers["From"],
            "to": headers["To"],
            "date": _date(headers["Date"]),
        },
    )
    yield from read_members(file, _members(attached))


def _inner_mail(part: _Message) -> tuple[str, bytes]:
    inner = _inside(part)
    if not inner:
        return "mail.eml", b""
    subject = _words(str(inner[0].get("Subject", ""))).replace("/", "-")
    name = part.get_filename() and _file_name(part)
    return name or f"{subject[:60] or 'mail'}.eml", inner[0].as_bytes()


def _inside(part: _Message) -> list[_Message]:
    """The parts of a part; [] for one that holds text or a file."""
    inner = part.get_payload()
    return [one for one in inner if not isinstance(one, str)] if isinstance(inner, list) else []


def _parts(message: _Message, file: File) -> Iterator[_Message]:
    """The parts to read: of alternatives the plain text, else the HTML; a mail inside as a whole.

    Pictures shown in the text, signatures and calendars' doubles are passed over.
    """
    waiting = [message]
    count = 0
    while waiting:
        part = waiting.pop()
        count += 1
        if count > _MOST_PARTS:
            raise ItemError(f"mail: {file.id} has more than {_MOST_PARTS:,} parts; split it")
        kind = part.get_content_type()
        inner = _inside(part)
        if kind in _LOCKED:
            raise ItemError(
                f"mail: {file.id} is encrypted or signed as a whole; "
                "save it from the mail program as plain text, or list it under skip"
            )
        if kind == "multipart/alternative" and inner:
            waiting += _best(inner)
        elif kind.startswith("multipart/"):
            waiting += reversed(inner)
        elif kind in _UNREAD or (kind.startswith("image/") and not _is_attached(part)):
            continue
        else:
            yield part


def _best(parts: list[_Message]) -> list[_Message]:
    """What to read of alternatives, the last to be read first; attachments among them too."""
    plain = [p for p in parts if p.get_content_type() == "text/plain" and _bytes(p).strip()]
    html = [p for p in parts if p.get_content_type() == "text/html"]
    nested = [p for p in parts if p.is_multipart()]
    chosen = plain[:1] or html[:1] or nested[:1]
    if plain:  # the HTML with its attachments may be nested beside the plain text
        chosen += [inner for p in nested for inner in p.walk() if _is_attached(inner)]
    return chosen[::-1]


def _is_attached(part: _Message) -> bool:
    return part.get_content_disposition() == "attachment"


def _file_name(part: _Message) -> str:
    """The attachment's name without any folder; "" for the text of the mail."""
    name = part.get_filename() or ""
    name = clean(_words(name)).replace("\\", "/").rsplit("/", 1)[-1].strip()
    if name in (".", ".."):
        name = ""
    shown = part.get_content_type() in ("text/plain", "text/html")
    if shown and not _is_attached(part):
        return ""
    return name or f"attachment.{part.get_content_subtype()}"


def _bytes(part: _Message) -> bytes:
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def _text(part: _Message, file: File) -> str:
    data = _bytes(part)
    if not data.strip():
        return ""
    says = (part.get_content_charset() or "").lower()
    declared = _SAME_AS.get(says, says)
    if part.get_content_type() == "text/html":
        return page_of(data, file.id, declared).text
    return decode(data, file.id, declared)


def _words(header: str) -> str:
    """A header's text: =?ISO-2022-JP?B?…?= decoded, whatever its program got wrong."""
    try:
        pieces = email.header.decode_header(re.sub(r"\r?\n[ \t]+", " ", header))
    except (email.errors.HeaderParseError, ValueError):
        return " ".join(header.split())
    text = ""
    for data, charset in pieces:
        if isinstance(data, str):
            try:
                data = data.encode("ascii", "surrogateescape")
            except UnicodeEncodeError:  # of a file name that was decoded already
                text += data
                continue
        says = (charset or "").lower()
        try:
            text += decode(data, "header", _SAME_AS.get(says, says)) if data else ""
        except ItemError:
            text += data.decode("ascii", "replace")
    return " ".join(text.split())


def _date(header: str) -> str:
    try:
        return email.utils.parsedate_to_datetime(header).isoformat()
    except (ValueError, TypeError):
        return header


def _members(attached: list[tuple[str, bytes]]) -> Iterator[Member]:
    """Two attachments of one name get a number before the suffix."""
    seen: dict[str, int] = {}
    for name, data in attached:
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            stem, dot, suffix = name.rpartition(".")
            name = f"{stem or suffix} ({seen[name]}){dot}{suffix if stem else ''}"
        yield Member(name, partial(_write, data))


def _write(data: bytes, target: Path) -> None:
    target.write_bytes(data)
