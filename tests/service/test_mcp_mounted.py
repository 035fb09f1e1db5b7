"""MCP at /mcp of a service that runs: the real client, with a key, in both eras."""

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

pytestmark = [pytest.mark.slow, pytest.mark.any_user, pytest.mark.stores]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_run_over_mcp_is_the_users(served, mode: str) -> None:
    """It is in the user's list over HTTP, and another user's client reads nothing of it."""
    keys = {"alice": served.key, "bob": served.other_key}
    ran = ""
    for name, key in keys.items():
        async with (
            httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}) as http,
            Client(streamable_http_client(f"{served.url}/mcp", http_client=http), mode=mode) as client,
        ):
            if name == "alice":
                code = "print('over mcp')\nopen(OUTPUT_DIR + '/a.txt', 'w').write('a')"
                answer = await client.call_tool("run_python", {"code": code})
                assert not answer.is_error
                ran = answer.structured_content["exec_id"]
                seen = (await http.get(f"{served.url}/v1/runs/{ran}")).json()
                assert (seen["client"], seen["result"]["stdout"]) == ("mcp", "over mcp\n")
                assert (await client.read_resource(f"isorun://runs/{ran}/out/a.txt")).contents[0].text == "a"
            else:
                refused = await client.call_tool("read_output", {"exec_id": ran, "path": "a.txt"})
                assert refused.is_error
                with pytest.raises(MCPError):
                    await client.read_resource(f"isorun://runs/{ran}/out/a.txt")


def test_no_key_no_mcp(served) -> None:
    """401 in the service's own shape, whatever is sent."""
    for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": "isorun_session=x"}):
        refused = httpx2.post(f"{served.url}/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "ping"}, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (401, "not_signed_in")
