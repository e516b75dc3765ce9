"""What /openapi.json says is what the daemon does: schemathesis, with every check it has, finds nothing."""

from pathlib import Path

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.api_keys import make_key
from tests.support.pools import a_fake_pool
from tests.support.schemathesis_run import run_schemathesis

EXAMPLES = 15
SEED = 1


@pytest.mark.orch("ORCH-3015", "ORCH-3019", "ORCH-3044")
@pytest.mark.parametrize("is_keyed", [False, True], ids=["without keys", "with keys"])
def test_the_document_is_honest(make_daemon: MakeDaemon, tmp_path: Path, is_keyed: bool) -> None:
    daemon = make_daemon(a_fake_pool(queue={"capacity": 4096}))
    key = make_key(daemon) if is_keyed else None
    daemon.start_ready()

    report = run_schemathesis(daemon.port, tmp_path, examples=EXAMPLES, seed=SEED, key=key)

    assert report.is_clean, report.text[-6000:]
    assert report.cases > 500
    document = daemon.ask("GET", "/openapi.json", headers={"Authorization": f"Bearer {key}"} if key else None).json
    operations = [path for path, item in document["paths"].items() for _ in item]
    assert report.operations == len(operations) - operations.count("/openapi.json")
    assert "Traceback" not in daemon.log_text()
