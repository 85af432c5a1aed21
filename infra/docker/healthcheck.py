"""HEALTHCHECK of the image: asks the gateway or worker in this container over HTTP; it needs the standard library only.

HEALTH_PORT is where it listens (default 8080), HEALTH_PATH what is asked (default /livez).
"""

import http.client
import os
import sys

#: Below the HEALTHCHECK's own timeout, so that the reason is printed before the engine gives up.
TIMEOUT_S = 4.0


def main() -> int:
    """Exit code 0 when the answer is 200, else 1 with the reason on stderr."""
    port = int(os.environ.get("HEALTH_PORT") or 8080)
    path = os.environ.get("HEALTH_PATH") or "/livez"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(500).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"{path} on port {port}: {type(error).__name__}: {error}\n")
        return 1
    finally:
        connection.close()
    if response.status != 200:
        sys.stderr.write(f"{path} on port {port}: {response.status} {body}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
