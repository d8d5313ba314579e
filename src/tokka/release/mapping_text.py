"""A framework's mapping as Markdown.

>>> mapping_text(mapped(read_framework("fsa-mrm"), folder), "ja").splitlines()[0]
'# 金融庁「モデル・リスク管理に関する原則」（2021年11月）との対応'
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokka.release.cards import Language, markdown, words


def mapping_text(mapping: Mapping[str, Any], language: Language) -> str:
    w = words(language)
    lines = [f"# {markdown(mapping['title'][language])}", "", markdown(mapping["note"][language])]
    for row in mapping["rows"]:
        lines += ["", f"## {markdown(row['title'][language])}", "", row["asks"][language], ""]
        lines.append(f"**{w['status_' + row['status']]}**")
        lines.append("")
        for one in row["evidence"]:
            lines.append(
                f"- ✓ {markdown(one['shows'][language])}: [{one['file']}](../{one['file']})"
            )
        for one in row["missing"]:
            who = f" ({w['by_whom']}: {one['who'][language]})" if one["who"] else ""
            lines.append(f"- ✗ {markdown(one['what'][language])}{markdown(who)}")
    return "\n".join(lines) + "\n"
