"""A RUN that has ended, made again on one device, to look at some of its images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning_modules.running.arithmetic import compute_to_float32
from lightning_modules.running.evaluation import EvaluationCLI
from lightning_modules.running.folder.provenance import weights_sha256
from lightning_modules.running.folder.run_folder import RunFolder


def made_again(run: Path, model_class: Any, data_class: Any, *words: str) -> EvaluationCLI:
    """The module, the images and the trainer of a run, with its own settings but for ``words``.

    Raises:
        RunError: If the weights or the images have changed since.
    """
    compute_to_float32()
    one_device = "--trainer.devices 1 --trainer.num_nodes 1 --trainer.strategy auto --trainer.limit_test_batches 1.0"
    args = ["--config", str(run / "config.yaml"), "--out", str(run), *one_device.split(), *words]
    cli = EvaluationCLI(model_class, data_class, description="", args=args)
    network = cli.model.network.to(cli.trainer.strategy.root_device)
    now = {"weights_sha256": weights_sha256(network), "data": cli.datamodule.fingerprint()}
    inputs = json.loads((run / "inputs.json").read_text()) | now
    RunFolder(run).settle("inputs.json", json.dumps(inputs), fixed=True, start_over="compute the run again")
    return cli
