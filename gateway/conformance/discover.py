"""What a sandbox says of itself, so that nobody has to write down its tokens.

Knows: where it is asked. Must not know: what is checked.
"""

import httpx

from gateway.conformance.target import TargetError


def describe_sandbox(address: str) -> str:
    """The TOML that `read_target` takes. Raises TargetError where there is no sandbox."""
    try:
        answer = httpx.get(address, timeout=10.0, trust_env=False)
    except httpx.HTTPError as error:
        raise TargetError(f"{address} cannot be read: {type(error).__name__}") from None
    if answer.status_code != 200:
        raise TargetError(f"{address} is answered with {answer.status_code}: this is no sandbox")
    return answer.text
