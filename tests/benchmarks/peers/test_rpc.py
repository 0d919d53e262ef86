"""The table of what gRPC and REST cost."""

from benchmarks.peers.rpc import BEGIN, END, PAGE, SIDES, Reached, table


def test_the_table_has_medians_and_what_clipper_takes_of_the_others() -> None:
    measured = {
        "clipper": {"gRPC": [Reached(100, 10), Reached(300, 30), Reached(200, 20)]},
        "mlserver": {"gRPC": [Reached(10, 100), Reached(10, 100), Reached(10, 100)]},
    }
    assert table(measured).splitlines()[2:] == [
        "| clipper | 200, 20 |",
        "| mlserver | 10, 100; **0.20** (0.10-0.30) |",
    ]


def test_every_side_opens_its_port_for_grpc() -> None:
    assert all(side.settings["GRPC"] == "1" for side in SIDES.values())
    assert BEGIN in PAGE.read_text() and END in PAGE.read_text()
