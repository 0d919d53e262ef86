"""A short part of ``make fuzz`` that uses TLS, and cases that it has found."""

from tests.fuzz_tls import try_tls

# Numbers of tries that found something.
KEPT: list[int] = []


def test_tries() -> None:
    for number in [*KEPT, *range(300)]:
        try_tls(number)
