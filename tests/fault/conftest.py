"""The fixtures of tests/system, here too."""

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

import faultfs  # noqa: E402

_path = Path(__file__).resolve().parent.parent / "system" / "conftest.py"
_spec = importlib.util.spec_from_file_location("system_conftest", _path)
_system = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_system)

home, luna = _system.home, _system.luna
pytest_runtest_makereport = _system.pytest_runtest_makereport


def pytest_configure():
    _system.pytest_configure()
    if not faultfs.LIBRARY.exists():
        _system.pytest.exit(f"{faultfs.LIBRARY} is missing: run make faultfs", 4)


@_system.pytest.fixture
def bare(request):
    """A Luna without the ledger of pictures: for jobs whose decoder is the test itself."""
    luna = _system.Luna()
    try:
        yield luna
    finally:
        if getattr(request.node, "luna_failed", False):
            print(luna.logs())
        luna.remove()
