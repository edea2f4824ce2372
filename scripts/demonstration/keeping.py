"""What remains after the steps, for the person to try."""

import json

from standins.homeserver import Homeserver
from standins.mailbox import Mailbox
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater

from demonstration.daemon import BASE, Daemon
from demonstration.showing import paint, show_mail
from demonstration.steps import OPENID_TOKEN, Client, openid

OVERVIEW = """
The daemon keeps running, and so do the homeserver and the mail relay, until you press Ctrl-C.

   Is it there?    curl {base_url}/v2
   Its figures     curl {metrics_url}
   Its log         tail -f {log}
   Its files       {folder} (they go when this ends)
   Homeserver      https://{homeserver}, OpenID token "{openid_token}"

Register once more; the answer has a new access token:

   curl {base_url}/v2/account/register \\
     -d '{register}'

Have a mail sent, which appears here (send_attempt must grow for another one):

   curl {base_url}/v2/validate/email/requestToken \\
     -H 'Authorization: Bearer {token}' \\
     -d '{request_token}'
"""


async def stay(daemon: Daemon, client: Client, homeserver: Homeserver, mailbox: Mailbox) -> None:
    """Leaves everything running, and shows the mails that come, until this is cancelled.

    Raises:
        Failed: the daemon has ended by itself.
    """
    print(overview(daemon, client, homeserver))
    seen = len(mailbox.mails)
    try:
        while True:
            daemon.must_live()
            while seen < len(mailbox.mails):
                print(f"\n{paint('1', 'A mail arrived at the relay')}")
                show_mail(mailbox.mails[seen])
                seen += 1
            await deferLater(reactor, 0.2)
    except CancelledError:
        return


def overview(daemon: Daemon, client: Client, homeserver: Homeserver) -> str:
    """What there is, with commands that work as they stand."""
    return OVERVIEW.format(
        base_url=daemon.base_url + BASE,
        metrics_url=daemon.metrics_url,
        log=daemon.log,
        folder=daemon.log.parent,
        homeserver=homeserver.server_name,
        openid_token=OPENID_TOKEN,
        token=client.token,
        register=json.dumps(openid(homeserver)),
        request_token=json.dumps(
            {"client_secret": "a_secret_of_mine", "email": "bob@example.org", "send_attempt": 1}
        ),
    )
