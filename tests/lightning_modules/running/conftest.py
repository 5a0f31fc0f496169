from tests.scripts.conftest import call, run

__all__ = ["call", "run"]
