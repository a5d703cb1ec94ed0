"""`python -m spine_ray.export`: the ensemble of a study as a bundle that runs without it, and as an MLflow model."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from spine_ray.show.arguments import Parser
from spine_ray.show.plain import fail, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, print, return 0; or 2 for bad input."""
    given = _parser().parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Imported here, so that --help and wrong words are answered without waiting for torch.
    from spine_ray.climb.export import check_registration, export_study, register_model
    from spine_ray.show.predicted import cascade_line, exported_lines

    try:
        if given.register is not None:
            check_registration(given.register)
        done = export_study(given.study, given.out, with_onnx=given.onnx)
        model = given.register and register_model(given.study, given.out / "mlflow", given.register)
    except (ValueError, OSError) as error:
        fail(error)
        return 2
    files = [(file.trial_id, file.path is not None, file.told) for file in done.onnx]
    for line in exported_lines(given.out, len(done.artefact.members), done.megabytes, files, has_model=done.has_model):
        say(line)
    if model:
        say(f"  registered as {model} where the study is tracked, with the ensemble's run")
    say(cascade_line(done.artefact.cascade))
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m spine_ray.export", description=__doc__, allow_abbrev=False)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder")
    parser.add_argument("--onnx", action="store_true", help="an ONNX file of every member that can be exported, too")
    parser.add_argument(
        "--register", metavar="NAME", help="register the MLflow model under this name where the study is tracked"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
