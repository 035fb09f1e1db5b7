"""Whether services can be reached from where the tools run: by a TCP connection alone, without credentials.

The host must not try in the supervisor's place: a supervisor may have another network, or none.
"""

import asyncio
import json
from collections.abc import Mapping

OK, UNREACHABLE = "ok", "unreachable"
_CONNECT_S = 1.0

Address = tuple[str, int]


def encode_services(services: Mapping[str, Address]) -> str:
    """The value of the variable `descriptor.SERVICES`."""
    return json.dumps(services)


async def check_services(text: str) -> dict[str, str]:
    """`ok` or `unreachable` for each service in *text*, which `encode_services` made."""
    services = json.loads(text) if text else {}
    statuses = await asyncio.gather(*(_status(*address) for address in services.values()))
    return dict(zip(services, statuses, strict=True))


async def _status(host: str, port: int) -> str:
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError, UnicodeError):  # UnicodeError: a host name that cannot be encoded
        return UNREACHABLE
    writer.close()
    return OK
