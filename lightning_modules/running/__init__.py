"""The command line and the folder that a run leaves (RUN), as a library: for our scripts and for yours.

Nothing here computes a number.
"""

from lightning_modules.running.cli import RunCLI, import_from_here, run_main
from lightning_modules.running.comparison import run_comparison
from lightning_modules.running.demonstration import demonstrate
from lightning_modules.running.description import run_description
from lightning_modules.running.evaluation import EvaluationCLI, run_evaluation
from lightning_modules.running.folder.finished_run import run_report
from lightning_modules.running.folder.run_folder import RunError, RunFolder
from lightning_modules.running.folder.writer import RunWriter
from lightning_modules.running.look import run_look
from lightning_modules.running.packing import packing_options
from lightning_modules.running.prediction import run_prediction
from lightning_modules.running.training import run_training

__all__ = [
    "EvaluationCLI",
    "RunCLI",
    "RunError",
    "RunFolder",
    "RunWriter",
    "demonstrate",
    "import_from_here",
    "packing_options",
    "run_comparison",
    "run_description",
    "run_evaluation",
    "run_look",
    "run_main",
    "run_prediction",
    "run_report",
    "run_training",
]
