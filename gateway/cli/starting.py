"""Ctrl-C while the command line is still being read in, which takes a second: it ends at once, without a trace.

Knows: the signal. Imported before everything else, and told when the rest is there. Must not know: any command.
"""

import signal
import threading

# Only the main thread may say what a signal does, and what somebody else has said of it stays.
_IS_OURS = (
    threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
)
if _IS_OURS:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_over() -> None:
    """From now on Ctrl-C is a KeyboardInterrupt, as ever: commands have something to put in order."""
    if _IS_OURS:
        signal.signal(signal.SIGINT, signal.default_int_handler)
