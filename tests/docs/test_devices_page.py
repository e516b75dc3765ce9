"""The page about devices says of every fault what the table of faults decides."""

from pathlib import Path

from supervisor.core.faults import ALARMS, XIDS

PAGE = Path(__file__).parents[2] / "docs" / "devices.md"


def test_the_page_has_the_table_of_faults_as_it_is() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| fault")]

    assert rows == [
        f"| {fault} | {each.text} | {each.reaction} | {each.kind} | {each.ecc or ''} |"
        for fault, each in [*XIDS.items(), *ALARMS.items()]
    ]
