"""What is not collected yet."""

from __future__ import annotations

from tests.ensembles.scenes import ZKD_SERVES

collect_ignore = [] if ZKD_SERVES else ["test_storm.py", "test_throwaway_ensemble.py"]
