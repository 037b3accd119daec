from __future__ import annotations

from common.settings import TABLE
from common.settings_docs import markdown_table


def test_the_table_shows_every_setting_once() -> None:
    table = markdown_table()
    for row in TABLE:
        assert table.count(f"| `{row.env}` | `{row.flag}` |") == 1
    assert "| 33554432 | 1 to 1073741824 bytes |" in table


def test_the_table_is_well_formed_and_the_same_on_every_machine() -> None:
    table = markdown_table()
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {7}
    assert "| ./.limpet/data |" in table
    assert "| examples/websocket_server |" in table
