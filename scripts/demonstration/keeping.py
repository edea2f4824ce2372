"""What remains after the steps, for the person to try."""

import json

from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater

from demonstration.client import Client
from demonstration.daemon import BASE, Daemon
from demonstration.showing import paint, show, show_mail
from demonstration.steps import openid
from demonstration.surroundings import Surroundings

OVERVIEW = """
The daemon keeps running, and so do the homeserver, the mail relay and the SMS gateway, until you press Ctrl-C.

   Is it there?    curl {base_url}/v2
   Its figures     curl {metrics_url}
   Its log         tail -f {log}
   Its files       {folder} (they go when this ends)
   Homeserver      https://{homeserver}, OpenID token "{openid_token}"

Register once more; the answer has a new access token:

   curl {base_url}/v2/account/register \\
     -d '{register}'

Have a mail or an SMS sent, which appears here (send_attempt must grow for another one):

   curl {base_url}/v2/validate/email/requestToken \\
     -H 'Authorization: Bearer {token}' \\
     -d '{request_mail}'

   curl {base_url}/v2/validate/msisdn/requestToken \\
     -H 'Authorization: Bearer {token}' \\
     -d '{request_sms}'

Invite somebody:

   curl {base_url}/v2/store-invite \\
     -H 'Authorization: Bearer {token}' \\
     -d '{invite}'
"""


async def stay(daemon: Daemon, client: Client, around: Surroundings) -> None:
    """Leaves everything running, and shows the mails and SMS that come, until this is cancelled.

    Raises:
        Failed: the daemon has ended by itself.
    """
    print(overview(daemon, client, around))
    mails, messages = around.mailbox.mails, around.gateway.messages
    seen_mails, seen_messages = len(mails), len(messages)
    try:
        while True:
            daemon.must_live()
            for mail in mails[seen_mails:]:
                print(f"\n{paint('1', 'A mail arrived at the relay')}")
                show_mail(mail)
                seen_mails += 1
            for message in messages[seen_messages:]:
                print(f"\n{paint('1', f'An SMS to {message.number} arrived at the gateway')}")
                show("⇒", message.text)
                seen_messages += 1
            await deferLater(reactor, 0.2)
    except CancelledError:
        return


def overview(daemon: Daemon, client: Client, around: Surroundings) -> str:
    """What there is, with commands that work as they stand."""
    homeserver = around.homeserver
    secret = {"client_secret": "a_secret_of_mine", "send_attempt": 1}
    invite = {
        "medium": "email",
        "address": "dave@example.org",
        "room_id": f"!room:{homeserver.server_name}",
        "sender": client.mxid,
        "room_name": "A room",
    }
    return OVERVIEW.format(
        base_url=daemon.base_url + BASE,
        metrics_url=daemon.metrics_url,
        log=daemon.log,
        folder=daemon.log.parent,
        homeserver=homeserver.server_name,
        openid_token=client.openid_token,
        token=client.token,
        register=json.dumps(openid(client, homeserver)),
        request_mail=json.dumps({**secret, "email": "carol@example.org"}),
        request_sms=json.dumps({**secret, "country": "GB", "phone_number": "07700 900456"}),
        invite=json.dumps(invite),
    )
