"""For applications: holds the current value of a secret, refreshes it, and gets over its rotation.

    secret = Secret.open("aws://eu-west-1/prod/support-copilot-chat")
    answer = secret.call(lambda key: ask(key.reveal()))

It needs the standard library and the SDK of one vault, which is loaded with the first read; nothing of the engine. It lies
below `rotation` because an application often has a module called `consumers` of its own.
"""

from rotation.consumer.refusal import unauthorized
from rotation.consumer.secret import Secret, Status
from rotation.consumer.value import Unavailable, Value

__all__ = ["Secret", "Status", "Unavailable", "Value", "unauthorized"]
