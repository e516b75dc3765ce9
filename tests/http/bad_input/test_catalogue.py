"""No number of the catalogue of bad input is without a case."""

import re
from pathlib import Path

HERE = Path(__file__).parent
FILES = [*HERE.glob("test_*.py"), HERE.parent.parent / "daemon" / "test_bad_input.py"]
LAST = 53


def test_every_row_of_the_catalogue_has_a_case() -> None:
    text = "".join(path.read_text() for path in FILES)

    found = {int(number) for number in re.findall(r"""(?:["'_])B(\d\d)[ _-]""", text)}

    assert found >= set(range(1, LAST + 1))
