"""All that the server does, from the OpenID token to the unbind that a homeserver signs, over real sockets."""

import signal
import sys

# As long as there is nothing to clean up, Ctrl-C just ends this.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from demonstration.run import main

if __name__ == "__main__":
    sys.exit(main())
