"""What holds for all tests."""

import signal

# Whoever runs this in the background may have had signals ignored, and so would every process that tests start, and that
# they send such signals to.
for number, action in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, action)
