"""Exchange rates from a web service that is slow, busy at times, and allows few requests a second.

    python examples/currency_rates.py           # starts a service on this host, and asks it
    anyrank farm examples/currency_rates.py:rate -n 2 --table t.csv --concurrency 10 --per-second 50 --attempts 5

The table has the columns currency and url. Each rank waits for 10 answers at a time, in threads. A request that the
service refuses with status 503 is tried again after a pause that doubles.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

from anyrank import farm

#: Units of a currency for a euro, on 2 January 2025 (European Central Bank).
RATES = {"AUD": 1.6590, "CHF": 0.9404, "CNY": 7.5235, "GBP": 0.8284, "JPY": 162.23, "NOK": 11.7310, "USD": 1.0321}
#: The number of requests for each currency.
REQUESTS: Counter[str] = Counter()


def rate(currency: str, url: str) -> float:
    """Return the rate of a currency that a service gives."""
    with urlopen(f"{url}/{currency}", timeout=10) as answer:
        return float(json.load(answer)["rate"])


class Service(BaseHTTPRequestHandler):
    """Answers after 50 ms, and refuses the first two requests for each currency."""

    def do_GET(self) -> None:
        currency = self.path[1:]
        time.sleep(0.05)
        REQUESTS[currency] += 1
        if REQUESTS[currency] <= 2:
            self.send_error(503)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"rate": RATES[currency]}).encode())

    def log_message(self, *words: object) -> None:
        pass


@contextmanager
def serve() -> Iterator[str]:
    """Run the service in threads of this process; yields its address."""
    REQUESTS.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


if __name__ == "__main__":
    with serve() as address:
        rates = farm.map(rate, RATES, [address] * len(RATES), ranks=2, concurrency=10, attempts=5, backoff=0.2)
    for currency, value in zip(RATES, rates, strict=True):
        print(f"1 EUR = {value} {currency}")
