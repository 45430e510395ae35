"""What operators get to see: one JSON object per line, with fixed event names and a closed list of fields.

Knows: which fields may be logged. Must not know: anything about requests beyond those fields. No body, query, token, name or
patient id is among them, so none can slip in.
"""

import json
import logging
import sys
from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final

FIELDS: Final = frozenset(
    {
        "bytes",
        "client",
        "count",
        "detail",
        "hash",
        "method",
        "milliseconds",
        "number",
        "reason",
        "request_id",
        "route",
        "status",
        "version",
        "writer",
    }
)

EVENTS: Final = Counter[str]()  # how often each event came about in this process, whatever level the log is set to

_log = logging.getLogger("gateway")


def log(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """Log an event. `error`: its type and the places it came through are logged, its text is not: texts carry values."""
    unknown = fields.keys() - FIELDS
    if unknown:
        raise ValueError(f"not to be logged: {', '.join(sorted(unknown))}")
    EVENTS[event] += 1
    if _log.isEnabledFor(level):
        _log.log(level, event, extra={"fields": {**fields, **(_trace(error) if error else {})}})


def set_up_logging(level: str) -> None:
    """Send the gateway's events, and what libraries warn of, to standard error, a JSON object per line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLine())
    _log.handlers[:] = [handler]
    _log.setLevel(level.upper())
    _log.propagate = False
    logging.getLogger("authlib").setLevel(logging.INFO)  # below that it logs whole tokens
    root = logging.getLogger()
    if not root.handlers:  # else whoever runs this process takes care of it
        root.addHandler(handler)


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        if record.name == _log.name:
            line |= {"event": record.getMessage(), **getattr(record, "fields", {})}
        else:
            line |= {"event": "library", **_foreign(record)}
        return json.dumps(line)


def _foreign(record: logging.LogRecord) -> dict[str, Any]:
    """What may be told of a library's own log record. Only the web server's words are known to hold no value of a request."""
    detail = f"{record.name}: {record.getMessage().strip()}" if record.name.startswith("uvicorn") else record.name
    error = record.exc_info[1] if record.exc_info else None
    return {"detail": f"{detail}: {_trace(error)['detail']}" if error is not None else detail}


def _trace(error: BaseException) -> dict[str, Any]:
    places = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('gateway/')[2]}:{trace.tb_lineno}")
        trace = trace.tb_next
    return {"detail": f"{type(error).__name__} at {' > '.join(places[-8:])}"}
