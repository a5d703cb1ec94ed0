"""The only room that imports ray: one tier is one Tuner, always built from the ledger.

Ray reads its environment when it is imported, so the defaults stand here; what the user set wins.
"""

import os
import secrets
from pathlib import Path

_DEFAULTS = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths go on meaning what they mean to the user
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger is the log
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # a failure is a row with its reason; the traceback is in the study's ray/
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is for the search, which would otherwise go on to the next tier
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}

for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)
if "RAY_AUTH_MODE" not in os.environ and not os.access(Path.home(), os.W_OK):
    # Ray would keep the token of a local cluster under HOME and fail where that cannot be written.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))
