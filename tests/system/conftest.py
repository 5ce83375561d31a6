"""Fixtures: `home` is a Luna with nothing running, `luna` has a broker and one decoder."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

from luna import BIN, Luna  # noqa: E402


def pytest_configure():
    missing = [name for name in ("luna-broker", "luna-decoder", "lunactl", "luna-vae")
               if not (BIN / name).exists()]
    if missing:
        pytest.exit(f"{BIN} has no {', '.join(missing)}: run make, or set LUNA_BIN", 4)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if outcome.get_result().failed:
        item.luna_failed = True


@pytest.fixture
def home(request):
    luna = Luna()
    try:
        yield luna
        if getattr(request.node, "luna_failed", False):
            print(luna.logs())
        else:
            luna.finish()
    except BaseException:
        print(luna.logs())
        raise
    finally:
        luna.remove()


@pytest.fixture
def luna(home):
    return home.start()
